use super::MovingAverage;
use crate::device::Call;
use crate::device::cuda::Cuda;
use crate::device::cuda::sheet::{Sheet, THREADS};
use crate::kernels;
use crate::ops::Run;

kernels! { in "batch_norm";
    fn moving_average(
        moving: *const f32, moving_pitch: i32, batch: *const f32, batch_pitch: i32, stay: f32, enter: f32, y: *mut f32, y_pitch: i32,
        sheet: Sheet, add: i32,
    );
}

impl Run<Cuda> for MovingAverage {
    fn run(&self, call: &Call<'_, Cuda>) {
        let (moving, batch, y) = (call.src(0), call.src(1), call.dst(0));
        let (stay, enter) = (self.momentum as f32, (1.0 - self.momentum) as f32);
        let sheet = Sheet::of(&[moving, batch, y]);
        let arguments =
            (moving.floats(), moving.pitch, batch.floats(), batch.pitch, stay, enter, y.floats(), y.pitch, sheet, y.add);
        call.launch(moving_average, sheet.grid(), THREADS, 0, arguments);
    }
}
