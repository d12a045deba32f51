//! Groups: names and where they lead.

use super::attribute::{Attribute, attributes};
use super::btree::{records, walk};
use super::bytes::Bytes;
use super::dataset::Dataset;
use super::heap::{FractalHeap, LocalHeap};
use super::object::{LAYOUT, LINK, LINK_INFO, Object, SYMBOL_TABLE};
use super::{File, damaged, unsupported};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// The kind of a B-tree's records that name links.
const NAMES: u8 = 5;

/// Where a name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Hard(u64),
    /// What is refused.
    Soft,
    External,
}

/// A group with its names and attributes read.
pub struct Group<'f, 'a> {
    file: &'f File<'a>,
    path: String,
    links: BTreeMap<String, Link>,
    attributes: BTreeMap<String, Attribute<'a>>,
}

impl<'f, 'a> Group<'f, 'a> {
    pub(super) fn open(file: &'f File<'a>, address: u64, path: String) -> Result<Self> {
        let read = || {
            let object = Object::read(file, address)?;
            if object.find(LAYOUT)?.is_some() {
                return Err(Error::input("is a data set, expected a group"));
            }
            Ok((links(file, &object)?, attributes(file, &object)?))
        };
        let (links, attributes) = read().map_err(|e: Error| if path.is_empty() { e } else { e.at(&path) })?;
        Ok(Group { file, path, links, attributes })
    }

    /// Where the group stands in the file: `model_weights/dense`, empty for the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The names in it, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.links.keys().map(String::as_str)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Whether there is something of this name.
    pub fn has(&self, name: &str) -> bool {
        self.links.contains_key(name)
    }

    /// The group at a relative path, `conv1/bn`; `None` if there is none.
    ///
    /// # Errors
    /// A link that is refused, a data set on the way, or a damaged file.
    pub fn group(&self, path: &str) -> Result<Option<Group<'f, 'a>>> {
        let mut at: Option<Group> = None;
        for part in path.split('/') {
            let Some(group) = at.as_ref().unwrap_or(self).child(part)? else { return Ok(None) };
            at = Some(group);
        }
        Ok(at)
    }

    /// The data set at a relative path; `None` if there is none.
    ///
    /// # Errors
    /// A link that is refused, a data set that is refused, or a damaged file.
    pub fn dataset(&self, path: &str) -> Result<Option<Dataset<'f, 'a>>> {
        if let Some((groups, name)) = path.rsplit_once('/') {
            return self.group(groups)?.map_or(Ok(None), |group| group.dataset(name));
        }
        let Some(address) = self.address(path)? else { return Ok(None) };
        let path = self.below(path);
        Dataset::open(self.file, address).map(Some).map_err(|e| e.at(path))
    }

    /// Whether a name leads to a group.
    ///
    /// # Errors
    /// As [`Group::group`].
    pub fn is_group(&self, name: &str) -> Result<bool> {
        let Some(address) = self.address(name)? else { return Ok(false) };
        Ok(Object::read(self.file, address)?.find(LAYOUT)?.is_none())
    }

    /// Whether there is an attribute of this name.
    pub fn has_attribute(&self, name: &str) -> bool {
        self.attributes.contains_key(name)
    }

    /// An attribute's texts; `None` if there is no such attribute.
    ///
    /// # Errors
    /// A damaged file.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>> {
        self.attributes.get(name).map(|a| a.texts(self.file)).transpose().map_err(|e| e.at(format!("attribute {name:?}")))
    }

    fn child(&self, name: &str) -> Result<Option<Group<'f, 'a>>> {
        self.address(name)?.map(|address| Group::open(self.file, address, self.below(name))).transpose()
    }

    fn address(&self, name: &str) -> Result<Option<u64>> {
        let refused = |kind: &str| Err(Error::input(format!("is {kind} link, which is refused")).at(self.below(name)));
        match self.links.get(name) {
            None => Ok(None),
            Some(Link::Hard(address)) => Ok(Some(*address)),
            Some(Link::Soft) => refused("a soft"),
            Some(Link::External) => refused("an external"),
        }
    }

    fn below(&self, name: &str) -> String {
        if self.path.is_empty() { name.into() } else { format!("{}/{name}", self.path) }
    }
}

/// All links of a group, whichever way it keeps them.
fn links<'a>(file: &File<'a>, object: &Object<'a>) -> Result<BTreeMap<String, Link>> {
    let mut found = BTreeMap::new();
    if let Some(mut b) = object.find(SYMBOL_TABLE)? {
        let (tree, heap) = (b.u64()?, LocalHeap::open(file, b.u64()?)?);
        walk(file, tree, 0, 8, &mut |_, node| symbols(file, &heap, node, &mut found))?;
    }
    for body in object.all(LINK) {
        found.extend([link(file, body?)?]);
    }
    if let Some((heap, tree)) = dense(object)? {
        let heap = FractalHeap::open(file, heap)?;
        records(file, tree, NAMES, &mut |mut record| {
            record.skip(4)?;
            found.extend([link(file, heap.object(file, record)?)?]);
            Ok(())
        })?;
    }
    Ok(found)
}

/// A node of a symbol table: entries of name, header address, kind of cache, scratch space.
fn symbols(file: &File, heap: &LocalHeap, node: u64, found: &mut BTreeMap<String, Link>) -> Result<()> {
    let mut b = file.signed(node, b"SNOD")?;
    b.skip(2)?;
    for _ in 0..b.u16()? {
        file.burn(1)?;
        let (name, address, cache) = (heap.text(file, b.u64()?)?, b.u64()?, b.u32()?);
        b.skip(20)?;
        // Cache kind 2 is a symbolic link, which has no header.
        found.insert(name, if cache == 2 { Link::Soft } else { Link::Hard(address) });
    }
    Ok(())
}

/// Where the heap and the B-tree of names of dense links are.
fn dense(object: &Object) -> Result<Option<(u64, u64)>> {
    let Some(mut b) = object.find(LINK_INFO)? else { return Ok(None) };
    b.skip(1)?;
    let flags = b.u8()?;
    b.skip(if flags & 1 != 0 { 8 } else { 0 })?;
    Ok(b.address()?.zip(b.address()?))
}

/// A link message: version, flags, perhaps kind, creation order and encoding, then name and target.
fn link(file: &File, mut b: Bytes) -> Result<(String, Link)> {
    let (version, flags) = (b.u8()?, b.u8()?);
    if version != 1 {
        return Err(unsupported(format!("a link of version {version}")));
    }
    let kind = if flags & 0x08 != 0 { b.u8()? } else { 0 };
    b.skip(if flags & 0x04 != 0 { 8 } else { 0 } + if flags & 0x10 != 0 { 1 } else { 0 })?;
    let len = b.uint(1 << (flags & 3))?;
    let name = b.take_u64(len)?;
    file.burn_text(name.len())?;
    let name = String::from_utf8_lossy(name).into_owned();
    match kind {
        0 => Ok((name, Link::Hard(b.u64()?))),
        1 => Ok((name, Link::Soft)),
        64 => Ok((name, Link::External)),
        _ => Err(damaged(format!("a link of kind {kind}")).at(name)),
    }
}
