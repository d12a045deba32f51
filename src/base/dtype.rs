use std::fmt;

/// The number type of a value's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// Double precision: what the `naive` device computes in.
    F64,
    /// Single precision: what models are written in, and the default everywhere else.
    F32,
    /// Brain floating point, 8 bits of significand: storage of activations and weights under `--precision bf16`.
    Bf16,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 => 4,
            DType::Bf16 => 2,
        }
    }

    /// The type that sums over many elements of this type are kept in: statistics, gradients of parameters, pooled features.
    pub fn summed(self) -> DType {
        if self == DType::Bf16 { DType::F32 } else { self }
    }

    /// `x` rounded to this type.
    pub fn round(self, x: f64) -> f64 {
        match self {
            DType::F64 => x,
            DType::F32 => f64::from(x as f32),
            DType::Bf16 => half::bf16::from_f64(x).to_f64(),
        }
    }

    /// The unit roundoff: the largest relative error of rounding a number to this type.
    pub fn roundoff(self) -> f64 {
        match self {
            DType::F64 => 2f64.powi(-53),
            DType::F32 => 2f64.powi(-24),
            DType::Bf16 => 2f64.powi(-8),
        }
    }
}

/// How products of f32 operands are computed. The operands lie in memory as f32 either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Math {
    /// In f32.
    #[default]
    Full,
    /// Rounded to tf32 (10 bits of fraction) and summed in f32, on the tensor cores of NVIDIA GPUs.
    Tf32,
    /// Rounded to bf16 and summed in f32, two products at a time, on processors that have an instruction for it.
    Bf16,
}

impl Math {
    /// An operand as it is multiplied.
    pub fn round(self, x: f64) -> f64 {
        match self {
            Math::Full => x,
            Math::Tf32 => f64::from(f32::from_bits(((x as f32).to_bits() + 0x1000) & !0x1fff)),
            Math::Bf16 => DType::Bf16.round(x),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::Bf16 => "bf16",
        })
    }
}
