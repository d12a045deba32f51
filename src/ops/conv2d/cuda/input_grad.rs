use super::{Product, on_images};
use crate::base::Ty;
use crate::device::Call;
use crate::device::cuda::epilogue::{Left, ROWS};
use crate::device::cuda::window::{Divisor, Window};
use crate::device::cuda::{Cuda, DevicePtr, Kernel, Matrix};
use crate::ops::Run;
use crate::ops::activation::cuda::number;
use crate::ops::conv2d::Conv2dDx;
use crate::{kernel_struct, kernels};
use bytemuck::Zeroable;
use half::bf16;

/// What the gradient goes on through on its way to memory: `Beyond` of conv2d_dx.cu.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Beyond {
    scale: DevicePtr,
    shift: DevicePtr,
    partial: DevicePtr,
    act: i32,
    parts: i32,
}
kernel_struct!(Beyond);

type Arguments = (DevicePtr, i32, DevicePtr, DevicePtr, i32, Window, i32, i32, i32, Divisor, i32, DevicePtr, i32, Beyond);

macro_rules! table {
    ($([$($name:ident),*]: $number:ty;)*) => {
        kernels! { in "conv2d_dx"; $($(
            fn $name(dy: *const $number, dy_pitch: i32, w: *const $number, dx: *mut $number, dx_pitch: i32, window: Window, images: i32,
                channels: i32, filters: i32, by_filters: Divisor, add: i32, x: *const $number, x_pitch: i32, beyond: Beyond);
        )*)* }
        const KERNELS: [&[Kernel<Arguments>]; 4] = [$(&[$($name),*]),*];
    };
}
table! {
    [conv2d_dx_f32_128x128, conv2d_dx_f32_128x64, conv2d_dx_f32_128x32, conv2d_dx_f32_64x32, conv2d_dx_f32_any]: f32;
    [conv2d_dx_tf32_128x128, conv2d_dx_tf32_128x64, conv2d_dx_tf32_128x32, conv2d_dx_tf32_64x32, conv2d_dx_tf32_any]: f32;
    [conv2d_dx_bf16_128x128, conv2d_dx_bf16_128x64, conv2d_dx_bf16_128x32, conv2d_dx_bf16_64x32, conv2d_dx_bf16_any]: bf16;
    [conv2d_dx_bf16_warpgroup_256x128, conv2d_dx_bf16_warpgroup_128x128, conv2d_dx_bf16_warpgroup_128x64,
     conv2d_dx_bf16_warpgroup_64x64, conv2d_dx_bf16_warpgroup_128x32, conv2d_dx_bf16_warpgroup_64x32]: bf16;
}

impl Conv2dDx {
    /// The residue classes of the stride, each a layer of the grid, and the rows of the largest of them.
    fn classes(&self, images: usize) -> (usize, usize) {
        let (input, stride) = (self.input, self.window.stride);
        (stride[0] * stride[1], images * input[0].div_ceil(stride[0]) * input[1].div_ceil(stride[1]))
    }

    fn left(&self, dx: Ty) -> Left {
        let (classes, rows) = self.classes(dx.shape.dims()[0]);
        Left::sums(classes, rows, dx.shape.cols())
    }
}

impl Run<Cuda> for Conv2dDx {
    fn scratch(&self, _: &Cuda, _: &[Ty], outs: &[Ty]) -> usize {
        if self.sums.is_some() { self.left(outs[0]).bytes() } else { 0 }
    }

    fn run(&self, call: &Call<'_, Cuda>) {
        let (dy, w, dx) = (call.src(0), call.src(1), call.dst(0));
        let act = self.mask.or(self.sums);
        let x = act.map(|_| call.src(2));
        let (geom, images) = on_images(&self.window, call.outs[0].ty.shape);
        let ((classes, rows), cols) = (self.classes(images as usize), dx.cols as usize);
        let operands: Vec<&Matrix> = [&dy, &w, &dx].into_iter().chain(&x).collect();
        let product = Product::new(call.device, self.math, [rows, cols, classes], &operands);
        let mut beyond = Beyond { act: number(act.unwrap_or_default()), ..Beyond::zeroed() };
        if self.sums.is_some() {
            let [scale, shift] = [3, 4].map(|i| call.src(i).floats());
            beyond = Beyond { scale, shift, partial: call.scratch(), parts: rows.div_ceil(ROWS) as i32, ..beyond };
        }
        let (x, x_pitch) = x.map_or((DevicePtr(0), 0), |x| (x.ptr, x.pitch));
        let arguments = (
            dy.ptr,
            dy.pitch,
            w.ptr,
            dx.ptr,
            dx.pitch,
            Window::on(&geom),
            images,
            dx.cols,
            dy.cols,
            Divisor::by(dy.cols as usize),
            dx.add,
            x,
            x_pitch,
            beyond,
        );
        let (kernel, grid) = (product.kernel(&KERNELS), (product.blocks(rows, cols), classes));
        call.launch(kernel, grid, product.threads(), product.shared([true, true]), arguments);
        if self.sums.is_some() {
            self.left(call.outs[0].ty).finish_sums(call, beyond.partial, [call.dst(1), call.dst(2)]);
        }
    }
}
