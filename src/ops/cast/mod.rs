//! The same numbers in another type. The precision pass puts casts where a row asks for another type than its operand has; models
//! are written without them.

mod cpu;
pub(in crate::ops) mod cuda;
mod naive;

use super::{Case, Emit, NO_SECOND_DERIVATIVE, Rule, Site, Storage, arity};
use crate::base::{DType, Shape, Ty, Val};

/// `y = x` rounded to a type, any shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Cast {
    pub to: DType,
}

impl Rule for Cast {
    const NAME: &'static str = "cast";
    const FORMULA: &'static str = "y = x rounded";
    const SOURCE: &'static str = "src/ops/cast/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        arity(ins, 1)?;
        Ok(vec![Ty { dtype: self.to, ..ins[0] }])
    }

    fn vjp(&self, at: &Site, dys: &[Option<Val>], e: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        let to = e.ty(at.ins[0]).dtype;
        Ok(vec![dys[0].map(|dy| e.one(Cast { to }, &[dy]))])
    }

    fn flops(&self, _: &[Ty], _: &[Ty]) -> u64 {
        0
    }

    fn storage(&self, _: usize) -> Storage {
        if self.to == DType::Bf16 { Storage::Float } else { Storage::Half }
    }

    fn cases() -> Vec<Case> {
        let case = |(to, shape): (DType, Shape)| Case::of(format!("{shape} to {to}"), Cast { to }, vec![shape]).forward_only();
        let shapes: [Shape; 4] = [[1, 1, 1, 1].into(), [2, 3, 5, 17].into(), [1, 4, 7, 48].into(), [1, 1, 2, 728].into()];
        shapes.into_iter().flat_map(|shape| [DType::Bf16, DType::F32].map(|to| case((to, shape)))).collect()
    }

    fn detail(&self) -> String {
        self.to.to_string()
    }
}

/// Copies of filters in bf16, any number in one row. They are made when the filters have changed, not in every run: once for
/// frozen layers, after every update for trained ones.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightCast;

/// Most filters of one row.
pub const MOST_CASTS: usize = 64;

impl Rule for WeightCast {
    const NAME: &'static str = "weight_cast";
    const FORMULA: &'static str = "y0 = x0 rounded to bf16, y1 = x1 rounded to bf16, ..";
    const SOURCE: &'static str = "src/ops/cast/mod.rs";

    fn infer(&self, ins: &[Ty]) -> Result<Vec<Ty>, String> {
        if !(1..=MOST_CASTS).contains(&ins.len()) {
            return Err(format!("has {} inputs, expects 1 to {MOST_CASTS}", ins.len()));
        }
        Ok(ins.iter().map(|&ty| Ty { dtype: DType::Bf16, ..ty }).collect())
    }

    fn vjp(&self, _: &Site, _: &[Option<Val>], _: &mut dyn Emit) -> Result<Vec<Option<Val>>, &'static str> {
        Err(NO_SECOND_DERIVATIVE)
    }

    fn flops(&self, _: &[Ty], _: &[Ty]) -> u64 {
        0
    }

    fn weights(&self) -> &'static [usize] {
        const ALL: [usize; 2 * MOST_CASTS] = {
            let (mut all, mut i) = ([0; 2 * MOST_CASTS], 0);
            while i < 2 * MOST_CASTS {
                all[i] = i;
                i += 1;
            }
            all
        };
        &ALL
    }

    fn cases() -> Vec<Case> {
        let one = Case::new("one", WeightCast, &[[1, 1, 3, 5]]).forward_only();
        let few = Case::new("three of them", WeightCast, &[[3, 3, 17, 5], [1, 1, 1, 1], [1, 7, 48, 32]]).forward_only();
        vec![one, few]
    }
}
