//! The largest magnitude among gradients: one number that tells whether all of them are finite.
//!
//! `y = max_i |x_i|`, and not a number if any `x_i` is not one. A maximum rounds nothing and does not depend on the order, so every
//! device gives the same bits on any number of threads; a sum of squares would also be infinite where gradients are large but finite.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::{Case, Emit, Fill, NO_SECOND_DERIVATIVE, Rule, Site, arity};
use crate::base::{Ty, Val};

/// `x -> y [1]`, x of any shape without gaps between rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Largest;

impl Rule for Largest {
    const NAME: &'static str = "largest";
    const FORMULA: &'static str = "y = max |x|";
    const SOURCE: &'static str = "src/ops/largest/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        Ok(vec![ins[0].with([1])])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        ins[0].shape.len() as u64
    }

    fn weights(&self) -> &'static [usize] {
        &[0]
    }

    fn cases() -> Vec<Case> {
        let case = |n: usize| Case::new(format!("{n}"), Largest, &[[n]]).forward_only();
        let zeros = case(7).fill(0, Fill::Values(&[0.0]));
        let negative = Case::new("negative", Largest, &[[33]]).forward_only().fill(0, Fill::Values(&[0.5, -3.0, 2.0]));
        let mut cases: Vec<Case> = [1, 5, 17, 48, 4097, 10_007, 300_001].into_iter().map(case).collect();
        cases.extend([zeros, negative, case(48).fill(0, Fill::Ties)]);
        cases
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::{Cpu, Isa};
    use crate::device::naive::Naive;
    use crate::exec::{Passes, Program, Session};
    use crate::ir::Builder;
    use crate::ops::Backend;

    fn largest<D: Backend>(device: D, x: &[f64]) -> f64 {
        let mut b = Builder::new();
        let v = b.input("x", [x.len()]);
        let y = b.op(Largest, &[v]);
        b.output("y", y);
        let mut program = Program::compile(b.finish().unwrap(), &device, Passes::default()).unwrap();
        let mut session = Session::new(device).unwrap();
        session.reserve(&program).unwrap();
        session.set(&program, "x", x).unwrap();
        session.replay(&mut program, None).unwrap();
        session.get(&program, "y").unwrap()[0]
    }

    #[test]
    fn what_is_not_finite_is_found_wherever_it_is() {
        let isas = || Isa::ALL.into_iter().filter(|isa| isa.available());
        for n in [1, 3, 16, 17, 9001] {
            for at in [0, n / 2, n - 1] {
                for bad in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                    let mut x: Vec<f64> = (0..n).map(|i| i as f64 - 3.0).collect();
                    x[at] = bad;
                    let right = |y: f64| assert!(if bad.is_nan() { y.is_nan() } else { y == f64::INFINITY }, "{n} {at} {bad} {y}");
                    right(largest(Naive, &x));
                    isas().for_each(|isa| right(largest(Cpu::with(isa, 2), &x)));
                }
            }
        }
    }
}
