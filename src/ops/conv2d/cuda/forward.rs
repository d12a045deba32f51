use super::Product;
use super::input::Input;
use crate::base::Ty;
use crate::device::Call;
use crate::device::cuda::epilogue::{Left, ROWS};
use crate::device::cuda::window::{Divisor, Window};
use crate::device::cuda::{Cuda, DevicePtr, Kernel};
use crate::ops::activation::cuda::number;
use crate::ops::channel_stats::cuda::finish_left;
use crate::ops::conv2d::Conv2d;
use crate::ops::Run;
use crate::{kernel_struct, kernels};
use half::bf16;

/// What happens to a sum on its way to memory: `Finish` of conv2d.cu.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Finish {
    scale: DevicePtr,
    bias: DevicePtr,
    act: i32,
    add: i32,
    partial: DevicePtr,
}
kernel_struct!(Finish);

type Arguments = (DevicePtr, i32, DevicePtr, DevicePtr, i32, Window, i32, i32, Divisor, i32, Finish);

macro_rules! table {
    ($([$($name:ident),*]: $number:ty;)*) => {
        kernels! { in "conv2d"; $($(
            fn $name(x: *const $number, x_pitch: i32, w: *const $number, y: *mut $number, y_pitch: i32, window: Window, images: i32,
                channels: i32, by_channels: Divisor, filters: i32, finish: Finish);
        )*)* }
        const KERNELS: [&[Kernel<Arguments>]; 4] = [$(&[$($name),*]),*];
    };
}
table! {
    [conv2d_f32_128x128, conv2d_f32_128x64, conv2d_f32_128x32, conv2d_f32_64x32, conv2d_f32_any]: f32;
    [conv2d_tf32_128x128, conv2d_tf32_128x64, conv2d_tf32_128x32, conv2d_tf32_64x32, conv2d_tf32_any]: f32;
    [conv2d_bf16_128x128, conv2d_bf16_128x64, conv2d_bf16_128x32, conv2d_bf16_64x32, conv2d_bf16_any]: bf16;
    [conv2d_bf16_warpgroup_256x128, conv2d_bf16_warpgroup_128x128, conv2d_bf16_warpgroup_128x64,
     conv2d_bf16_warpgroup_64x64, conv2d_bf16_warpgroup_128x32, conv2d_bf16_warpgroup_64x32]: bf16;
}

impl Conv2d {
    /// The left operand of the product that makes `filters` channels of `x`.
    fn operand(&self, cuda: &Cuda, x: Ty, filters: usize) -> Input {
        Input::new(cuda, &self.window, x, filters, ROWS)
    }

    /// Bytes of what the product leaves for the statistics of `rows` x `cols` results; patches come after it.
    fn left_bytes(&self, rows: usize, cols: usize) -> usize {
        if self.stats { Left::stats(rows, cols).bytes().next_multiple_of(64) } else { 0 }
    }
}

impl Run<Cuda> for Conv2d {
    fn scratch(&self, cuda: &Cuda, ins: &[Ty], outs: &[Ty]) -> usize {
        self.left_bytes(outs[0].shape.rows(), outs[0].shape.cols()) + self.operand(cuda, ins[0], outs[0].shape.cols()).bytes()
    }

    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, w, y) = (call.src(0), call.src(1), call.dst(0));
        let (rows, cols) = (y.rows as usize, y.cols as usize);
        let input = self.operand(call.device, call.ins[0].ty, cols);
        let patches = call.scratch().offset(self.left_bytes(rows, cols));
        let vector = |field: bool, i: usize| if field { call.src(i).ptr } else { DevicePtr(0) };
        let finish = Finish {
            scale: vector(self.scale, 2),
            bias: vector(self.bias, 2 + usize::from(self.scale)),
            act: number(self.act),
            add: y.add,
            partial: if self.stats { call.scratch() } else { DevicePtr(0) },
        };
        let product = Product::new(call.device, self.math, [rows, cols, 1], &[&input.matrix(x, patches), &w, &y]);
        input.for_each_part(call, x, patches, |part| {
            let (x, first) = (part.x, part.pixels.start);
            // The rows of the part: pixels of y, and what they leave for the statistics, a part of which has ROWS pixels.
            let partial = if self.stats { finish.partial.offset(first / ROWS * 3 * cols * size_of::<f32>()) } else { finish.partial };
            let arguments = (
                x.ptr,
                x.pitch,
                w.ptr,
                y.ptr.offset(first * y.pitch as usize * y.dtype.size()),
                y.pitch,
                part.window,
                part.images,
                x.cols,
                Divisor::by(x.cols as usize),
                y.cols,
                Finish { partial, ..finish },
            );
            let (kernel, grid) = (product.kernel(&KERNELS), product.blocks(part.pixels.len(), cols));
            call.launch(kernel, grid, product.threads(), product.shared([true, false]), arguments);
        });
        if self.stats {
            finish_left(call, Left::stats(rows, cols), y, [call.dst(1), call.dst(2)]);
        }
    }
}
