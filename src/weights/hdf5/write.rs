//! Writing HDF5 in its oldest and most widely read form: superblock 0, groups as symbol tables, data in one piece.
//!
//! A file is the superblock, then the elements of all data sets, then everything that describes them; so the places of the data
//! are known before a byte is written, and elements go straight to the disk. Attributes are texts; a long one lies in a
//! global heap, for an object's header holds 64 KiB at most.
//!
//! Source: HDF5 File Format Specification, version 3; sections III.A to III.E and IV.A.

use crate::base::DType;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// What stands under a name.
#[derive(Debug)]
pub enum Member<'a> {
    Group(Group<'a>),
    Dataset(Dataset<'a>),
}

/// Numbers in row-major order, little-endian.
#[derive(Clone, Copy, Debug)]
pub struct Dataset<'a> {
    pub shape: &'a [usize],
    pub dtype: DType,
    pub bytes: &'a [u8],
}

/// Texts about a group.
#[derive(Debug)]
pub enum Attribute {
    /// One text of any length, in UTF-8.
    Text(String),
    /// Texts of one length, the longest's, filled with zeros: what NumPy calls `S20`.
    Texts(Vec<String>),
}

/// Names, and attributes about them.
#[derive(Debug, Default)]
pub struct Group<'a> {
    pub attributes: Vec<(String, Attribute)>,
    pub members: BTreeMap<String, Member<'a>>,
}

impl<'a> Group<'a> {
    /// Puts a data set at a path below this group, making the groups on the way.
    pub fn place(&mut self, path: &str, data: Dataset<'a>) {
        match path.split_once('/') {
            None => drop(self.members.insert(path.into(), Member::Dataset(data))),
            Some((first, rest)) => {
                let below = self.members.entry(first.into()).or_insert_with(|| Member::Group(Group::default()));
                if let Member::Group(group) = below {
                    group.place(rest, data);
                }
            }
        }
    }

    fn datasets<'g>(&'g self, found: &mut Vec<&'g Dataset<'a>>) {
        for member in self.members.values() {
            match member {
                Member::Group(group) => group.datasets(found),
                Member::Dataset(data) => found.push(data),
            }
        }
    }
}

/// The superblock's length, with the root's entry.
const SUPERBLOCK: u64 = 96;
/// No address.
const UNDEFINED: u64 = u64::MAX;
/// Symbols of a leaf are at most twice this, children of a tree's node at most twice the other; the library's defaults.
const LEAF_K: usize = 4;
const NODE_K: usize = 16;

/// Writes a file whose root is `root`.
///
/// # Errors
/// What the disk says; also an attribute of fixed length that no header holds.
pub fn write(root: &Group, out: &mut dyn Write) -> io::Result<()> {
    let mut data = Vec::new();
    root.datasets(&mut data);
    let lens: Vec<u64> = data.iter().map(|d| aligned(d.bytes.len()) as u64).collect();
    let mut layout = Layout { start: SUPERBLOCK + lens.iter().sum::<u64>(), bytes: Vec::new(), next_data: SUPERBLOCK };
    let (header, tree, heap) = layout.group(root)?;
    let end = layout.start + layout.bytes.len() as u64;

    let mut b = Bytes::default();
    b.raw(b"\x89HDF\r\n\x1a\n").u8s(&[0, 0, 0, 0, 0, 8, 8, 0]);
    b.u16(LEAF_K).u16(NODE_K).u32(0);
    b.u64(0).u64(UNDEFINED).u64(end).u64(UNDEFINED);
    b.symbol((0, header, Some((tree, heap))));
    out.write_all(&b.0)?;
    for (d, len) in data.iter().zip(lens) {
        out.write_all(d.bytes)?;
        out.write_all(&[0; 8][..len as usize - d.bytes.len()])?;
    }
    out.write_all(&layout.bytes)
}

fn aligned(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// Little-endian fields.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }
    fn u8s(&mut self, bytes: &[u8]) -> &mut Self {
        self.raw(bytes)
    }
    fn u16(&mut self, x: usize) -> &mut Self {
        self.raw(&(x as u16).to_le_bytes())
    }
    fn u32(&mut self, x: usize) -> &mut Self {
        self.raw(&(x as u32).to_le_bytes())
    }
    fn u64(&mut self, x: u64) -> &mut Self {
        self.raw(&x.to_le_bytes())
    }
    /// Zeros up to a multiple of eight.
    fn pad(&mut self) -> &mut Self {
        self.0.resize(aligned(self.0.len()), 0);
        self
    }
    /// A symbol table entry; a group's says where its tree and heap are.
    fn symbol(&mut self, (name, header, group): Symbol) -> &mut Self {
        let (tree, heap) = group.unwrap_or_default();
        self.u64(name).u64(header).u32(usize::from(group.is_some())).u32(0).u64(tree).u64(heap)
    }
}

