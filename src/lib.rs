pub mod base;
pub mod device;
pub mod error;
pub mod ops;
