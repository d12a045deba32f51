//! B-trees: version 1 for symbol tables and chunks, version 2 for dense links and attributes.

use super::bytes::Bytes;
use super::{File, damaged};
use crate::error::Result;

/// Entries of a node of a version 1 tree: keys are `key` bytes long.
///
/// Calls `leaf(key, child)` for every child of the lowest nodes. Trees get one level lower at each step down, so that none is
/// its own ancestor; breadth is bounded by the file's fuel.
pub fn walk<'a>(file: &File<'a>, address: u64, kind: u8, key: usize, leaf: &mut dyn FnMut(Bytes<'a>, u64) -> Result<()>) -> Result<()> {
    let level = file.signed(address, b"TREE")?.take(2)?[1];
    walk_level(file, address, kind, level, key, leaf)
}

fn walk_level<'a>(
    file: &File<'a>,
    address: u64,
    kind: u8,
    level: u8,
    key: usize,
    leaf: &mut dyn FnMut(Bytes<'a>, u64) -> Result<()>,
) -> Result<()> {
    let mut b = file.signed(address, b"TREE")?;
    if b.take(2)? != [kind, level] {
        return Err(damaged("a B-tree node of the wrong kind or level"));
    }
    let entries = b.u16()?;
    // Left and right neighbours.
    b.skip(16)?;
    for _ in 0..entries {
        file.burn(1)?;
        let (key_bytes, child) = (Bytes::new(b.take(key)?), b.u64()?);
        match level {
            0 => leaf(key_bytes, child)?,
            _ => walk_level(file, child, kind, level - 1, key, leaf)?,
        }
    }
    Ok(())
}

/// Signature, version, kind and checksum of a version 2 node.
const NODE_OVERHEAD: u64 = 10;

/// A version 2 tree's measures.
struct Tree2 {
    kind: u8,
    record: usize,
    /// Bytes of a child's number of records.
    count: usize,
    /// By depth: bytes of the total number of records below a child at that depth.
    totals: Vec<usize>,
}

/// Calls `each(record)` for every record of a version 2 tree, whose records are of kind `kind`.
pub fn records<'a>(file: &File<'a>, address: u64, kind: u8, each: &mut dyn FnMut(Bytes<'a>) -> Result<()>) -> Result<()> {
    let mut b = file.signed(address, b"BTHD")?;
    let head = b.take(2)?;
    let (node, record, depth) = (u64::from(b.u32()?), b.u16()?, b.u16()?);
    b.skip(2)?;
    let (root, root_records) = (b.address()?, b.u16()?);
    if head != [0, kind] || record == 0 || node <= NODE_OVERHEAD || depth > 16 {
        return Err(damaged("a B-tree of the wrong kind or of impossible measures"));
    }
    let Some(root) = root else { return Ok(()) };
    // The records of a node follow from its size: pointers take an address, a count and, above the lowest level, a total.
    let most_in_leaf = (node - NODE_OVERHEAD) / u64::from(record);
    let count = bytes_for(most_in_leaf);
    let (mut below, mut totals) = (most_in_leaf, vec![0]);
    for level in 1..=depth {
        totals.push(if level > 1 { bytes_for(below) } else { 0 });
        let pointer = 8 + count as u64 + totals[usize::from(level)] as u64;
        let most = node.saturating_sub(NODE_OVERHEAD + pointer) / (u64::from(record) + pointer);
        below = (most + 1).saturating_mul(below).saturating_add(most);
    }
    let tree = Tree2 { kind, record: record.into(), count, totals };
    tree.node(file, root, root_records.into(), depth.into(), each)
}

impl Tree2 {
    fn node<'a>(
        &self,
        file: &File<'a>,
        address: u64,
        records: u64,
        depth: usize,
        each: &mut dyn FnMut(Bytes<'a>) -> Result<()>,
    ) -> Result<()> {
        let mut b = file.signed(address, if depth == 0 { b"BTLF" } else { b"BTIN" })?;
        if b.take(2)? != [0, self.kind] {
            return Err(damaged("a B-tree node of the wrong kind"));
        }
        for _ in 0..records {
            file.burn(1)?;
            each(Bytes::new(b.take(self.record)?))?;
        }
        for _ in 0..if depth == 0 { 0 } else { records + 1 } {
            let (child, count) = (b.u64()?, b.uint(self.count)?);
            b.skip(self.totals[depth])?;
            self.node(file, child, count, depth - 1, each)?;
        }
        Ok(())
    }
}

/// Bytes that hold numbers up to `limit`.
pub fn bytes_for(limit: u64) -> usize {
    (limit.max(1).ilog2() / 8 + 1) as usize
}
