use super::Adam;
use crate::device::Call;
use crate::device::naive::Naive;
use crate::ops::Run;

impl Run<Naive> for Adam {
    fn run(&self, call: &Call<'_, Naive>) {
        let (mut w, g, mut m, mut v) = (call.input(0), call.input(1), call.input(2), call.input(3));
        let (lr, t) = (call.input(4)[0], call.input(4)[1]);
        let alpha = self.alpha(lr, t);
        for i in 0..w.data.len() {
            w[i] -= lr * self.weight_decay * w[i];
            m[i] += (g[i] - m[i]) * (1.0 - self.beta_1);
            v[i] += (g[i] * g[i] - v[i]) * (1.0 - self.beta_2);
            w[i] -= alpha * m[i] / (v[i].sqrt() + self.epsilon);
        }
        call.output(0, w);
        call.output(1, m);
        call.output(2, v);
    }
}
