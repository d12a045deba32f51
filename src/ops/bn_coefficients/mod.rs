//! Batch norm as one multiply-add per element: the second of its three rows, on vectors of C elements alone.
//!
//! With `rstd = 1 / sqrt(var + epsilon)`: `scale = gamma rstd`, `shift = beta - mean scale`, so that
//! `gamma (x - mean) rstd + beta = x scale + shift`. Backwards, with `ds = dscale - mean dshift` (what reaches `scale`
//! directly and through `shift`): `dgamma = rstd ds`, `dvar = -1/2 gamma rstd^3 ds`, `dmean = -scale dshift`,
//! `dbeta = dshift`. Without gamma (InceptionV3), gamma is 1 and has no gradient.
//!
//! A row may compute the coefficients of many layers: those of all frozen ones are gathered into one by [`crate::pass::group`],
//! after the gradient pass.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::channel_stats::zeros_like;
use super::{Case, Emit, Fill, NO_SECOND_DERIVATIVE, Rule, Site, arity, per_channel};
use crate::base::{Shape, Ty, Val};

/// `mean, var, (gamma), beta -> scale, shift`, all `[C]`, once for each layer.
#[derive(Clone, Debug, PartialEq)]
pub struct BnCoefficients {
    pub epsilon: f64,
    pub gamma: bool,
}

impl Rule for BnCoefficients {
    const NAME: &'static str = "bn_coefficients";
    const FORMULA: &'static str = "scale = gamma / sqrt(var + epsilon), shift = beta - mean * scale";
    const SOURCE: &'static str = "src/ops/bn_coefficients/mod.rs";

    fn formula(&self) -> String {
        if self.gamma { Self::FORMULA.into() } else { Self::FORMULA.replace("gamma", "1") }
    }

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        let names: &[&str] = if self.gamma { &["mean", "var", "gamma", "beta"] } else { &["mean", "var", "beta"] };
        let layers = ins.chunks(names.len()).map(|ins| {
            all_per_channel(names, ins)?;
            Ok([ins[0]; 2])
        });
        let outs: Vec<[Ty; 2]> = layers.collect::<Result<_, String>>()?;
        if outs.is_empty() { Err(format!("has no inputs, expects {}", names.len())) } else { Ok(outs.concat()) }
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        if dys.iter().all(Option::is_none) {
            return Ok(vec![None; at.ins.len()]);
        }
        if dys.len() > 2 {
            return Err("computes the coefficients of several layers, and they are gathered after the gradient pass");
        }
        let [dscale, dshift] = [0, 1].map(|i| dys[i].unwrap_or_else(|| zeros_like(at.outs[i], e)));
        let mut ins = at.ins[..at.ins.len() - 1].to_vec();
        ins.extend([dscale, dshift]);
        let all = e.emit(BnCoefficientsDx { epsilon: self.epsilon, gamma: self.gamma }.into(), &ins);
        Ok(all.into_iter().zip(at.wants).map(|(gradient, &wanted)| wanted.then_some(gradient)).collect())
    }

    // For each scale and its shift: sum, root, quotient; product, difference.
    fn flops(&self, _: &[Ty], outs: &[Ty]) -> u64 {
        outs.iter().step_by(2).map(|scale| 5 * scale.shape.len() as u64).sum()
    }

    fn cases() -> Vec<Case> {
        let case = |channels: usize, gamma: bool| {
            let op = BnCoefficients { epsilon: 1e-3, gamma };
            Case::of(format!("{channels}"), op, vec![Shape::from([channels]); 3 + usize::from(gamma)]).fill(1, Fill::Positive)
        };
        let layers = |channels: &[usize], gamma: bool| {
            let vectors = 3 + usize::from(gamma);
            let ins = channels.iter().flat_map(|&c| vec![Shape::from([c]); vectors]).collect();
            let case = Case::of(format!("{} of {}", channels.len(), channels[0]), BnCoefficients { epsilon: 1e-3, gamma }, ins).forward_only();
            (0..channels.len()).fold(case, |case, layer| case.fill(layer * vectors + 1, Fill::Positive))
        };
        let one = CHANNELS.into_iter().flat_map(|channels| [case(channels, true), case(channels, false)]);
        one.chain([layers(&[17, 300, 1], true), layers(&[5; 35], false)]).collect()
    }

    fn detail(&self) -> String {
        detail(self.epsilon, self.gamma)
    }
}

/// `mean, var, (gamma), dscale, dshift -> dmean, dvar, (dgamma), dbeta`, all `[C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BnCoefficientsDx {
    pub epsilon: f64,
    pub gamma: bool,
}

impl Rule for BnCoefficientsDx {
    const NAME: &'static str = "bn_coefficients_dx";
    const FORMULA: &'static str =
        "ds = dscale - mean * dshift; dmean = -scale * dshift, dvar = -0.5 gamma rstd^3 ds, dgamma = rstd * ds, dbeta = dshift";
    const SOURCE: &'static str = "src/ops/bn_coefficients/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        let with: &[&str] = &["mean", "var", "gamma", "dscale", "dshift"];
        let without: &[&str] = &["mean", "var", "dscale", "dshift"];
        all_per_channel(if self.gamma { with } else { without }, ins)?;
        Ok(vec![ins[0]; ins.len() - 1])
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    // rstd: sum, root, quotient; scale; ds: product, difference; dmean: product, sign; dvar: four products; dgamma.
    fn flops(&self, ins: &[Ty], _: &[Ty]) -> u64 {
        13 * ins[0].shape.len() as u64
    }

    fn cases() -> Vec<Case> {
        let case = |channels: usize, gamma: bool| {
            let op = BnCoefficientsDx { epsilon: 1.001e-5, gamma };
            let case = Case::of(format!("{channels}"), op, vec![Shape::from([channels]); 4 + usize::from(gamma)]);
            case.fill(1, Fill::Positive).forward_only()
        };
        CHANNELS.into_iter().flat_map(|channels| [case(channels, true), case(channels, false)]).collect()
    }

    fn detail(&self) -> String {
        detail(self.epsilon, self.gamma)
    }
}

const CHANNELS: [usize; 7] = [1, 3, 5, 17, 32, 48, 728];

fn detail(epsilon: f64, gamma: bool) -> String {
    format!("epsilon {epsilon}{}", if gamma { "" } else { ", no gamma" })
}

/// Checks the number of inputs against their names, and that each has as many channels as the first.
fn all_per_channel(names: &[&str], ins: &[Ty]) -> Result<(), String> {
    arity(ins, names.len())?;
    names.iter().zip(ins).try_for_each(|(name, ty)| per_channel(name, *ty, ins[0].shape.cols()))
}
