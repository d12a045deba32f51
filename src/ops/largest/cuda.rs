use super::Largest;
use crate::base::Ty;
use crate::device::Call;
use crate::device::cuda::Cuda;
use crate::device::cuda::sheet::{Flat, THREADS};
use crate::kernels;
use crate::ops::Run;

kernels! { in "optimizer";
    fn largest(x: *const f32, partial: *mut u32, n: u64, wide: i32);
    fn finish_largest(partial: *const u32, parts: i32, y: *mut f32, add: i32);
}

impl Run<Cuda> for Largest {
    fn scratch(&self, _: &Cuda, ins: &[Ty], _: &[Ty]) -> usize {
        4 * Flat::most_blocks(ins[0].shape.len())
    }

    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, y, partial) = (call.src(0), call.dst(0), call.scratch());
        let flat = Flat::of(&[x]);
        call.launch(largest, flat.blocks, THREADS, 0, (x.ptr, partial, flat.len, flat.wide));
        call.launch(finish_largest, 1, THREADS, 0, (partial, flat.blocks as i32, y.floats(), y.add));
    }
}
