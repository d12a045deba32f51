use super::Adam;
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::columns::GRAIN;
use crate::ops::Run;
use crate::simd;

/// What does not change within a step.
#[derive(Clone, Copy)]
struct Step {
    /// lr * weight_decay.
    decay: f32,
    alpha: f32,
    /// 1 - beta_1.
    enter_1: f32,
    /// 1 - beta_2.
    enter_2: f32,
    epsilon: f32,
}

simd! {
    /// One step over `n` floats of `from = [w, g, m, v]` to `[w', m', v']`; each result may be its own source.
    unsafe fn step<V>(s: Step, from: [*const f32; 4], to: [*mut f32; 3], n: usize, add: [bool; 3]) {
        let [w, g, m, v] = from;
        let (decay, alpha, epsilon) = (V::splat(-s.decay), V::splat(s.alpha), V::splat(s.epsilon));
        let (enter_1, enter_2) = (V::splat(s.enter_1), V::splat(s.enter_2));
        for i in (0..n).step_by(V::N) {
            let k = V::N.min(n - i);
            let [w, g, m, v] = [V::take(w.add(i), k), V::take(g.add(i), k), V::take(m.add(i), k), V::take(v.add(i), k)];
            let m = g.sub(m).fma(enter_1, m);
            let v = g.mul(g).sub(v).fma(enter_2, v);
            let change = m.mul(alpha).div(v.sqrt().add(epsilon));
            w.fma(decay, w).sub(change).put(to[0].add(i), k, add[0]);
            m.put(to[1].add(i), k, add[1]);
            v.put(to[2].add(i), k, add[2]);
        }
    }
}

impl Run<Cpu> for Adam {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, knobs) = (call.device, call.src(4).flat());
        let (lr, t) = (f64::from(knobs[0]), f64::from(knobs[1]));
        let s = Step {
            decay: (lr * self.weight_decay) as f32,
            alpha: self.alpha(lr, t) as f32,
            enter_1: (1.0 - self.beta_1) as f32,
            enter_2: (1.0 - self.beta_2) as f32,
            epsilon: self.epsilon as f32,
        };
        let (from, to) = ([0, 1, 2, 3].map(|i| call.src(i)), [0, 1, 2].map(|i| call.dst(i)));
        cpu.pool.ranges(from[0].rows * from[0].cols, GRAIN, |range| {
            // SAFETY: the range lies in all vectors and belongs to this thread; an element is read before it is written, so
            // a result may be its own source.
            unsafe {
                let (from, add) = (from.map(|x| x.ptr().add(range.start)), to.map(|y| y.adds()));
                step(cpu.isa, s, from, to.map(|y| y.ptr().add(range.start)), range.len(), add);
            }
        });
    }
}
