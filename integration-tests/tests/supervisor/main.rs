//! The node supervisor, and its parts, on the real kernel.
#![forbid(unsafe_code)]

mod flintctl;
mod flintctl_docs;
mod network;
mod node;
mod real;
