use super::Add;
use crate::device::Call;
use crate::device::naive::Naive;
use crate::ops::Run;

impl Run<Naive> for Add {
    fn run(&self, call: &Call<'_, Naive>) {
        let mut y = call.input(0);
        for i in 1..call.ins.len() {
            let x = call.input(i);
            for j in 0..y.data.len() {
                y[j] += x[j];
            }
        }
        call.output(0, y);
    }
}
