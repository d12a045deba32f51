//! Data in chunks: where each is, and how they make up the whole.

use super::btree::{bytes_for, walk};
use super::bytes::Bytes;
use super::filters::{Filter, undo};
use super::types::count;
use super::{File, damaged, unsupported};
use crate::error::{Error, Result};

/// Bytes of a chunk before compression: h5py makes them of some tens of KiB, `h5repack` by order.
const LARGEST: u64 = 64 << 20;

/// Bytes of all chunks for each byte of data.
const OVERHANG: u64 = 16;

/// Chunks and where to look for them.
pub struct Chunks {
    /// Lengths of a chunk's axes.
    shape: Vec<u64>,
    filters: Vec<Filter>,
    index: Index,
}

enum Index {
    Tree(u64),
    /// One chunk: address, stored bytes, filters left out.
    Single(u64, u64, u32),
    /// One after the other from an address.
    Implicit(u64),
    /// The address of a fixed array's header.
    FixedArray(u64),
}

/// A chunk in the file.
struct Chunk {
    /// Its number along each axis.
    place: Vec<u64>,
    address: u64,
    stored: u64,
    skipped: u32,
}

impl Chunks {
    /// Reads a layout message of class 2; `None` if nothing was written.
    pub fn open(version: u8, b: &mut Bytes, whole: &[u64], size: usize, filters: Vec<Filter>) -> Result<Option<Self>> {
        let mut flags = 0;
        let mut address = None;
        let rank = if version == 3 {
            let rank = b.u8()?;
            address = b.address()?;
            rank
        } else {
            flags = b.u8()?;
            b.u8()?
        };
        let width = if version == 3 { 4 } else { usize::from(b.u8()?) };
        if usize::from(rank) != whole.len() + 1 || whole.is_empty() || !(1..=8).contains(&width) {
            return Err(damaged(format!("chunks of {rank} axes in data of shape {whole:?}")));
        }
        // The last axis is the element's bytes.
        let mut shape = (0..rank).map(|_| b.uint(width)).collect::<Result<Vec<u64>>>()?;
        let element = shape.pop();
        let bytes = count(&shape)?.checked_mul(size as u64);
        // All chunks together may hang over the edges of the data, but not by far.
        let chunks = whole.iter().zip(&shape).try_fold(1u64, |n, (w, &c)| n.checked_mul(w.div_ceil(c.max(1))));
        let all = bytes.zip(chunks).and_then(|(bytes, chunks)| bytes.checked_mul(chunks));
        let most = count(whole)?.saturating_mul(size as u64).saturating_mul(OVERHANG).saturating_add(1 << 20);
        if element != Some(size as u64) || shape.contains(&0) || bytes.is_none_or(|n| n > LARGEST) || all.is_none_or(|n| n > most) {
            let element = element.unwrap_or_default();
            return Err(Error::input(format!(
                "has chunks of shape {shape:?}, elements of {element} bytes, in data of shape {whole:?}, which is refused"
            )));
        }
        let index = if version == 3 { address.map(Index::Tree) } else { index(b, flags, bytes.unwrap_or(0))? };
        Ok(index.map(|index| Chunks { shape, filters, index }))
    }

    /// The bytes of all elements, in row-major order.
    pub fn read(&self, file: &File, whole: &[u64], size: usize) -> Result<Vec<u8>> {
        let bytes = count(&self.shape)? as usize * size;
        let wanted = whole.iter().zip(&self.shape).map(|(w, c)| w.div_ceil(*c)).product::<u64>();
        let mut out = vec![0; count(whole)? as usize * size];
        if out.is_empty() {
            return Ok(out);
        }
        let mut found = 0;
        self.each(file, whole, size, &mut |chunk| {
            if chunk.place.iter().zip(whole).zip(&self.shape).any(|((&p, &w), &c)| p.checked_mul(c).is_none_or(|start| start >= w)) {
                return Err(damaged(format!("a chunk at {:?} outside of shape {whole:?}", chunk.place)));
            }
            let stored = file.at(chunk.address, chunk.stored)?.rest();
            found += 1;
            if found > wanted {
                return Err(damaged(format!("more chunks than the {wanted} of shape {whole:?}")));
            }
            match self.filters[..] {
                [] if stored.len() == bytes => self.put(stored, &chunk.place, whole, size, &mut out),
                _ => self.put(&undo(&self.filters, chunk.skipped, stored, bytes, size)?, &chunk.place, whole, size, &mut out),
            }
            Ok(())
        })?;
        if found != wanted {
            return Err(damaged(format!("{found} of {wanted} chunks are there; the rest was never written")));
        }
        Ok(out)
    }

