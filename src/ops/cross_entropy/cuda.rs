use super::{CrossEntropy, CrossEntropyDx};
use crate::device::Call;
use crate::device::cuda::sheet::THREADS;
use crate::device::cuda::{Cuda, tiles};
use crate::kernels;
use crate::ops::Run;
use crate::ops::softmax::cuda::SAMPLES;

kernels! { in "loss";
    fn cross_entropy(
        x: *const f32, x_pitch: i32, t: *const f32, t_pitch: i32, weights: *const f32, smoothing: f32, loss: *mut f32, add_loss: i32,
        p: *mut f32, p_pitch: i32, add_p: i32, losses: *mut f32, add_losses: i32, samples: i32, classes: i32,
    );
    fn cross_entropy_dx(
        dloss: *const f32, p: *const f32, p_pitch: i32, t: *const f32, t_pitch: i32, weights: *const f32, smoothing: f32,
        dx: *mut f32, dx_pitch: i32, samples: i32, classes: i32, add: i32,
    );
}

impl Run<Cuda> for CrossEntropy {
    fn run(&self, call: &Call<'_, Cuda>) {
        let [x, t, w] = [0, 1, 2].map(|i| call.src(i));
        let [loss, p, losses] = [0, 1, 2].map(|i| call.dst(i));
        let from = (x.floats(), x.pitch, t.floats(), t.pitch, w.floats());
        let arguments = (
            from.0, from.1, from.2, from.3, from.4, self.label_smoothing as f32, loss.floats(), loss.add,
            p.floats(), p.pitch, p.add, losses.floats(), losses.add, x.rows, x.cols,
        );
        call.launch(cross_entropy, 1, THREADS, 0, arguments);
    }
}

impl Run<Cuda> for CrossEntropyDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let ([dloss, p, t, w], dx) = ([0, 1, 2, 3].map(|i| call.src(i)), call.dst(0));
        let arguments = (
            dloss.floats(), p.floats(), p.pitch, t.floats(), t.pitch, w.floats(), self.label_smoothing as f32,
            dx.floats(), dx.pitch, dx.rows, dx.cols, dx.add,
        );
        call.launch(cross_entropy_dx, tiles(dx.rows, SAMPLES), THREADS, 0, arguments);
    }
}
