use super::{CAFFE_MEAN, Mode, Preprocess, PreprocessDx, TORCH_DEVIATION, TORCH_MEAN};
use crate::device::Call;
use crate::device::naive::Naive;
use crate::ops::Run;

/// One pixel, in f64.
fn pixel(mode: Mode, [r, g, b]: [f64; 3]) -> [f64; 3] {
    match mode {
        Mode::None => [r, g, b],
        Mode::Caffe => [b - CAFFE_MEAN[0], g - CAFFE_MEAN[1], r - CAFFE_MEAN[2]],
        Mode::Tf => [r, g, b].map(|x| x / 127.5 - 1.0),
        Mode::Torch => {
            let colour = |x: f64, c: usize| (x / 255.0 - TORCH_MEAN[c]) / TORCH_DEVIATION[c];
            [colour(r, 0), colour(g, 1), colour(b, 2)]
        }
        Mode::Rescale => [r, g, b].map(|x| x / 255.0),
    }
}

/// The gradient of one pixel.
fn pixel_dx(mode: Mode, [r, g, b]: [f64; 3]) -> [f64; 3] {
    match mode {
        Mode::None => [r, g, b],
        Mode::Caffe => [b, g, r],
        Mode::Tf => [r, g, b].map(|dy| dy / 127.5),
        Mode::Torch => {
            let colour = |dy: f64, c: usize| dy / (255.0 * TORCH_DEVIATION[c]);
            [colour(r, 0), colour(g, 1), colour(b, 2)]
        }
        Mode::Rescale => [r, g, b].map(|dy| dy / 255.0),
    }
}

impl Run<Naive> for Preprocess {
    fn run(&self, call: &Call<'_, Naive>) {
        let mut x = call.input(0);
        for rgb in x.data.chunks_exact_mut(3) {
            rgb.copy_from_slice(&pixel(self.mode, [rgb[0], rgb[1], rgb[2]]));
        }
        call.output(0, x);
    }
}

impl Run<Naive> for PreprocessDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let mut dy = call.input(0);
        for rgb in dy.data.chunks_exact_mut(3) {
            rgb.copy_from_slice(&pixel_dx(self.mode, [rgb[0], rgb[1], rgb[2]]));
        }
        call.output(0, dy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_become_what_keras_makes_of_them() {
        let near = |mode, rgb, expected: [f64; 3]| {
            let found = pixel(mode, rgb);
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{mode}: {found:?}, not {expected:?}");
        };
        near(Mode::Tf, [255.0, 127.5, 0.0], [1.0, 0.0, -1.0]);
        near(Mode::Caffe, [10.0, 20.0, 30.0], [-73.939, -96.779, -113.68]);
        near(Mode::Torch, [255.0, 0.0, 51.0], [2.248908, -2.035714, -0.915556]);
        near(Mode::Rescale, [255.0, 0.0, 51.0], [1.0, 0.0, 0.2]);
        near(Mode::None, [255.0, 0.0, 51.0], [255.0, 0.0, 51.0]);
    }
}
