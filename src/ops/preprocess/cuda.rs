use super::{CAFFE_MEAN, Mode, Preprocess, PreprocessDx, TORCH_DEVIATION, TORCH_MEAN};
use crate::device::Call;
use crate::device::cuda::sheet::THREADS;
use crate::device::cuda::{Cuda, tiles};
use crate::kernels;
use crate::ops::Run;

kernels! { in "preprocess";
    fn preprocess<T, U>(
        x: *const T, x_pitch: i32, reversed: i32, divisor: f32, mean_0: f32, mean_1: f32, mean_2: f32,
        deviation_0: f32, deviation_1: f32, deviation_2: f32, y: *mut U, y_pitch: i32, pixels: i32, add: i32,
    ) for all;
}

/// The numbers of a mode in `y = (x / divisor - mean) / deviation`: divisor, mean and deviation of each colour of the result.
fn numbers(mode: Mode) -> (f64, [f64; 3], [f64; 3]) {
    match mode {
        Mode::None => (1.0, [0.0; 3], [1.0; 3]),
        Mode::Caffe => (1.0, CAFFE_MEAN, [1.0; 3]),
        Mode::Tf => (127.5, [1.0; 3], [1.0; 3]),
        Mode::Torch => (255.0, TORCH_MEAN, TORCH_DEVIATION),
        Mode::Rescale => (255.0, [0.0; 3], [1.0; 3]),
    }
}

/// `y (+)= (x / divisor - mean) / deviation` of the call's operands, the channels reversed where the mode does.
fn launch(call: &Call<'_, Cuda>, mode: Mode, divisor: f64, mean: [f64; 3], deviation: [f64; 3]) {
    let (x, y, reversed) = (call.src(0), call.dst(0), i32::from(mode == Mode::Caffe));
    let ([m0, m1, m2], [d0, d1, d2]) = (mean.map(|m| m as f32), deviation.map(|d| d as f32));
    let arguments = (x.ptr, x.pitch, reversed, divisor as f32, m0, m1, m2, d0, d1, d2, y.ptr, y.pitch, y.rows, y.add);
    call.launch(preprocess.of(&[x], y), tiles(y.rows, THREADS as i32), THREADS, 0, arguments);
}

impl Run<Cuda> for Preprocess {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (divisor, mean, deviation) = numbers(self.mode);
        launch(call, self.mode, divisor, mean, deviation);
    }
}

impl Run<Cuda> for PreprocessDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (divisor, _, deviation) = numbers(self.mode);
        launch(call, self.mode, divisor, [0.0; 3], deviation);
    }
}
