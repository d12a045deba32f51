pub mod base;
pub mod data;
pub mod device;
pub mod error;
pub mod exec;
pub mod ir;
pub mod ops;

pub mod pass;
pub mod selftest;
