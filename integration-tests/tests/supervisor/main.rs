//! The node supervisor, and its parts, on the real kernel.
#![forbid(unsafe_code)]

mod network;
mod node;
