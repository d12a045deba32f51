//! The operands of one op in an image of memory: gaps between rows and around operands, NaN wherever nothing lies.

use super::run::Fault;
use crate::base::{DType, Ty};
use crate::device::naive::Array;
use crate::device::{Arena, Arenas, Device, Operand, Place, Write};

/// How operands lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Odd gaps around operands and between rows: no row is aligned for a wide access.
    Odd,
    /// Gaps of 16 bytes, every operand and every row at a multiple of them: kernels take their wide accesses where they have any.
    Aligned,
}

/// The temps arena on the host, with the operands' places in it.
pub struct Image {
    layout: Layout,
    /// All ones is NaN in every number type.
    pub bytes: Vec<u8>,
}

impl Image {
    /// An image without operands.
    pub fn new(layout: Layout) -> Self {
        Image { layout, bytes: Vec::new() }
    }

    /// Makes room for an operand: activations get gaps between rows, weights (which never have any) none.
    pub fn place(&mut self, ty: Ty, weight: bool, write: Write) -> Operand {
        let (cols, size) = (ty.shape.cols(), ty.dtype.size());
        let (gap, align) = match self.layout {
            Layout::Odd => (3, 1),
            Layout::Aligned => (16 / size, 16 / size),
        };
        let pitch = if weight || ty.shape.rank() == 1 { cols } else { cols.next_multiple_of(align) + gap };
        let offset = (self.bytes.len() + gap * size).next_multiple_of(align * size);
        self.bytes.resize(offset + (ty.shape.rows() * pitch + gap) * size, 0xff);
        Operand { ty, place: Place { arena: Arena::Temps, offset, pitch }, write }
    }

    /// The bytes of element `i` of an operand.
    fn at(operand: &Operand, i: usize) -> std::ops::Range<usize> {
        let (cols, size) = (operand.ty.shape.cols(), operand.ty.dtype.size());
        let start = operand.place.offset + (i / cols * operand.place.pitch + i % cols) * size;
        start..start + size
    }

    /// Writes an operand.
    pub fn fill(&mut self, operand: &Operand, array: &Array) {
        for (i, &x) in array.data.iter().enumerate() {
            self.put(Self::at(operand, i), operand.ty.dtype, x);
        }
    }

    fn put(&mut self, at: std::ops::Range<usize>, dtype: DType, x: f64) {
        let to = &mut self.bytes[at];
        match dtype {
            DType::F64 => to.copy_from_slice(&x.to_ne_bytes()),
            DType::F32 => to.copy_from_slice(&(x as f32).to_ne_bytes()),
            DType::Bf16 => to.copy_from_slice(&half::bf16::from_f64(x).to_ne_bytes()),
        }
    }

    fn get(&self, at: std::ops::Range<usize>, dtype: DType) -> f64 {
        let from = &self.bytes[at];
        match dtype {
            DType::F64 => f64::from_ne_bytes(from.try_into().expect("eight bytes")),
            DType::F32 => f32::from_ne_bytes(from.try_into().expect("four bytes")).into(),
            DType::Bf16 => half::bf16::from_ne_bytes(from.try_into().expect("two bytes")).to_f64(),
        }
    }

    /// Reads an operand.
    pub fn read(&self, operand: &Operand) -> Array {
        let shape = operand.ty.shape;
        Array { shape, data: (0..shape.len()).map(|i| self.get(Self::at(operand, i), operand.ty.dtype)).collect() }
    }

    /// Replaces the image by what lies on the device.
    pub fn read_back<D: Device>(&mut self, device: &D, arenas: &Arenas<D>) {
        device.read(arenas.get(Arena::Temps), 0, &mut self.bytes);
    }

    /// The first byte that belongs to none of the results and is not as it was.
    pub fn stray(&self, before: &[u8], results: &[Operand]) -> Option<usize> {
        let mut theirs = vec![false; before.len()];
        for o in results {
            (0..o.ty.shape.len()).for_each(|i| theirs[Self::at(o, i)].fill(true));
        }
        (0..before.len()).find(|&i| !theirs[i] && before[i] != self.bytes[i])
    }

    /// Spoils what a correct run left behind, at the last element of a result.
    pub fn plant(&mut self, before: &[u8], result: &Operand, budget: f64, fault: Fault) {
        let (at, dtype) = (Self::at(result, result.ty.shape.len() - 1), result.ty.dtype);
        match fault {
            Fault::None => {}
            Fault::Inexact => self.put(at.clone(), dtype, self.get(at, dtype) + 4.0 * budget),
            Fault::Unwritten => self.bytes[at.clone()].copy_from_slice(&before[at]),
            Fault::Stray => self.put(at.end..at.end + dtype.size(), dtype, 1.0),
        }
    }
}
