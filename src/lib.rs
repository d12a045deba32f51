//! One derivative from formula to silicon, about 600 lines in one sitting:
//!
//! 1. `src/ops/conv2d/mod.rs`: the formula, shape inference, and [the gradient rule](ops::Rule::vjp) in five lines.
//! 2. `src/ops/conv2d/naive.rs`: the same as plain loops in f64, the specification.
//! 3. `src/pass/grad.rs`: [the backward pass](mod@pass::grad), a loop over the rows in reverse that appends rows.
//! 4. `defrost explain vgg16 --layer block1_conv1 --grad`: those rows, printed, before and after fusion.
//! 5. `src/device/cpu/tile/strip.rs`: the innermost loop that they end up in.
//!
//! `docs/tour.md` walks this way with snippets that run.

pub mod base;
pub mod cli;
pub mod data;
pub mod device;
pub mod error;
pub mod exec;
pub mod experiment;
pub mod ir;
pub mod metrics;
pub mod models;
pub mod ops;
pub mod pass;
pub mod profile;
pub mod report;
pub mod selftest;
pub mod train;
pub mod weights;

/// The tour's snippets, compiled and run with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/tour.md")]
pub struct Tour;
