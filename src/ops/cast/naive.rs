//! With one number type nothing is left of a cast. What a device rounds is part of its error budget.

use super::{Cast, WeightCast};
use crate::device::Call;
use crate::device::naive::Naive;
use crate::ops::Run;

impl Run<Naive> for Cast {
    fn run(&self, call: &Call<'_, Naive>) {
        call.output(0, call.input(0));
    }
}

impl Run<Naive> for WeightCast {
    fn run(&self, call: &Call<'_, Naive>) {
        (0..call.ins.len()).for_each(|i| call.output(i, call.input(i)));
    }
}
