//! What was done to a chunk before it was stored, undone.

use super::bytes::Bytes;
use super::{damaged, unsupported};
use crate::error::Result;
use flate2::{Decompress, FlushDecompress, Status};

/// A filter that can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    Deflate,
    /// Byte k of all elements, then byte k + 1 of all.
    Shuffle,
    /// Four bytes of checksum at the end.
    Fletcher32,
}

impl Filter {
    /// Reads a filter message; the filters in the order in which they were applied.
    pub fn read_all(mut b: Bytes) -> Result<Vec<Filter>> {
        let (version, filters) = (b.u8()?, b.u8()?);
        match version {
            1 => b.skip(6)?,
            2 => (),
            _ => return Err(unsupported(format!("filters of version {version}"))),
        }
        (0..filters).map(|_| Self::read(&mut b, version)).collect()
    }

    /// Number, length of the name, flags, number of values; name, values, padding.
    fn read(b: &mut Bytes, version: u8) -> Result<Filter> {
        let id = b.u16()?;
        let name = if version == 1 || id >= 256 { usize::from(b.u16()?) } else { 0 };
        b.skip(2)?;
        let values = usize::from(b.u16()?);
        let odd = if version == 1 { values % 2 } else { 0 };
        b.skip(if version == 1 { name.next_multiple_of(8) } else { name } + 4 * (values + odd))?;
        match id {
            1 => Ok(Filter::Deflate),
            2 => Ok(Filter::Shuffle),
            3 => Ok(Filter::Fletcher32),
            _ => Err(unsupported(format!("data with filter {id} (only gzip, shuffle and Fletcher 32 can be undone)"))),
        }
    }
}

/// Undoes all filters but those whose bit in `skipped` is set; the result has exactly `len` bytes.
pub fn undo(filters: &[Filter], skipped: u32, stored: &[u8], len: usize, element: usize) -> Result<Vec<u8>> {
    let mut bytes = stored.to_vec();
    for (i, filter) in filters.iter().enumerate().rev().filter(|(i, _)| skipped >> i & 1 == 0) {
        bytes = match filter {
            // Only a checksum may lie under the compression.
            Filter::Deflate => inflate(&bytes, len + if filters[..i].contains(&Filter::Fletcher32) { 4 } else { 0 })?,
            Filter::Shuffle => unshuffle(&bytes, element),
            Filter::Fletcher32 => {
                bytes.truncate(bytes.len().saturating_sub(4));
                bytes
            }
        };
    }
    match bytes.len() == len {
        true => Ok(bytes),
        false => Err(damaged(format!("a chunk has {} bytes, expected {len}", bytes.len()))),
    }
}

/// Inflates to at most `most` bytes.
fn inflate(stored: &[u8], most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(most);
    let status = Decompress::new(true).decompress_vec(stored, &mut bytes, FlushDecompress::Finish);
    match status {
        Ok(Status::StreamEnd) => Ok(bytes),
        Ok(_) if bytes.len() == most => Err(damaged(format!("a chunk inflates to more than its {most} bytes"))),
        _ => Err(damaged("compressed data that cannot be inflated")),
    }
}

fn unshuffle(bytes: &[u8], element: usize) -> Vec<u8> {
    let count = bytes.len() / element;
    let mut out = bytes.to_vec();
    for (k, plane) in bytes.chunks_exact(count.max(1)).take(element).enumerate() {
        plane.iter().enumerate().for_each(|(i, &byte)| out[i * element + k] = byte);
    }
    out
}
