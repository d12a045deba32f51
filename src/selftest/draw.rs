//! The data of a case: pseudo-random numbers that every machine draws alike.

use crate::base::Shape;
use crate::device::naive::Array;
use crate::ops::{Case, Fill};

/// A small generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in 0..1.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// An input of a case, rounded to f32 so that every device sees the same numbers.
    pub fn array(&mut self, fill: Fill, shape: Shape) -> Array {
        let (n, cols) = (shape.len(), shape.cols());
        let mut data: Vec<f64> = match fill {
            Fill::Normal => (0..n).map(|_| self.normal()).collect(),
            Fill::Offset { mean, deviation } => (0..n).map(|_| mean + deviation * self.normal()).collect(),
            Fill::Positive => (0..n).map(|_| 0.5 + self.uniform()).collect(),
            Fill::Distinct => (0..n).map(|i| (i as f64 - (n / 2) as f64 + 0.5) * 0.02).collect(),
            Fill::Ties => (0..n).map(|_| (self.bits() % 3) as f64 - 1.0).collect(),
            Fill::OneHot => (0..n / cols).flat_map(|r| (0..cols).map(move |c| f64::from(c == r % cols))).collect(),
            Fill::Values(values) => values.iter().copied().cycle().take(n).collect(),
        };
        if fill == Fill::Distinct {
            (1..n).rev().for_each(|i| data.swap(i, self.bits() as usize % (i + 1)));
        }
        Array { shape, data: data.into_iter().map(|x| f64::from(x as f32)).collect() }
    }
}

/// All inputs of a case.
pub fn inputs(case: &Case) -> Vec<Array> {
    let mut random = Random(2026);
    case.ins.iter().zip(&case.fill).map(|(&shape, &fill)| random.array(fill, shape)).collect()
}
