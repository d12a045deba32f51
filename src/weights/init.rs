//! Values that new weights start from: a function of seed, tensor name and position alone, so that neither the order of
//! layers nor the number of threads nor the device changes them.

use crate::base::DType;
use crate::ir::Init;
use sha2::{Digest, Sha256};

/// The initial values of one tensor. Random ones are counter-based: element `i` is a hash of the tensor's key and `i`.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    init: Init,
    key: u64,
}

impl Draw {
    /// The values of the tensor called `name` under `seed`.
    pub fn new(seed: u64, name: &str, init: Init) -> Self {
        let digest = Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize();
        let key = u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"));
        Draw { init, key }
    }

    /// Element `i`, the same number on every device.
    pub fn at(&self, i: usize) -> f32 {
        match self.init {
            Init::Zeros => 0.0,
            Init::Ones => 1.0,
            Init::GlorotUniform { fan_in, fan_out } => {
                let limit = (6.0 / (fan_in + fan_out) as f64).sqrt();
                (limit * (2.0 * self.uniform(i) - 1.0)) as f32
            }
        }
    }

    /// Elements `0..len` as bytes of a float type.
    pub fn bytes(&self, dtype: DType, len: usize) -> Vec<u8> {
        let values = (0..len).map(|i| self.at(i));
        match dtype {
            DType::F64 => values.flat_map(|x| f64::from(x).to_le_bytes()).collect(),
            DType::F32 => values.flat_map(f32::to_le_bytes).collect(),
            DType::Bf16 => values.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        }
    }

    /// A number in 0..1 from the 53 upper bits of SplitMix64's `i`-th output (Steele, Lea and Flood 2014).
    fn uniform(&self, i: usize) -> f64 {
        let mut z = self.key.wrapping_add((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLOROT: Init = Init::GlorotUniform { fan_in: 2048, fan_out: 8 };

    #[test]
    fn glorot_values_are_uniform_within_the_limit() {
        let (draw, n, limit) = (Draw::new(42, "dense/kernel", GLOROT), 16384, (6.0f64 / 2056.0).sqrt());
        let values: Vec<f64> = (0..n).map(|i| f64::from(draw.at(i))).collect();
        assert!(values.iter().all(|x| x.abs() <= limit));
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|x| x * x).sum::<f64>() / n as f64;
        // Four standard errors of the mean (limit / sqrt(3 n)) and of the second moment (limit^2 * 2 / sqrt(45 n)).
        assert!(mean.abs() < 4.0 * limit / (3.0 * n as f64).sqrt(), "{mean}");
        assert!((variance - limit * limit / 3.0).abs() < 8.0 * limit * limit / (45.0 * n as f64).sqrt(), "{variance}");
    }

    #[test]
    fn values_depend_on_seed_and_name_alone() {
        let first = |seed, name| Draw::new(seed, name, GLOROT).bytes(DType::F32, 4);
        assert_eq!(first(1, "dense/kernel"), first(1, "dense/kernel"));
        assert_ne!(first(1, "dense/kernel"), first(2, "dense/kernel"));
        assert_ne!(first(1, "dense/kernel"), first(1, "dense_1/kernel"));
        let draw = Draw::new(7, "x", GLOROT);
        let doubles = draw.bytes(DType::F64, 3);
        assert_eq!(doubles[16..], f64::from(draw.at(2)).to_le_bytes());
    }

    #[test]
    fn frozen_values() {
        // Runs repeat across versions only while these stay; computed by another program from the formulas above.
        let draw = Draw::new(42, "dense/kernel", GLOROT);
        assert_eq!([0, 1, 9999].map(|i| draw.at(i).to_bits()), [1017786279, 1028951006, 3163446185]);
        assert_eq!(Draw::new(42, "dense/bias", Init::Zeros).at(0), 0.0);
        assert_eq!(Draw::new(42, "bn/gamma", Init::Ones).at(0), 1.0);
    }
}
