use super::{Add, MOST};
use crate::base::DType;
use crate::device::Call;
use crate::device::cuda::{Cuda, DevicePtr, tiles};
use crate::ops::Run;
use crate::{kernel_struct, kernels};

/// `Summands` of elementwise.cu.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Summands {
    x: [DevicePtr; MOST],
    pitch: [i32; MOST],
    count: i32,
    unused: i32,
}
kernel_struct!(Summands);

kernels! { in "elementwise";
    fn add_f32(xs: Summands, y: *mut f32, pitch: i32, rows: i32, cols: i32, add: i32);
    fn add_f32x4(xs: Summands, y: *mut f32, pitch: i32, rows: i32, cols: i32, add: i32);
    fn add_bf16(xs: Summands, y: *mut half::bf16, pitch: i32, rows: i32, cols: i32, add: i32);
    fn add_bf16x8(xs: Summands, y: *mut half::bf16, pitch: i32, rows: i32, cols: i32, add: i32);
}

const THREADS: usize = 256;

impl Run<Cuda> for Add {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (y, count) = (call.dst(0), call.ins.len());
        let mut xs = Summands { x: [DevicePtr(0); MOST], pitch: [0; MOST], count: count as i32, unused: 0 };
        let mut packs = y.packs();
        for i in 0..count {
            let x = call.src(i);
            (xs.x[i], xs.pitch[i]) = (x.ptr, x.pitch);
            packs &= x.packs();
        }
        let (kernel, width) = match (y.dtype, packs) {
            (DType::Bf16, true) => (add_bf16x8, 8),
            (DType::Bf16, false) => (add_bf16, 1),
            (_, true) => (add_f32x4, 4),
            (_, false) => (add_f32, 1),
        };
        let grid = (y.rows as usize * tiles(y.cols, width)).div_ceil(THREADS);
        call.launch(kernel, grid, THREADS as u32, 0, (xs, y.ptr, y.pitch, y.rows, y.cols, y.add));
    }
}
