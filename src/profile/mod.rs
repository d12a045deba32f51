//! Where the time goes: the steps of a program timed one by one, and held against what the machine can do at best.
//!
//! [`layers`] times ops by themselves; [`peak`] measures the machine (arithmetic in registers, memory), [`mod@measure`] the steps, [`roofline`] compares. Speeds are
//! measured in the process that reports them, never taken from a data sheet.

pub mod gpu;
pub mod layers;
pub mod measure;
pub mod peak;
pub mod roofline;

pub use gpu::gpu_peaks;
pub use measure::{Times, measure, median, peak_memory};
pub use peak::{Arithmetic, Bandwidth, arithmetic, bandwidth};
pub use roofline::{Cost, Group, Peaks, costs, groups};
