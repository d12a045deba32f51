//! Numbers between the host and a device, in the device's types.

use crate::base::DType;
use std::borrow::Cow;

/// Numbers on their way to a device.
#[derive(Clone, Copy, Debug)]
pub enum Host<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

impl<'a> Host<'a> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Host::F32(x) => x.len(),
            Host::F64(x) => x.len(),
        }
    }

    /// The bytes of these numbers as elements of `dtype`: the same ones, where that is their type.
    pub(super) fn bytes(&self, dtype: DType) -> Cow<'a, [u8]> {
        match (*self, dtype) {
            (Host::F32(x), DType::F32) => Cow::Borrowed(bytemuck::cast_slice(x)),
            (Host::F64(x), DType::F64) => Cow::Borrowed(bytemuck::cast_slice(x)),
            (Host::F32(x), DType::F64) => x.iter().flat_map(|&x| f64::from(x).to_ne_bytes()).collect(),
            (Host::F64(x), DType::F32) => x.iter().flat_map(|&x| (x as f32).to_ne_bytes()).collect(),
            (Host::F32(x), DType::Bf16) => x.iter().flat_map(|&x| half::bf16::from_f32(x).to_ne_bytes()).collect(),
            (Host::F64(x), DType::Bf16) => x.iter().flat_map(|&x| half::bf16::from_f64(x).to_ne_bytes()).collect(),
        }
    }
}

impl<'a> From<&'a [f32]> for Host<'a> {
    fn from(x: &'a [f32]) -> Self {
        Host::F32(x)
    }
}

impl<'a> From<&'a [f64]> for Host<'a> {
    fn from(x: &'a [f64]) -> Self {
        Host::F64(x)
    }
}

/// The numbers that bytes of the device hold.
pub(super) fn numbers(bytes: &[u8], dtype: DType) -> impl Iterator<Item = f64> + '_ {
    bytes.chunks(dtype.size()).map(move |b| match dtype {
        DType::F64 => f64::from_ne_bytes(b.try_into().expect("eight bytes")),
        DType::F32 => f64::from(f32::from_ne_bytes(b.try_into().expect("four bytes"))),
        DType::Bf16 => half::bf16::from_ne_bytes(b.try_into().expect("two bytes")).to_f64(),
    })
}
