use super::{Product, on_images};
use crate::device::Call;
use crate::device::cuda::window::{Divisor, Window};
use crate::device::cuda::{Cuda, DevicePtr, Kernel};
use crate::kernels;
use crate::ops::Run;
use crate::ops::conv2d::Conv2dDx;
use half::bf16;

type Arguments = (DevicePtr, i32, DevicePtr, DevicePtr, i32, Window, i32, i32, i32, Divisor, i32);

macro_rules! table {
    ($([$($name:ident),*]: $number:ty;)*) => {
        kernels! { in "conv2d_dx"; $($(
            fn $name(dy: *const $number, dy_pitch: i32, w: *const $number, dx: *mut $number, dx_pitch: i32, window: Window, images: i32,
                channels: i32, filters: i32, by_filters: Divisor, add: i32);
        )*)* }
        const KERNELS: [[Kernel<Arguments>; 5]; 3] = [$([$($name),*]),*];
    };
}
table! {
    [conv2d_dx_f32_128x128, conv2d_dx_f32_128x64, conv2d_dx_f32_128x32, conv2d_dx_f32_64x32, conv2d_dx_f32_any]: f32;
    [conv2d_dx_tf32_128x128, conv2d_dx_tf32_128x64, conv2d_dx_tf32_128x32, conv2d_dx_tf32_64x32, conv2d_dx_tf32_any]: f32;
    [conv2d_dx_bf16_128x128, conv2d_dx_bf16_128x64, conv2d_dx_bf16_128x32, conv2d_dx_bf16_64x32, conv2d_dx_bf16_any]: bf16;
}

impl Run<Cuda> for Conv2dDx {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (dy, w, dx) = (call.src(0), call.src(1), call.dst(0));
        let (geom, images) = on_images(&self.window, call.outs[0].ty.shape);
        // Each residue class of the stride is a layer of the grid, which is as large as the largest of them.
        let classes = geom.stride[0] * geom.stride[1];
        let rows = images as usize * geom.input[0].div_ceil(geom.stride[0]) * geom.input[1].div_ceil(geom.stride[1]);
        let cols = dx.cols as usize;
        let product = Product::new(call.device, self.math, [rows, cols, classes], &[&dy, &w, &dx]);
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
        );
        let (kernel, grid) = (product.kernel(&KERNELS), (product.blocks(rows, cols), classes));
        call.launch(kernel, grid, product.threads(), product.shared([true, true]), arguments);
    }
}
