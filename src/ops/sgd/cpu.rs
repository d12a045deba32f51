use super::Sgd;
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::columns::GRAIN;
use crate::ops::Run;
use crate::simd;

/// What does not change within a step.
#[derive(Clone, Copy)]
struct Step {
    lr: f32,
    /// lr * weight_decay.
    decay: f32,
    momentum: f32,
    nesterov: bool,
}

simd! {
    /// w' (+)= w - decay w - lr g over `n` floats; `w'` may be `w`.
    unsafe fn plain<V>(s: Step, w: *const f32, g: *const f32, w_to: *mut f32, n: usize, add: bool) {
        let (lr, decay) = (V::splat(-s.lr), V::splat(-s.decay));
        for i in (0..n).step_by(V::N) {
            let k = V::N.min(n - i);
            let w = V::take(w.add(i), k);
            V::take(g.add(i), k).fma(lr, w.fma(decay, w)).put(w_to.add(i), k, add);
        }
    }

    /// The same with a velocity; each of the two results has its own `add`, and may be its own source.
    unsafe fn momentum<V>(s: Step, from: [*const f32; 3], to: [*mut f32; 2], n: usize, add: [bool; 2]) {
        let ([w, g, v], lr, decay, momentum) = (from, V::splat(-s.lr), V::splat(-s.decay), V::splat(s.momentum));
        for i in (0..n).step_by(V::N) {
            let k = V::N.min(n - i);
            let (w, step) = (V::take(w.add(i), k), V::take(g.add(i), k).mul(lr));
            let v = V::take(v.add(i), k).fma(momentum, step);
            let change = if s.nesterov { v.fma(momentum, step) } else { v };
            w.fma(decay, w).add(change).put(to[0].add(i), k, add[0]);
            v.put(to[1].add(i), k, add[1]);
        }
    }
}

impl Run<Cpu> for Sgd {
    fn run(&self, call: &Call<'_, Cpu>) {
        let cpu = call.device;
        let lr = call.src(call.ins.len() - 1).flat()[0];
        let step = Step { lr, decay: lr * self.weight_decay as f32, momentum: self.momentum as f32, nesterov: self.nesterov };
        let (w, g, w_to) = (call.src(0), call.src(1), call.dst(0));
        let velocity = self.has_velocity().then(|| (call.src(2), call.dst(1)));
        cpu.pool.ranges(w.rows * w.cols, GRAIN, |range| {
            let (first, n) = (range.start, range.len());
            // SAFETY: the range lies in all vectors and belongs to this thread; an element is read before it is written, so
            // a result may be its own source.
            unsafe {
                let (w, g, w_at) = (w.ptr().add(first), g.ptr().add(first), w_to.ptr().add(first));
                match velocity {
                    None => plain(cpu.isa, step, w, g, w_at, n, w_to.adds()),
                    Some((v, v_to)) => {
                        let to = [w_at, v_to.ptr().add(first)];
                        momentum(cpu.isa, step, [w, g, v.ptr().add(first)], to, n, [w_to.adds(), v_to.adds()]);
                    }
                }
            }
        });
    }
}
