pub mod base;
pub mod device;
pub mod error;
pub mod ir;
pub mod models;
pub mod ops;
pub mod weights;
