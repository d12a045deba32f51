use super::MovingAverage;
use crate::device::Call;
use crate::device::naive::Naive;
use crate::ops::Run;

impl Run<Naive> for MovingAverage {
    fn run(&self, call: &Call<'_, Naive>) {
        for out in 0..call.outs.len() {
            let (mut moving, batch) = (call.input(2 * out), call.input(2 * out + 1));
            for i in 0..moving.data.len() {
                moving[i] = moving[i] * self.momentum + batch[i] * (1.0 - self.momentum);
            }
            call.output(out, moving);
        }
    }
}
