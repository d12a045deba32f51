use super::{Act, Activation, ActivationDx};
use crate::device::Call;
use crate::device::naive::Naive;
use crate::ops::Run;

/// act(x), in f64; other naive ops with an activation field call it.
pub fn apply(act: Act, x: f64) -> f64 {
    match act {
        Act::Linear => x,
        // What is not a number stays so.
        Act::Relu => if x < 0.0 { 0.0 } else { x },
        Act::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

/// act'(x), written in y = act(x).
pub fn slope(act: Act, y: f64) -> f64 {
    match act {
        Act::Linear => 1.0,
        Act::Relu => f64::from(y > 0.0),
        Act::Sigmoid => y * (1.0 - y),
    }
}

impl Run<Naive> for Activation {
    fn run(&self, call: &Call<'_, Naive>) {
        call.output(0, call.input(0).map(|x| apply(self.act, x)));
    }
}

impl Run<Naive> for ActivationDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let (mut dx, y) = (call.input(0), call.input(1));
        for i in 0..dx.data.len() {
            dx[i] *= slope(self.act, y[i]);
        }
        call.output(0, dx);
    }
}