    /// Copies a chunk's rows to their places; what hangs over the edge of the whole is left out.
    fn put(&self, chunk: &[u8], place: &[u64], whole: &[u64], size: usize, out: &mut [u8]) {
        let last = whole.len() - 1;
        let start: Vec<u64> = place.iter().zip(&self.shape).map(|(p, c)| p * c).collect();
        let extent: Vec<u64> = start.iter().zip(whole).zip(&self.shape).map(|((s, w), c)| (w - s).min(*c)).collect();
        let row = extent[last] as usize * size;
        let mut at = vec![0; last];
        loop {
            let offset = |origin: &dyn Fn(usize) -> u64, lengths: &[u64], column: u64| {
                let rows = at.iter().enumerate().fold(0, |n, (axis, i)| n * lengths[axis] + origin(axis) + i);
                (rows * lengths[last] + column) as usize * size
            };
            let (from, to) = (offset(&|_| 0, &self.shape, 0), offset(&|axis| start[axis], whole, start[last]));
            out[to..to + row].copy_from_slice(&chunk[from..from + row]);
            // The next row, like the digits of a clock.
            let Some(axis) = (0..last).rev().find(|&axis| at[axis] + 1 < extent[axis]) else { return };
            at[axis] += 1;
            at[axis + 1..].fill(0);
        }
    }

    /// Calls `each` for every chunk that the index knows.
    fn each(&self, file: &File, whole: &[u64], size: usize, each: &mut dyn FnMut(Chunk) -> Result<()>) -> Result<()> {
        let rank = whole.len();
        let bytes = count(&self.shape)? * size as u64;
        let grid: Vec<u64> = whole.iter().zip(&self.shape).map(|(w, c)| w.div_ceil(*c)).collect();
        let nth = |i: u64| {
            let digit = |axis: usize| i / grid[axis + 1..].iter().product::<u64>() % grid[axis];
            (0..rank).map(digit).collect::<Vec<u64>>()
        };
        match self.index {
            // A key: stored bytes, filters left out, offsets of the first element along all axes and in the element.
            Index::Tree(tree) => walk(file, tree, 1, 8 + 8 * (rank + 1), &mut |mut key, address| {
                let (stored, skipped) = (key.u32()?.into(), key.u32()?);
                let place = self.shape.iter().map(|c| Ok(key.u64()? / c)).collect::<Result<_>>()?;
                each(Chunk { place, address, stored, skipped })
            }),
            Index::Single(address, stored, skipped) => each(Chunk { place: vec![0; rank], address, stored, skipped }),
            Index::Implicit(address) => (0..grid.iter().product()).try_for_each(|i: u64| {
                let offset = i.checked_mul(bytes).and_then(|o| o.checked_add(address));
                let address = offset.ok_or_else(|| damaged("an address that overflows"))?;
                each(Chunk { place: nth(i), address, stored: bytes, skipped: 0 })
            }),
            Index::FixedArray(header) => {
                fixed_array(file, header, bytes, &mut |i, address, stored, skipped| each(Chunk { place: nth(i), address, stored, skipped }))
            }
        }
    }
}

/// The index of a version 4 layout. `bytes` is the size of a whole chunk.
fn index(b: &mut Bytes, flags: u8, bytes: u64) -> Result<Option<Index>> {
    Ok(match b.u8()? {
        1 => {
            // With filters, the chunk's stored size and the filters left out come first.
            let (stored, skipped) = if flags & 2 != 0 { (b.u64()?, b.u32()?) } else { (bytes, 0) };
            b.address()?.map(|address| Index::Single(address, stored, skipped))
        }
        2 => b.address()?.map(Index::Implicit),
        3 => {
            b.skip(1)?;
            b.address()?.map(Index::FixedArray)
        }
        4 | 5 => return Err(unsupported("chunks of data that may grow, in the newest format")),
        other => return Err(damaged(format!("a chunk index of kind {other}"))),
    })
}

/// Calls `each(number, address, stored, skipped)` for the chunks of a fixed array: a header and a data block with one element
/// for each chunk, an address or, with filters, address, stored bytes and filters left out.
fn fixed_array(file: &File, header: u64, bytes: u64, each: &mut dyn FnMut(u64, u64, u64, u32) -> Result<()>) -> Result<()> {
    let mut b = file.signed(header, b"FAHD")?;
    b.skip(1)?;
    let (filtered, element, page_bits) = (b.u8()? == 1, b.u8()?, b.u8()?);
    let (count, block) = (b.u64()?, b.u64()?);
    let mut b = file.signed(block, b"FADB")?;
    // Version, kind, the header's address.
    b.skip(10)?;
    let width = if filtered { usize::from(element).checked_sub(12) } else { Some(0) };
    let Some(width) = width.filter(|&w| w <= 8 && (!filtered || w >= bytes_for(1))) else {
        return Err(damaged("a fixed array of impossible measures"));
    };
    let page = 1u64.checked_shl(page_bits.into()).unwrap_or(u64::MAX);
    // Long arrays are cut into pages, each with a checksum, after a bit for each page and a checksum.
    if count > page {
        b.take_u64(count.div_ceil(page).div_ceil(8) + 4)?;
    }
    for i in 0..count {
        file.burn(1)?;
        if count > page && i > 0 && i % page == 0 {
            b.skip(4)?;
        }
        let address = b.address()?;
        let (stored, skipped) = if filtered { (b.uint(width)?, b.u32()?) } else { (bytes, 0) };
        if let Some(address) = address {
            each(i, address, stored, skipped)?;
        }
    }
    Ok(())
}
