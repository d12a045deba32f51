use super::{ClipNorm, ClipValue};
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;

impl Run<Naive> for ClipNorm {
    fn run(&self, call: &Call<'_, Naive>) {
        let g = call.input(0);
        let norm = g.data.iter().map(|x| x * x).sum::<f64>().sqrt();
        let scale = if norm.is_finite() { f64::min(1.0, self.limit / norm) } else { f64::NAN };
        call.output(0, g.map(|x| x * scale));
        call.output(1, Array { shape: [1].into(), data: vec![norm] });
    }
}

impl Run<Naive> for ClipValue {
    fn run(&self, call: &Call<'_, Naive>) {
        call.output(0, call.input(0).map(|x| x.clamp(-self.limit, self.limit)));
    }
}
