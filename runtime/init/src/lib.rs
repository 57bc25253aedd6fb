//! Everything that runs between clone and exec.
#![no_std]
#![forbid(unsafe_code)]
pub mod plan;
