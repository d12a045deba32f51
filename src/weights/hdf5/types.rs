//! Element types and array shapes.

use super::bytes::Bytes;
use super::{File, damaged, heap, unsupported};
use crate::error::Result;

/// A float type of IEEE 754, or bfloat16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    F16,
    Bf16,
    F32,
    F64,
}

/// What an element is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    Float {
        kind: Float,
        big_endian: bool,
    },
    /// A text of so many bytes, padded with zeros or spaces.
    FixedText(usize),
    /// A text in the global heap.
    Text,
    /// Something that no weight is, in words.
    Other(String),
}

impl Type {
    /// Reads a datatype message; also the bytes of one element.
    pub fn read(b: &mut Bytes) -> Result<(Self, usize)> {
        let (class, flags) = (b.u8()?, b.uint(3)?);
        let size = b.u32()? as usize;
        let kind = match class & 0x0f {
            0 => Type::Other(format!("{size}-byte integers")),
            1 => Self::float(b, flags, size)?,
            3 => Type::FixedText(size),
            // A sequence or, with 1 in the lowest four bits, a text.
            9 if flags & 0x0f == 1 => Type::Text,
            9 => Type::Other("sequences of variable length".into()),
            6 => Type::Other("compound values".into()),
            8 => Type::Other("enumerated values".into()),
            other => Type::Other(format!("values of class {other}")),
        };
        Ok((kind, size))
    }

    /// Bit offset, precision; place and width of exponent and mantissa; exponent bias.
    fn float(b: &mut Bytes, flags: u64, size: usize) -> Result<Type> {
        let (offset, precision) = (b.u16()?, b.u16()?);
        let [exponent_at, exponent, mantissa_at, mantissa] = *b.take(4)? else { unreachable!("four bytes") };
        let bias = b.u32()?;
        let kind = match (size, exponent_at, exponent, mantissa, bias) {
            (2, 10, 5, 10, 15) => Float::F16,
            (2, 7, 8, 7, 127) => Float::Bf16,
            (4, 23, 8, 23, 127) => Float::F32,
            (8, 52, 11, 52, 1023) => Float::F64,
            _ => return Ok(Type::Other(format!("unusual {size}-byte floats"))),
        };
        // Bits 0 and 6: little-endian, big-endian; both are VAX's order.
        let order = flags & 0x41;
        if offset != 0 || usize::from(precision) != 8 * size || mantissa_at != 0 || order & 0x40 != 0 {
            return Ok(Type::Other(format!("unusual {size}-byte floats")));
        }
        Ok(Type::Float { kind, big_endian: order & 1 != 0 })
    }

    /// The name of what was found, for an error.
    pub fn name(&self) -> String {
        match self {
            Type::Float { kind, .. } => format!("{kind:?}").to_lowercase(),
            Type::FixedText(_) | Type::Text => "texts".into(),
            Type::Other(what) => what.clone(),
        }
    }
}

/// Reads a dataspace message; the lengths of all axes, none for a single value.
pub fn shape(b: &mut Bytes) -> Result<Vec<u64>> {
    let (version, rank, flags) = (b.u8()?, b.u8()?, b.u8()?);
    match version {
        1 => b.skip(5)?,
        // Type 2 is a space without any element.
        2 => {
            if b.u8()? == 2 {
                return Ok(vec![0]);
            }
        }
        _ => return Err(unsupported(format!("a dataspace of version {version}"))),
    }
    let _resizable = flags;
    (0..rank).map(|_| b.u64()).collect()
}

/// The number of elements.
pub fn count(shape: &[u64]) -> Result<u64> {
    let product = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    product.ok_or_else(|| damaged(format!("shape {shape:?} has more elements than can be counted")))
}

/// Texts from the bytes of an attribute.
pub fn texts<'a>(file: &File<'a>, kind: &Type, mut b: Bytes<'a>, count: u64) -> Result<Vec<String>> {
    // The bytes bound the number of texts that have any; an empty type would not.
    if matches!(kind, Type::FixedText(0)) {
        return Err(damaged("texts of no length"));
    }
    let mut texts = Vec::new();
    for _ in 0..count {
        file.burn(1)?;
        texts.push(match kind {
            Type::FixedText(len) => b.text(*len)?.trim_end_matches(' ').to_string(),
            _ => {
                let (len, collection, index) = (b.u32()?, b.address()?, b.u32()?);
                match collection {
                    Some(collection) if len > 0 => {
                        file.burn_text(len as usize)?;
                        Bytes::new(heap::global(file, collection, index)?).text(len as usize)?
                    }
                    _ => String::new(),
                }
            }
        });
    }
    Ok(texts)
}
