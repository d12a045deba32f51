//! One pixel at a time: an image has three channels here and hundreds soon after, so that this op is never what takes time.

use super::{CAFFE_MEAN, Mode, Preprocess, PreprocessDx, TORCH_DEVIATION, TORCH_MEAN};
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::view::put;
use crate::ops::Run;
use crate::ops::window::grain;

/// `out[c] (+)= colour(in[c], c)` for all pixels of a call, where the channels of the input come in reverse order if `reversed`.
fn each_pixel(call: &Call<'_, Cpu>, reversed: bool, colour: impl Fn(f32, usize) -> f32 + Sync) {
    let (x, y) = (call.src(0), call.dst(0));
    let (x_pitch, y_pitch, add) = (x.pitch, y.pitch, y.adds());
    call.device.pool.ranges(y.rows, grain(y.cols), |pixels| {
        for pixel in pixels {
            // SAFETY: both have three channels in each row; pixel `pixel` of `y` belongs to this thread.
            unsafe {
                let (from, to) = (x.ptr().add(pixel * x_pitch), y.ptr().add(pixel * y_pitch));
                for c in 0..3 {
                    put(to.add(c), colour(*from.add(if reversed { 2 - c } else { c }), c), add);
                }
            }
        }
    });
}

impl Run<Cpu> for Preprocess {
    fn run(&self, call: &Call<'_, Cpu>) {
        let [caffe, mean, deviation] = [CAFFE_MEAN, TORCH_MEAN, TORCH_DEVIATION].map(|v| v.map(|x| x as f32));
        match self.mode {
            Mode::None => each_pixel(call, false, |x, _| x),
            Mode::Caffe => each_pixel(call, true, |x, c| x - caffe[c]),
            Mode::Tf => each_pixel(call, false, |x, _| x / 127.5 - 1.0),
            Mode::Torch => each_pixel(call, false, |x, c| (x / 255.0 - mean[c]) / deviation[c]),
            Mode::Rescale => each_pixel(call, false, |x, _| x / 255.0),
        }
    }
}

impl Run<Cpu> for PreprocessDx {
    fn run(&self, call: &Call<'_, Cpu>) {
        let deviation = TORCH_DEVIATION.map(|x| x as f32);
        match self.mode {
            Mode::None => each_pixel(call, false, |dy, _| dy),
            Mode::Caffe => each_pixel(call, true, |dy, _| dy),
            Mode::Tf => each_pixel(call, false, |dy, _| dy / 127.5),
            Mode::Torch => each_pixel(call, false, |dy, c| dy / deviation[c] / 255.0),
            Mode::Rescale => each_pixel(call, false, |dy, _| dy / 255.0),
        }
    }
}
