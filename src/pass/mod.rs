//! Passes: each takes a graph and returns a graph, is checked after, and can be switched off.
//!
//! `grad` appends the backward rows, `precision` chooses number types, `fuse` moves neighbouring rows into fields of their
//! producer, makes large results again instead of keeping them, `plan` gives every value a place in memory. [`crate::exec`] runs what comes out.

mod commute;
mod epilogue;
pub mod fuse;
pub mod grad;
pub mod group;
pub mod plan;
pub mod precision;
mod recompute;

pub use fuse::{Fusions, fuse};
pub use grad::{grad, vjp};
pub use plan::{Plan, plan};
pub use precision::precision;
