//! `containerd-shim-flint-v1`: keeps containers alive for containerd, dockerd and flintd (task API v2 and v3).
//!
//! Not written yet: this crate holds its place in the workspace and the rules it will keep.
//!
//! ```text
//!  ttrpc request -> service   decodes only
//!                -> tasks     a lock per task, never the table's across an await
//!                -> task      a state machine
//!                -> flint-runtime, on a blocking thread
//!                -> events    one ordered queue, retried until delivered
//!
//!  exits: settles the races between start and exit in one place (pidfds; init's exit last; OOM before exit)
//! ```
//!
//! It must not make raw system calls of its own (flint-sys), start the runtime as a program, reap children that
//! are not its own, or hold a lock across a create.
#![forbid(unsafe_code)]
