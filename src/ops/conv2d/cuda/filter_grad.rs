use super::Product;
use super::input::Input;
use crate::base::Ty;
use crate::device::Call;
use crate::device::cuda::window::{Divisor, Window};
use crate::device::cuda::{Cuda, DevicePtr, Kernel};
use crate::kernels;
use crate::ops::conv2d::Conv2dDw;
use crate::ops::Run;
use half::bf16;

type Arguments = (DevicePtr, i32, DevicePtr, i32, DevicePtr, Window, i32, i32, Divisor, i32, i32, i32);

macro_rules! table {
    ($([$($name:ident),*]: $number:ty;)*) => {
        kernels! { in "conv2d_dw";
            fn sum_splits(partial: *const f32, dw: *mut f32, n: i32, splits: i32, add: i32);
            $($(
                fn $name(x: *const $number, x_pitch: i32, dy: *const $number, dy_pitch: i32, dw: *mut f32, window: Window, images: i32,
                    channels: i32, by_channels: Divisor, filters: i32, pixels_per_split: i32, add: i32);
            )*)*
        }
        const KERNELS: [&[Kernel<Arguments>]; 4] = [$(&[$($name),*]),*];
    };
}
table! {
    [conv2d_dw_f32_128x128, conv2d_dw_f32_128x64, conv2d_dw_f32_128x32, conv2d_dw_f32_64x32, conv2d_dw_f32_any]: f32;
    [conv2d_dw_tf32_128x128, conv2d_dw_tf32_128x64, conv2d_dw_tf32_128x32, conv2d_dw_tf32_64x32, conv2d_dw_tf32_any]: f32;
    [conv2d_dw_bf16_128x128, conv2d_dw_bf16_128x64, conv2d_dw_bf16_128x32, conv2d_dw_bf16_64x32, conv2d_dw_bf16_any]: bf16;
    [conv2d_dw_bf16_warpgroup_256x128, conv2d_dw_bf16_warpgroup_128x128, conv2d_dw_bf16_warpgroup_128x64,
     conv2d_dw_bf16_warpgroup_64x64, conv2d_dw_bf16_warpgroup_128x32, conv2d_dw_bf16_warpgroup_64x32]: bf16;
}

/// Tiles of 128 x 128 results that a large GPU works on at a time: two on each of 132 processors. A round that is not full wastes the rest.
const ROUND: usize = 264;

/// The fewest pixels that are worth a split of their own, and the most splits.
const PIXELS: usize = 256;
const SPLITS: usize = 128;

/// What the results of one more split cost, as a share of the work.
const COST: f64 = 0.06;

/// Pixels of a split and number of splits: those that fill one round, or a few more if rounds are fuller then. They follow from the shape
/// alone, because they settle the order of a sum.
fn splits(x: Ty, dy: Ty, taps: usize) -> (usize, usize) {
    let (tiles, pixels) = ((taps * x.shape.cols()).div_ceil(128) * dy.shape.cols().div_ceil(128), dy.shape.rows());
    let most = pixels.div_ceil(PIXELS).clamp(1, SPLITS);
    let fewest = (ROUND / tiles).clamp(1, most);
    let worth = |splits: usize| {
        let blocks = tiles * splits;
        blocks as f64 / (blocks.div_ceil(ROUND) * ROUND) as f64 - COST * (splits - fewest) as f64
    };
    let wanted = (fewest..=most.min(fewest + 4)).rev().max_by(|&a, &b| worth(a).total_cmp(&worth(b))).unwrap_or(fewest);
    let each = pixels.div_ceil(wanted).next_multiple_of(64);
    (each, pixels.div_ceil(each))
}

/// Bytes of the results of several splits; patches come after them.
fn partial_bytes(splits: usize, dw: Ty) -> usize {
    if splits > 1 { (splits * dw.bytes()).next_multiple_of(64) } else { 0 }
}

impl Conv2dDw {
    fn splits(&self, x: Ty, dy: Ty) -> (usize, usize) {
        splits(x, dy, self.window.kernel[0] * self.window.kernel[1])
    }

    /// The left operand of the product, in parts of whole splits.
    fn operand(&self, cuda: &Cuda, x: Ty, dy: Ty, each: usize) -> Input {
        Input::new(cuda, &self.window, x, dy.shape.cols(), each)
    }
}

impl Run<Cuda> for Conv2dDw {
    fn scratch(&self, cuda: &Cuda, ins: &[Ty], outs: &[Ty]) -> usize {
        let (each, splits) = self.splits(ins[0], ins[1]);
        partial_bytes(splits, outs[0]) + self.operand(cuda, ins[0], ins[1], each).bytes()
    }

    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, dy, dw) = (call.src(0), call.src(1), call.dst(0));
        let (each, splits) = self.splits(call.ins[0].ty, call.ins[1].ty);
        let input = self.operand(call.device, call.ins[0].ty, call.ins[1].ty, each);
        let patches = call.scratch().offset(partial_bytes(splits, call.outs[0].ty));
        let (rows, cols) = (dw.rows as usize, dw.cols as usize);
        let product = Product::new(call.device, self.math, [rows, cols, splits], &[&input.matrix(x, patches), &dy, &dw]);
        let (to, add) = if splits > 1 { (call.scratch(), 0) } else { (dw.ptr, dw.add) };
        input.for_each_part(call, x, patches, |part| {
            let (x, first) = (part.x, part.pixels.start);
            let arguments = (
                x.ptr,
                x.pitch,
                dy.ptr.offset(first * dy.pitch as usize * dy.dtype.size()),
                dy.pitch,
                to.offset(first / each * rows * cols * size_of::<f32>()),
                part.window,
                part.images,
                x.cols,
                Divisor::by(x.cols as usize),
                dw.cols,
                each as i32,
                add,
            );
            let (kernel, grid) = (product.kernel(&KERNELS), (product.blocks(rows, cols), part.pixels.len().div_ceil(each)));
            call.launch(kernel, grid, product.threads(), product.shared([false, false]), arguments);
        });
        if splits > 1 {
            let n = rows * cols;
            call.launch(sum_splits, n.div_ceil(256), 256, 0, (to, dw.ptr, n as i32, splits as i32, dw.add));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DType, Shape};

    #[test]
    fn splits_fill_rounds() {
        let of = |side: usize, taps: usize, channels: usize, filters: usize| {
            let ty = |cols| Ty { shape: Shape::new(&[16, side, side, cols]), dtype: DType::Bf16 };
            splits(ty(channels), ty(filters), taps).1
        };
        // VGG16: 36 tiles seven times, 9 tiles 29 times, and 144 tiles three times rather than once.
        assert_eq!([of(56, 9, 256, 256), of(112, 9, 128, 128), of(28, 9, 512, 512)], [7, 29, 3]);
        // Few pixels are not cut up.
        assert_eq!([of(4, 9, 64, 64), of(8, 1, 2048, 320)], [1, 4]);
    }
}
