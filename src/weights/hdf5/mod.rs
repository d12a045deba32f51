//! Reading HDF5, as much of it as Keras, h5py and `h5repack` put around weights, from bytes that may be hostile.
//!
//! | what | which |
//! | --- | --- |
//! | superblock | versions 0 to 3, eight-byte offsets |
//! | object headers | versions 1 and 2, continued |
//! | groups | symbol tables, compact links, dense links |
//! | attributes | compact and dense; numbers are passed over, strings of fixed and of variable length are read |
//! | data | f16, bf16, f32, f64 in either byte order; contiguous, compact, chunked (version 1 B-tree, single chunk, implicit, fixed array) |
//! | filters | deflate, shuffle, Fletcher 32 |
//!
//! Refused: soft and external links, virtual data sets, data in other files, committed types, every other filter, and data
//! that was never written. Nothing is believed before it is checked against the length of the file, nothing is allocated
//! that the caller has not asked for by its shape, and [`File`] counts the structures it walks through, so that a file whose
//! parts refer to each other in circles ends in an error.
//!
//! Source: HDF5 File Format Specification, version 3. [`write`] is the other direction.

mod attribute;
mod btree;
mod bytes;
mod chunks;
mod dataset;
mod filters;
mod group;
mod heap;
mod object;
mod types;
pub mod write;

pub use dataset::Dataset;
pub use group::Group;

use crate::error::{Error, Result};
use bytes::Bytes;
use std::cell::Cell;

/// The first eight bytes.
pub const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";

/// Structures (headers, messages, nodes, links, heap objects, 16 bytes of a text) that are looked at before a file counts as
/// malicious. The largest file that Keras writes of a supported network, with optimizer, needs a twentieth. It bounds the
/// memory that names take, too.
const FUEL: u32 = 1_000_000;

/// An HDF5 file in memory, usually mapped.
pub struct File<'a> {
    data: &'a [u8],
    root: u64,
    fuel: Cell<u32>,
}

impl<'a> File<'a> {
    /// Reads the superblock.
    ///
    /// # Errors
    /// No HDF5 file, a version that is not supported, or a file shorter than it says.
    pub fn parse(data: &'a [u8]) -> Result<Self> {
        if !data.starts_with(SIGNATURE) {
            return Err(Error::input("is not an HDF5 file"));
        }
        let mut b = Bytes::new(&data[SIGNATURE.len()..]);
        let version = b.u8()?;
        let sizes = match version {
            // Versions of free space, root entry, a reserved byte, version of shared headers.
            0 | 1 => b.skip(4).and_then(|()| b.take(2))?,
            2 | 3 => b.take(2)?,
            _ => return Err(unsupported(format!("superblock version {version}"))),
        };
        if sizes != [8, 8] {
            return Err(unsupported(format!("offsets of {} and lengths of {} bytes", sizes[0], sizes[1])));
        }
        // A reserved byte, B-tree ranks, flags (and, in version 1, the rank of chunk trees); or flags alone.
        b.skip([9, 13, 1, 1][version as usize])?;
        let base = b.u64()?;
        b.skip(8)?;
        let end = b.u64()?;
        let root = if version < 2 { b.skip(16).and_then(|()| b.u64())? } else { b.u64()? };
        if base != 0 {
            return Err(unsupported(format!("a base address of {base}")));
        }
        if end > data.len() as u64 {
            return Err(Error::input(format!("the file is truncated: it has {} bytes and says {end}", data.len())));
        }
        Ok(File { data, root, fuel: Cell::new(FUEL) })
    }

    /// The root group.
    ///
    /// # Errors
    /// A damaged file.
    pub fn root(&self) -> Result<Group<'_, 'a>> {
        Group::open(self, self.root, String::new())
    }

    /// The bytes from an address to the end of the file.
    fn from(&self, address: u64) -> Result<Bytes<'a>> {
        self.burn(1)?;
        let rest = usize::try_from(address).ok().and_then(|a| self.data.get(a..));
        rest.map(Bytes::new).ok_or_else(|| damaged(format!("an address of {address} beyond the end of the file")))
    }

    /// Bytes at an address.
    fn at(&self, address: u64, len: u64) -> Result<Bytes<'a>> {
        Ok(Bytes::new(self.from(address)?.take_u64(len)?))
    }

    /// Bytes at an address that begin with a signature, which is consumed.
    fn signed(&self, address: u64, signature: &[u8; 4]) -> Result<Bytes<'a>> {
        let mut b = self.from(address)?;
        match b.take(4)? == signature {
            true => Ok(b),
            false => Err(damaged(format!("no {} at address {address}", String::from_utf8_lossy(signature)))),
        }
    }

    /// Counts the bytes of a text, which many places may refer to.
    fn burn_text(&self, len: usize) -> Result<()> {
        self.burn(u32::try_from(len / 16).unwrap_or(u32::MAX))
    }

    /// Counts structures.
    fn burn(&self, structures: u32) -> Result<()> {
        let left = self.fuel.get().checked_sub(structures);
        self.fuel.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or_else(|| damaged("more structures than a weight file has; its parts refer to each other in circles"))
    }
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::input(format!("the HDF5 file is damaged: {what}"))
}

fn unsupported(what: impl std::fmt::Display) -> Error {
    let rewrite = "let Keras load and save it again, or rewrite it with `h5repack --low=0 --high=0 FILE NEW`";
    Error::input(format!("the HDF5 file has {what}, which is not supported")).advise(rewrite)
}
