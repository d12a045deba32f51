use super::{Dense, DenseDw, DenseDx};
use crate::base::{Math, Ty};
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::ops::Run;
use crate::ops::conv2d::cpu::{Finish, Pass, ProductGrad, convolve, convolve_scratch, pack, pack_transposed, packed_floats};

impl Run<Cpu> for Dense {
    fn scratch(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        4 * convolve_scratch(cpu, &Pass::flat(ins[0].shape.rows()), ins[0].shape.cols())
    }

    fn derived(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        4 * packed_floats(cpu, ins[1].shape.rows(), ins[1].shape.cols())
    }

    fn prepare(&self, call: &Call<'_, Cpu>) {
        pack(call.device, call.src(1), call.derived());
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (x, y) = (call.src(0), call.dst(0));
        convolve(call.device, &Pass::flat(x.rows), x, call.derived().src(), y, &Finish::NONE, call.scratch());
    }
}

impl Run<Cpu> for DenseDx {
    fn scratch(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        4 * convolve_scratch(cpu, &Pass::flat(ins[0].shape.rows()), ins[0].shape.cols())
    }

    fn derived(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        4 * packed_floats(cpu, ins[1].shape.cols(), ins[1].shape.rows())
    }

    fn prepare(&self, call: &Call<'_, Cpu>) {
        let w = call.src(1);
        pack_transposed(call.device, w, w.rows, &|_| 0, 1, call.derived());
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (dy, dx) = (call.src(0), call.dst(0));
        convolve(call.device, &Pass::flat(dy.rows), dy, call.derived().src(), dx, &Finish::NONE, call.scratch());
    }
}

impl Run<Cpu> for DenseDw {
    fn scratch(&self, cpu: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        4 * plan(cpu, ins[0], ins[1]).scratch()
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let plan = plan(call.device, call.ins[0].ty, call.ins[1].ty);
        plan.run(call.device, call.src(0), call.src(1), call.dst(0), call.scratch());
    }
}

fn plan(cpu: &Cpu, x: Ty, dy: Ty) -> ProductGrad {
    ProductGrad::new(cpu, Math::Full, Pass::flat(x.shape.rows()), x.shape.cols(), dy.shape.cols(), false)
}
