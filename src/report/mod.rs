//! Results for people: plain text tables and numbers with units. Everything is a function of its input, so that equal runs
//! make equal files.

mod table;
mod units;

pub use table::{Align, Table};
pub use units::{bytes, flops, grouped};
