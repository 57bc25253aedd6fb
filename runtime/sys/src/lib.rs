//! Raw system calls.
#![no_std]
