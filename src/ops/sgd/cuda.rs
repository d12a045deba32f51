use super::Sgd;
use crate::device::Call;
use crate::device::cuda::sheet::{Flat, THREADS};
use crate::device::cuda::{Cuda, DevicePtr};
use crate::kernels;
use crate::ops::Run;

kernels! { in "optimizer";
    fn sgd(
        w: *const f32, g: *const f32, v: *const f32, knobs: *const f32, momentum: f32, nesterov: i32, weight_decay: f32,
        w_to: *mut f32, add_w: i32, v_to: *mut f32, add_v: i32, n: u64, wide: i32,
    );
}

impl Run<Cuda> for Sgd {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (w, g, w_to, knobs) = (call.src(0), call.src(1), call.dst(0), call.src(call.ins.len() - 1));
        let mut vectors = vec![w, g, w_to];
        // Without momentum the kernel sees null pointers.
        let (mut v_from, mut v_to, mut add_v) = (DevicePtr(0), DevicePtr(0), 0);
        if self.has_velocity() {
            let (v, to) = (call.src(2), call.dst(1));
            vectors.extend([v, to]);
            (v_from, v_to, add_v) = (v.ptr, to.ptr, to.add);
        }
        let flat = Flat::of(&vectors);
        let (momentum, decay) = (self.momentum as f32, self.weight_decay as f32);
        let arguments = (
            w.ptr, g.ptr, v_from, knobs.floats(), momentum, self.nesterov.into(), decay,
            w_to.ptr, w_to.add, v_to, add_v, flat.len, flat.wide,
        );
        call.launch(sgd, flat.blocks, THREADS, 0, arguments);
    }
}
