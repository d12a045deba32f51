use super::Sgd;
use crate::device::Call;
use crate::device::naive::Naive;
use crate::ops::Run;

impl Run<Naive> for Sgd {
    fn run(&self, call: &Call<'_, Naive>) {
        let (mut w, g) = (call.input(0), call.input(1));
        let lr = call.input(call.ins.len() - 1)[0];
        for i in 0..w.data.len() {
            w[i] -= lr * self.weight_decay * w[i];
        }
        if !self.has_velocity() {
            for i in 0..w.data.len() {
                w[i] -= lr * g[i];
            }
            return call.output(0, w);
        }
        let mut v = call.input(2);
        for i in 0..w.data.len() {
            v[i] = self.momentum * v[i] - lr * g[i];
            w[i] += if self.nesterov { self.momentum * v[i] - lr * g[i] } else { v[i] };
        }
        call.output(0, w);
        call.output(1, v);
    }
}
