use super::{Columns, Concat, PadColumns};
use crate::device::Call;
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::device::cuda::{Cuda, Matrix};
use crate::kernels;
use crate::ops::Run;
use crate::ops::constant::cuda::fill_with;

kernels! { in "elementwise";
    fn copy<T, U>(x: *const T, x_pitch: i32, y: *mut U, y_pitch: i32, sheet: Sheet, add: i32) for all;
}

/// `y (+)= x`, of whatever storage types.
fn put(call: &Call<'_, Cuda>, x: Matrix, y: Matrix) {
    let sheet = Sheet::of(&[x, y]);
    call.launch(copy.of(&[x], y), sheet.grid(call.device), THREADS, 0, (x.ptr, x.pitch, y.ptr, y.pitch, sheet, y.add));
}

impl Run<Cuda> for Concat {
    fn run(&self, call: &Call<'_, Cuda>) {
        let mut start = 0;
        for x in (0..call.ins.len()).map(|i| call.src(i)) {
            put(call, x, call.dst(0).columns(start, x.cols as usize));
            start += x.cols as usize;
        }
    }
}

impl Run<Cuda> for Columns {
    fn run(&self, call: &Call<'_, Cuda>) {
        put(call, call.src(0).columns(self.start, self.len), call.dst(0));
    }
}

impl Run<Cuda> for PadColumns {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (x, y) = (call.src(0), call.dst(0));
        let end = self.start + x.cols as usize;
        for (first, last) in [(0, self.start), (end, self.total)] {
            if first < last && y.add == 0 {
                fill_with(call, 0.0, y.columns(first, last - first));
            }
        }
        put(call, x, y.columns(self.start, x.cols as usize));
    }
}
