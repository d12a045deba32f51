use super::DType;
use std::fmt;
use std::str::FromStr;

/// What a program computes in: `--precision`. The pass of that name gives every value its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Everything in f64: the specification.
    F64,
    /// Everything in f32.
    #[default]
    F32,
    /// Everything stored in f32; convolutions multiply in tf32 on tensor cores.
    Tf32,
    /// Convolutions multiply in bf16; on a GPU, activations and their gradients lie in memory in it, too. Weights, statistics,
    /// coefficients, the head, the loss, gradients of weights and gradients that many rows add to stay in f32.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 4] = [Precision::F64, Precision::F32, Precision::Tf32, Precision::Bf16];

    /// The type of weights, statistics and the loss.
    pub fn float(self) -> DType {
        if self == Precision::F64 { DType::F64 } else { DType::F32 }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F64 => "f64",
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Precision::ALL.into_iter().find(|p| p.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is no precision; there are f32, tf32, bf16 and, on the naive device, f64"))
    }
}
