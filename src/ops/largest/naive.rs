use super::Largest;
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;

impl Run<Naive> for Largest {
    fn run(&self, call: &Call<'_, Naive>) {
        let larger = |y: f64, x: &f64| if y.is_nan() || x.is_nan() { f64::NAN } else { y.max(x.abs()) };
        let y = call.input(0).data.iter().fold(0.0, larger);
        call.output(0, Array { shape: [1].into(), data: vec![y] });
    }
}
