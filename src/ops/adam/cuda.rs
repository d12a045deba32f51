use super::Adam;
use crate::device::Call;
use crate::device::cuda::Cuda;
use crate::device::cuda::sheet::{Flat, THREADS};
use crate::kernels;
use crate::ops::Run;

kernels! { in "optimizer";
    fn adam(
        w: *const f32, g: *const f32, m: *const f32, v: *const f32, knobs: *const f32,
        beta_1: f32, beta_2: f32, enter_1: f32, enter_2: f32, epsilon: f32, weight_decay: f32,
        w_to: *mut f32, add_w: i32, m_to: *mut f32, add_m: i32, v_to: *mut f32, add_v: i32, n: u64, wide: i32,
    );
}

impl Run<Cuda> for Adam {
    fn run(&self, call: &Call<'_, Cuda>) {
        let ([w, g, m, v, knobs], [w_to, m_to, v_to]) = ([0, 1, 2, 3, 4].map(|i| call.src(i)), [0, 1, 2].map(|i| call.dst(i)));
        let flat = Flat::of(&[w, g, m, v, w_to, m_to, v_to]);
        let arguments = (
            w.ptr, g.ptr, m.ptr, v.ptr, knobs.floats(),
            self.beta_1 as f32, self.beta_2 as f32, (1.0 - self.beta_1) as f32, (1.0 - self.beta_2) as f32,
            self.epsilon as f32, self.weight_decay as f32,
            w_to.ptr, w_to.add, m_to.ptr, m_to.add, v_to.ptr, v_to.add, flat.len, flat.wide,
        );
        call.launch(adam, flat.blocks, THREADS, 0, arguments);
    }
}
