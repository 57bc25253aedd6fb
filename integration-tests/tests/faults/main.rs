//! A flint that fails or dies at a chosen step or system call.
#![forbid(unsafe_code)]

mod kills;
mod steps;
