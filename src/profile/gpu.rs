//! What a GPU can do at best: arithmetic as its chip's papers say, bandwidth as the sum of two large matrices reaches it.

use super::{Peaks, median};
use crate::base::{DType, Precision};
use crate::device::Device;
use crate::device::cuda::Cuda;
use crate::error::{Error, Result};
use crate::exec::{Passes, Program, Session};
use crate::ir::Builder;
use crate::ops::Add;
use crate::pass::plan::Step;
use std::time::Duration;

/// Floats of each matrix: larger than any chip's cache.
const FLOATS: usize = 64 << 20;

/// Measures a GPU, and gives it back. Its arithmetic is that of the precision's products.
///
/// # Errors
/// When the GPU has failed, or its chip is unknown.
pub fn gpu_peaks(gpu: Cuda, precision: Precision) -> Result<(Cuda, Peaks)> {
    let flops_per_s = gpu.driver().peak(precision).ok_or_else(|| Error::machine("its peak is not known").at(gpu.describe()))?;
    let mut b = Builder::new();
    let inputs = ["x0", "x1"].map(|name| b.input(name, [1, 1, FLOATS / 1024, 1024]));
    let y = b.op(Add, &inputs);
    b.output("y", y);
    let mut program = Program::compile(b.finish()?, &gpu, Passes::default())?;
    let mut session = Session::new(gpu)?;
    session.reserve(&program)?;
    let mut seconds = Vec::new();
    for _ in 0..5 {
        session.replay(&mut program, Some(&mut |_: &Step, time: Duration| seconds.push(time.as_secs_f64())))?;
    }
    // Two matrices are read, one is written.
    let bytes_per_s = (3 * FLOATS * DType::F32.size()) as f64 / median(&seconds);
    Ok((session.into_device(), Peaks { flops_per_s, bytes_per_s }))
}
