use super::{Add, MOST};
use crate::base::DType;
use crate::device::Call;
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::device::cuda::{Cuda, DevicePtr, Matrix};
use crate::ops::Run;
use crate::{kernel_struct, kernels};

/// `Summands` of elementwise.cu.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Summands {
    x: [DevicePtr; MOST],
    pitch: [i32; MOST],
    /// 1 for bf16, 0 for f32.
    half: [i32; MOST],
    count: i32,
    unused: i32,
}
kernel_struct!(Summands);

kernels! { in "elementwise";
    fn add_f32(all: Summands, y: *mut f32, y_pitch: i32, sheet: Sheet, add: i32);
    fn add_bf16(all: Summands, y: *mut half::bf16, y_pitch: i32, sheet: Sheet, add: i32);
}

impl Run<Cuda> for Add {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (y, count) = (call.dst(0), call.ins.len());
        let mut all = Summands { count: count as i32, ..bytemuck::Zeroable::zeroed() };
        let mut matrices: Vec<Matrix> = vec![y];
        for i in 0..count {
            let x = call.src(i);
            (all.x[i], all.pitch[i], all.half[i]) = (x.ptr, x.pitch, (x.dtype == DType::Bf16).into());
            matrices.push(x);
        }
        let sheet = Sheet::of(&matrices);
        let kernel = if y.dtype == DType::Bf16 { add_bf16 } else { add_f32 };
        call.launch(kernel, sheet.grid(call.device), THREADS, 0, (all, y.ptr, y.pitch, sheet, y.add));
    }
}
