//! Attributes that are texts, or arrays of texts; those of other types are known by name only.

use super::btree::records;
use super::bytes::Bytes;
use super::heap::FractalHeap;
use super::object::{ATTRIBUTE, ATTRIBUTE_INFO, Object};
use super::types::{Type, count, shape, texts};
use super::{File, unsupported};
use crate::error::Result;
use std::collections::BTreeMap;

/// The kind of a B-tree's records that name attributes.
const NAMES: u8 = 8;

/// An attribute whose value has not been read.
#[derive(Clone, Debug)]
pub struct Attribute<'a> {
    kind: Type,
    count: u64,
    data: Bytes<'a>,
}

/// All attributes of an object by name.
pub fn attributes<'a>(file: &File<'a>, object: &Object<'a>) -> Result<BTreeMap<String, Attribute<'a>>> {
    let mut found = BTreeMap::new();
    for body in object.all(ATTRIBUTE) {
        found.extend([Attribute::read(file, body?)?]);
    }
    if let Some((heap, tree)) = dense(object)? {
        let heap = FractalHeap::open(file, heap)?;
        records(file, tree, NAMES, &mut |mut record| {
            let id = Bytes::new(record.take(8)?);
            if record.u8()? & 2 != 0 {
                return Err(unsupported("a shared attribute"));
            }
            found.extend([Attribute::read(file, heap.object(file, id)?)?]);
            Ok(())
        })?;
    }
    Ok(found)
}

/// Where the heap and the B-tree of names of dense attributes are.
fn dense(object: &Object) -> Result<Option<(u64, u64)>> {
    let Some(mut b) = object.find(ATTRIBUTE_INFO)? else { return Ok(None) };
    b.skip(1)?;
    let flags = b.u8()?;
    b.skip(if flags & 1 != 0 { 2 } else { 0 })?;
    Ok(b.address()?.zip(b.address()?))
}

impl<'a> Attribute<'a> {
    fn read(file: &File<'a>, mut b: Bytes<'a>) -> Result<(String, Self)> {
        let (version, flags) = (b.u8()?, b.u8()?);
        let [name, kind, space] = [b.u16()?, b.u16()?, b.u16()?].map(usize::from);
        // Version 1 pads each part to eight bytes; version 3 states the encoding of the name.
        let padded = |len: usize| if version == 1 { len.next_multiple_of(8) } else { len };
        match version {
            1 | 2 => (),
            3 => b.skip(1)?,
            _ => return Err(unsupported(format!("an attribute of version {version}"))),
        }
        if version > 1 && flags & 3 != 0 {
            return Err(unsupported("an attribute of a committed type"));
        }
        file.burn_text(name)?;
        let name = b.text(padded(name))?;
        let mut kind = Bytes::new(b.take(padded(kind))?);
        let mut space = Bytes::new(b.take(padded(space))?);
        let (kind, _) = Type::read(&mut kind)?;
        Ok((name, Attribute { kind, count: count(&shape(&mut space)?)?, data: b }))
    }

    /// The texts; none if the attribute holds something else, as Keras's empty lists do (they are arrays of no numbers).
    pub fn texts(&self, file: &File<'a>) -> Result<Vec<String>> {
        match self.kind {
            Type::FixedText(_) | Type::Text => texts(file, &self.kind, self.data, self.count),
            _ => Ok(Vec::new()),
        }
    }
}
