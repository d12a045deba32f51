use super::MovingAverage;
use crate::device::Call;
use crate::device::cuda::sheet::THREADS;
use crate::device::cuda::{Cuda, DevicePtr, tiles};
use crate::ops::Run;
use crate::{kernel_struct, kernels};

/// The most vectors of a launch.
const MOST: usize = 64;

/// `Averages` of batch_norm.cu.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Averages {
    moving: [DevicePtr; MOST],
    batch: [DevicePtr; MOST],
    y: [DevicePtr; MOST],
    channels: [i32; MOST],
    add: [i32; MOST],
}
kernel_struct!(Averages);

kernels! { in "batch_norm";
    fn moving_average(all: Averages, stay: f32, enter: f32);
}

impl Run<Cuda> for MovingAverage {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (stay, enter) = (self.momentum as f32, (1.0 - self.momentum) as f32);
        let outs: Vec<usize> = (0..call.outs.len()).collect();
        for some in outs.chunks(MOST) {
            let mut all: Averages = bytemuck::Zeroable::zeroed();
            for (k, &out) in some.iter().enumerate() {
                let (moving, batch, y) = (call.src(2 * out), call.src(2 * out + 1), call.dst(out));
                (all.moving[k], all.batch[k], all.y[k]) = (moving.floats(), batch.floats(), y.floats());
                (all.channels[k], all.add[k]) = (y.cols, y.add);
            }
            let longest = all.channels.iter().copied().max().unwrap_or(0);
            call.launch(moving_average, (tiles(longest, THREADS as i32), some.len()), THREADS, 0, (all, stay, enter));
        }
    }
}
