//! Heaps: local (names of a symbol table), global (strings of variable length), fractal (dense links and attributes).

use super::btree::bytes_for;
use super::bytes::{Bytes, until_zero};
use super::{File, damaged, unsupported};
use crate::error::Result;

/// Bytes of a name; what is longer is cut and leads nowhere.
const LONGEST_NAME: usize = 4096;

/// The names of a symbol table.
pub struct LocalHeap<'a>(&'a [u8]);

impl<'a> LocalHeap<'a> {
    pub fn open(file: &File<'a>, address: u64) -> Result<Self> {
        let mut b = file.signed(address, b"HEAP")?;
        b.skip(4)?;
        let len = b.u64()?;
        b.skip(8)?;
        Ok(LocalHeap(file.at(b.u64()?, len)?.rest()))
    }

    /// The text that begins at an offset.
    pub fn text(&self, file: &File, offset: u64) -> Result<String> {
        let rest = usize::try_from(offset).ok().and_then(|o| self.0.get(o..));
        let text = rest.map(|rest| &rest[..rest.len().min(LONGEST_NAME)]).ok_or_else(|| damaged("a name lies outside of its heap"))?;
        let text = until_zero(text);
        file.burn_text(text.len()).map(|()| text)
    }
}

/// An object of a global heap collection: number, reference count, four reserved bytes, length, bytes padded to eight.
pub fn global<'a>(file: &File<'a>, collection: u64, index: u32) -> Result<&'a [u8]> {
    let mut b = file.signed(collection, b"GCOL")?;
    b.skip(4)?;
    let len = b.u64()?;
    let mut objects = Bytes::new(b.take_u64(len.saturating_sub(16))?);
    while objects.len() >= 16 {
        file.burn(1)?;
        let number = u32::from(objects.u16()?);
        objects.skip(6)?;
        let len = objects.u64()?;
        // Number 0 is the free space, which ends the collection.
        if number == 0 {
            break;
        }
        let bytes = objects.take_u64(len)?;
        if number == index {
            return Ok(bytes);
        }
        objects.skip((bytes.len().next_multiple_of(8) - bytes.len()).min(objects.len()))?;
    }
    Err(damaged("a string is not in its global heap"))
}

/// A heap of blocks that double in size, addressed as one space.
pub struct FractalHeap {
    /// Bytes of an offset in the heap, and of an object's length.
    offset: usize,
    length: usize,
    /// Blocks of a row.
    width: u64,
    first_block: u64,
    largest_direct: u64,
    root: u64,
    /// Rows of the root block; 0 if it is a direct one.
    rows: u16,
}

impl FractalHeap {
    pub fn open(file: &File, address: u64) -> Result<Self> {
        let mut b = file.signed(address, b"FRHP")?;
        // Version, length of an identifier.
        b.skip(3)?;
        let filters = b.u16()?;
        b.skip(1)?;
        let largest_object = b.u32()?;
        // Huge objects, free space, statistics.
        b.skip(12 * 8)?;
        let (width, first_block, largest_direct, bits) = (b.u16()?, b.u64()?, b.u64()?, b.u16()?);
        b.skip(2)?;
        let (root, rows) = (b.address()?, b.u16()?);
        if filters != 0 {
            return Err(unsupported("a filtered heap"));
        }
        let powers = first_block.is_power_of_two() && largest_direct.is_power_of_two() && largest_direct >= first_block;
        let (Some(root), true, true, true) = (root, powers, width.is_power_of_two(), bits <= 64) else {
            return Err(damaged("a fractal heap of impossible measures"));
        };
        let offset = usize::from(bits).div_ceil(8);
        let length = (largest_direct.ilog2() as usize).div_ceil(8).min(bytes_for(largest_object.into()));
        Ok(FractalHeap { offset, length, width: width.into(), first_block, largest_direct, root, rows })
    }

    /// The object that an identifier names.
    pub fn object<'a>(&self, file: &File<'a>, mut id: Bytes<'a>) -> Result<Bytes<'a>> {
        let kind = id.u8()?;
        match kind >> 4 {
            0 => {
                let (offset, len) = (id.uint(self.offset)?, id.uint(self.length)?);
                let (address, within) = self.locate(file, offset)?;
                file.at(address.checked_add(within).ok_or_else(|| damaged("an address that overflows"))?, len)
            }
            // An object of up to 16 bytes stands in its own identifier.
            2 => Ok(Bytes::new(id.take(usize::from(kind & 0x0f) + 1)?)),
            _ => Err(unsupported("an object of more than 64 KiB in a heap")),
        }
    }

    /// The direct block that covers a heap offset, and the offset in it.
    fn locate(&self, file: &File, offset: u64) -> Result<(u64, u64)> {
        if self.rows == 0 {
            return Ok((self.root, offset));
        }
        let (mut block, mut offset, mut rows) = (self.root, offset, u32::from(self.rows));
        loop {
            // Row r holds blocks of first * 2^(r-1) bytes, row 0 like row 1; a row begins where width blocks of every lower row end.
            let (row, size) = self.row_of(offset);
            if row >= rows {
                return Err(damaged("an object lies outside of its heap"));
            }
            let start = if row == 0 { 0 } else { size.saturating_mul(self.width) };
            let column = (offset - start) / size;
            let mut b = file.signed(block, b"FHIB")?;
            b.skip(1 + 8 + self.offset)?;
            b.take_u64((u64::from(row) * self.width + column) * 8)?;
            let child = b.address()?.ok_or_else(|| damaged("an object lies in a block that is not there"))?;
            offset -= start + column * size;
            if size <= self.largest_direct {
                return Ok((child, offset));
            }
            let child_rows = size.ilog2().checked_sub(self.first_block.saturating_mul(self.width).ilog2()).map(|r| r + 1);
            // A child is smaller than its parent, so that this ends.
            match child_rows.filter(|&r| r < rows) {
                Some(r) => (block, rows) = (child, r),
                None => return Err(damaged("a fractal heap of impossible measures")),
            }
        }
    }

    /// The row of a heap offset and the size of its blocks.
    fn row_of(&self, offset: u64) -> (u32, u64) {
        let first_row = self.first_block.saturating_mul(self.width);
        match (offset / first_row).checked_ilog2() {
            None => (0, self.first_block),
            Some(doubled) => (doubled + 1, self.first_block.saturating_mul(1 << doubled)),
        }
    }
}
