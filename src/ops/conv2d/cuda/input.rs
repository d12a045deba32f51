//! What a product reads for the input of a convolution: the input through its window, or the patches of the input.
//!
//! A picture has three channels, so its rows are no whole vectors of 16 bytes, and a product that fetches its operand number by number
//! waits for memory most of the time. Patches are that operand written down: a matrix with a row for each output pixel and a column for
//! each tap and channel, padded with zeros to whole vectors. A convolution is the plain product of it with the filter as it is
//! stored. The order of k is the same, and so are the bits.
//!
//! Whether patches are made follows from the shape alone. They lie in scratch memory, [`SHARE`] bytes for each processor at a time;
//! with more output pixels the product runs in parts, each after its patches, with the same bits.

use super::on_images;
use crate::base::{self, Geom, Ty};
use crate::device::Call;
use crate::device::cuda::sheet::THREADS;
use crate::device::cuda::window::{Divisor, Window};
use crate::device::cuda::{Cuda, DevicePtr, Matrix};
use crate::kernels;
use std::ops::Range;

kernels! { in "patches";
    fn write_patches<T, U>(
        x: *const T, x_pitch: i32, to: *mut U, window: Window, channels: i32, by_channels: Divisor, by_line: Divisor, packs: i32,
        by_packs: Divisor, first: i32, rows: i32,
    ) for same;
}

/// Bytes of patches for each processor: 138 MB on a large GPU, where a batch of 16 pictures has 51 MB in bf16 and 90 MB in f32 for VGG16.
const SHARE: usize = 1 << 20;

/// The most columns that are written down: the 147 of a 7x7 window on a picture with room to spare. A matrix of many columns is
/// many times as large as the input.
const COLUMNS: usize = 256;

/// The patches of an input.
#[derive(Clone, Copy)]
struct Patches {
    /// Columns, and those with the padding.
    cols: usize,
    pitch: usize,
    /// Output pixels that lie in memory at a time.
    rows: usize,
    row_bytes: usize,
}

/// The left operand of a product.
pub(super) struct Input {
    geom: Geom,
    images: usize,
    patches: Option<Patches>,
}

/// Some output pixels and the operand to multiply for them.
pub(super) struct Part {
    pub pixels: Range<usize>,
    pub x: Matrix,
    pub window: Window,
    pub images: i32,
}

impl Input {
    /// What a product reads for `x` through a window that makes `filters` channels. Parts are of a multiple of `unit` output pixels.
    pub fn new(cuda: &Cuda, window: &base::Window, x: Ty, filters: usize, unit: usize) -> Self {
        let (geom, images) = on_images(window, x.shape);
        let (channels, size) = (x.shape.cols(), x.dtype.size());
        let (cols, whole) = (geom.taps_total() * channels, 16 / size);
        let pitch = cols.next_multiple_of(whole);
        let wanted = geom.taps_total() > 1 && cols <= COLUMNS && !channels.is_multiple_of(whole) && filters.is_multiple_of(whole);
        let (row_bytes, pixels) = (pitch * size, images as usize * geom.output[0] * geom.output[1]);
        let most = (SHARE * cuda.processors() / row_bytes / unit).max(1) * unit;
        let patches = wanted.then(|| Patches { cols, pitch, rows: most.min(pixels), row_bytes });
        Input { geom, images: images as usize, patches }
    }

    /// Bytes of scratch memory.
    pub fn bytes(&self) -> usize {
        self.patches.map_or(0, |p| p.rows * p.row_bytes)
    }

    fn pixels(&self) -> usize {
        self.images * self.geom.output[0] * self.geom.output[1]
    }

    /// The operand as the choice of a kernel needs it: `x`, or its patches at `to`.
    pub fn matrix(&self, x: Matrix, to: DevicePtr) -> Matrix {
        self.patches.map_or(x, |p| Matrix { ptr: to, rows: p.rows as i32, cols: p.pitch as i32, pitch: p.pitch as i32, ..x })
    }

    /// Runs a product part by part, each after its patches have been written to `to`.
    pub fn for_each_part(&self, call: &Call<'_, Cuda>, x: Matrix, to: DevicePtr, mut run: impl FnMut(Part)) {
        let Some(p) = self.patches else {
            return run(Part { pixels: 0..self.pixels(), x, window: Window::on(&self.geom), images: self.images as i32 });
        };
        for first in (0..self.pixels()).step_by(p.rows) {
            let pixels = first..self.pixels().min(first + p.rows);
            self.write(call, x, to, &pixels, p);
            let plain = base::Window::valid(1, 1).on(1, pixels.len()).expect("a window of one pixel fits anywhere");
            // Columns of the padding are read as part of a vector and belong to no k.
            let x = Matrix { rows: pixels.len() as i32, cols: p.cols as i32, ..self.matrix(x, to) };
            run(Part { pixels, x, window: Window::on(&plain), images: 1 });
        }
    }

    fn write(&self, call: &Call<'_, Cuda>, x: Matrix, to: DevicePtr, pixels: &Range<usize>, p: Patches) {
        let (packs, channels) = (p.row_bytes / 16, x.cols as usize);
        let [by_channels, by_line, by_packs] = [channels, self.geom.kernel[1] * channels, packs].map(Divisor::by);
        let (first, rows) = (pixels.start as i32, pixels.len() as i32);
        let window = Window::on(&self.geom);
        let arguments = (x.ptr, x.pitch, to, window, x.cols, by_channels, by_line, packs as i32, by_packs, first, rows);
        call.launch(write_patches.of(&[x], x), (pixels.len() * packs).div_ceil(THREADS as usize), THREADS, 0, arguments);
    }
}
