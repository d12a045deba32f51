use super::{Cast, MOST_CASTS, WeightCast};
use crate::device::Call;
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::device::cuda::{Cuda, DevicePtr};
use crate::ops::Run;
use crate::ops::concat::cuda::copy;
use crate::{kernel_struct, kernels};

/// `Weights` of cast.cu.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Weights {
    from: [DevicePtr; MOST_CASTS],
    to: [DevicePtr; MOST_CASTS],
    elements: [i32; MOST_CASTS],
    first: [i32; MOST_CASTS],
    count: i32,
    add: i32,
}
kernel_struct!(Weights);

kernels! { in "cast";
    fn cast_weights(weights: Weights);
}

/// Elements of a block: `PER_BLOCK` in cast.cu.
const PER_BLOCK: usize = 2048;

impl Run<Cuda> for Cast {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, y) = (call.src(0), call.dst(0));
        let sheet = Sheet::of(&[x, y]);
        call.launch(copy.of(&[x], y), sheet.grid(call.device), THREADS, 0, (x.ptr, x.pitch, y.ptr, y.pitch, sheet, y.add));
    }
}

impl Run<Cuda> for WeightCast {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (none, count) = (DevicePtr(0), call.ins.len());
        let mut weights = Weights {
            from: [none; MOST_CASTS],
            to: [none; MOST_CASTS],
            elements: [0; MOST_CASTS],
            first: [0; MOST_CASTS],
            count: count as i32,
            add: call.dst(0).add,
        };
        let mut blocks = 0;
        for i in 0..count {
            let elements = call.ins[i].ty.shape.len();
            (weights.from[i], weights.to[i]) = (call.src(i).ptr, call.dst(i).ptr);
            (weights.elements[i], weights.first[i]) = (elements as i32, blocks as i32);
            blocks += elements.div_ceil(PER_BLOCK);
        }
        call.launch(cast_weights, blocks, THREADS, 0, (weights,));
    }
}
