//! What the build put into the program: the sources of kernels and emulator, and the kernels compiled for GPUs.

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