/// A name's offset in the heap, the address of what it names, and a group's tree and heap.
type Symbol = (u64, u64, Option<(u64, u64)>);

/// Everything behind the data, being laid out.
struct Layout {
    /// The address of the first byte.
    start: u64,
    bytes: Vec<u8>,
    /// The address of the next data set's elements, in the order of [`Group::datasets`].
    next_data: u64,
}

impl Layout {
    /// Appends a structure; its address.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        let address = self.start + self.bytes.len() as u64;
        self.bytes.extend(bytes);
        self.bytes.resize(aligned(self.bytes.len()), 0);
        address
    }

    /// The addresses of a group's header, tree and heap.
    fn group(&mut self, group: &Group) -> io::Result<(u64, u64, u64)> {
        // The heap of names begins with the empty one; a tree's first key.
        let (mut names, mut symbols) = (vec![0; 8], Vec::new());
        for (name, member) in &group.members {
            let offset = names.len() as u64;
            names.extend(name.as_bytes());
            names.push(0);
            names.resize(aligned(names.len()), 0);
            let (header, inner) = match member {
                Member::Dataset(data) => (self.dataset(data)?, None),
                Member::Group(group) => self.group(group).map(|(header, tree, heap)| (header, Some((tree, heap))))?,
            };
            symbols.push((offset, header, inner));
        }
        let segment = self.put(&names);
        let mut b = Bytes::default();
        // One is the free list of a heap without free space.
        b.raw(b"HEAP").u8s(&[0; 4]).u64(names.len() as u64).u64(1).u64(segment);
        let heap = self.put(&b.0);
        let tree = self.tree(&symbols);

        let mut messages = vec![(SYMBOL_TABLE, Bytes::default())];
        messages[0].1.u64(tree).u64(heap);
        for (name, value) in &group.attributes {
            messages.push((ATTRIBUTE, self.attribute(name, value)));
        }
        Ok((self.header(&messages)?, tree, heap))
    }

    /// A B-tree over symbols that are sorted by name: leaves of symbols below nodes of addresses.
    fn tree(&mut self, symbols: &[Symbol]) -> u64 {
        // Each child with its largest name.
        let mut children: Vec<(u64, u64)> = Vec::new();
        for leaf in symbols.chunks(2 * LEAF_K) {
            let mut b = Bytes::default();
            b.raw(b"SNOD").u8s(&[1, 0]).u16(leaf.len());
            for &symbol in leaf {
                b.symbol(symbol);
            }
            b.0.resize(8 + 2 * LEAF_K * 40, 0);
            children.push((self.put(&b.0), leaf.last().map_or(0, |s| s.0)));
        }
        for level in 0u8.. {
            let node = 24 + 2 * NODE_K * 8 + (2 * NODE_K + 1) * 8;
            let first = self.start + self.bytes.len() as u64;
            let groups: Vec<&[(u64, u64)]> = if children.is_empty() { vec![&[]] } else { children.chunks(2 * NODE_K).collect() };
            let sibling = |i: usize| if i < groups.len() { first + (i * node) as u64 } else { UNDEFINED };
            let (mut parents, mut smallest) = (Vec::new(), 0);
            for (i, &group) in groups.iter().enumerate() {
                let mut b = Bytes::default();
                b.raw(b"TREE").u8s(&[0, level]).u16(group.len());
                b.u64(i.checked_sub(1).map_or(UNDEFINED, &sibling)).u64(sibling(i + 1)).u64(smallest);
                for &(child, largest) in group {
                    b.u64(child).u64(largest);
                }
                smallest = group.last().map_or(0, |c| c.1);
                b.0.resize(node, 0);
                parents.push((self.put(&b.0), smallest));
            }
            if let [(root, _)] = parents[..] {
                return root;
            }
            children = parents;
        }
        unreachable!("each level has fewer nodes than the one below")
    }

    fn dataset(&mut self, data: &Dataset) -> io::Result<u64> {
        let (mut space, mut kind, mut fill, mut place) = (Bytes::default(), Bytes::default(), Bytes::default(), Bytes::default());
        simple(&mut space, data.shape);
        float(&mut kind, data.dtype);
        // Allocated late, never filled.
        fill.u8s(&[2, 2, 1, 0]);
        place.u8s(&[3, 1]).u64(self.next_data).u64(data.bytes.len() as u64);
        self.next_data += aligned(data.bytes.len()) as u64;
        self.header(&[(DATASPACE, space), (DATATYPE, kind), (FILL_VALUE, fill), (LAYOUT, place)])
    }

    /// An attribute message; a text of variable length goes to a heap of its own.
    fn attribute(&mut self, name: &str, value: &Attribute) -> Bytes {
        let (mut kind, mut space, mut data) = (Bytes::default(), Bytes::default(), Bytes::default());
        match value {
            Attribute::Text(text) => {
                // A sequence of bytes that is a text, ended by zero, in UTF-8.
                kind.u8s(&[0x19, 1, 1, 0]).u32(16).u8s(&[0x10, 0, 0, 0]).u32(1).u16(0).u16(8);
                simple(&mut space, &[]);
                let heap = self.global_heap(text.as_bytes());
                data.u32(text.len()).u64(heap).u32(1);
            }
            Attribute::Texts(texts) => {
                let longest = texts.iter().map(String::len).max().unwrap_or(0).max(1);
                kind.u8s(&[0x13, 1, 0, 0]).u32(longest);
                simple(&mut space, &[texts.len()]);
                for text in texts {
                    data.raw(text.as_bytes()).raw(&vec![0; longest - text.len()]);
                }
            }
        }
        let mut b = Bytes::default();
        b.u8s(&[1, 0]).u16(name.len() + 1).u16(kind.0.len()).u16(space.0.len());
        b.raw(name.as_bytes()).u8s(&[0]).pad().raw(&kind.0).pad().raw(&space.0).pad().raw(&data.0);
        b
    }

    /// A collection of one object.
    fn global_heap(&mut self, text: &[u8]) -> u64 {
        const LEAST: usize = 4096;
        let used = 16 + 16 + aligned(text.len());
        let size = used.max(LEAST);
        let mut b = Bytes::default();
        b.raw(b"GCOL").u8s(&[1, 0, 0, 0]).u64(size as u64);
        b.u16(1).u16(1).u32(0).u64(text.len() as u64).raw(text).pad();
        if size - used >= 16 {
            // The rest is free: object zero.
            b.u16(0).u16(0).u32(0).u64((size - used) as u64);
        }
        b.0.resize(size, 0);
        self.put(&b.0)
    }

    /// An object header of version 1.
    fn header(&mut self, messages: &[(u8, Bytes)]) -> io::Result<u64> {
        let mut body = Bytes::default();
        for (kind, message) in messages {
            let len = aligned(message.0.len());
            if len > usize::from(u16::MAX) {
                return Err(io::Error::other(format!("an attribute of {len} bytes does not fit an HDF5 object header")));
            }
            body.u8s(&[*kind, 0]).u16(len).u8s(&[0; 4]).raw(&message.0).pad();
        }
        let mut b = Bytes::default();
        b.u8s(&[1, 0]).u16(messages.len()).u32(1).u32(body.0.len()).u32(0).raw(&body.0);
        Ok(self.put(&b.0))
    }
}

const DATASPACE: u8 = 0x01;
const DATATYPE: u8 = 0x03;
const FILL_VALUE: u8 = 0x05;
const LAYOUT: u8 = 0x08;
const ATTRIBUTE: u8 = 0x0c;
const SYMBOL_TABLE: u8 = 0x11;

/// A dataspace message: the lengths of the axes, none for a single value.
fn simple(b: &mut Bytes, shape: &[usize]) {
    b.u8s(&[1, shape.len() as u8]).u8s(&[0; 6]);
    for &d in shape {
        b.u64(d as u64);
    }
}

/// A datatype message of a little-endian IEEE float: sign, exponent and mantissa by place and width, exponent bias.
fn float(b: &mut Bytes, dtype: DType) {
    let (bits, exponent, mantissa, bias) = match dtype {
        DType::F32 => (32, 8, 23, 127),
        DType::F64 => (64, 11, 52, 1023),
        DType::Bf16 => (16, 8, 7, 127),
    };
    b.u8s(&[0x11, 0x20, bits - 1, 0]).u32(usize::from(bits) / 8);
    b.u16(0).u16(bits.into()).u8s(&[mantissa, exponent, 0, mantissa]).u32(bias);
}
