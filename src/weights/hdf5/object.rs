//! Object headers: the messages that make an address a group or a data set.

use super::bytes::Bytes;
use super::{File, damaged, unsupported};
use crate::error::Result;

pub const DATASPACE: u16 = 0x01;
pub const LINK_INFO: u16 = 0x02;
pub const DATATYPE: u16 = 0x03;
pub const LINK: u16 = 0x06;
pub const EXTERNAL_FILES: u16 = 0x07;
pub const LAYOUT: u16 = 0x08;
pub const FILTERS: u16 = 0x0b;
pub const ATTRIBUTE: u16 = 0x0c;
const CONTINUATION: u16 = 0x10;
pub const SYMBOL_TABLE: u16 = 0x11;
pub const ATTRIBUTE_INFO: u16 = 0x15;

/// Messages of an object, which version 1 counts in two bytes.
const MOST: usize = 1 << 16;

/// The message lies elsewhere, shared by several objects.
const SHARED: u8 = 0x02;

#[derive(Clone, Copy, Debug)]
struct Message<'a> {
    kind: u16,
    flags: u8,
    body: Bytes<'a>,
}

/// The messages of an object, in file order.
#[derive(Debug)]
pub struct Object<'a>(Vec<Message<'a>>);

impl<'a> Object<'a> {
    /// Reads the header at an address with all its continuations.
    pub fn read(file: &File<'a>, address: u64) -> Result<Self> {
        let mut b = file.from(address)?;
        let (framing, first) = if b.rest().starts_with(b"OHDR") {
            b.skip(4)?;
            version_2(&mut b)?
        } else {
            version_1(&mut b)?
        };
        let (mut messages, mut blocks) = (Vec::new(), vec![first]);
        while let Some(block) = blocks.pop() {
            framing.split(file, block, &mut messages, &mut blocks)?;
        }
        Ok(Object(messages))
    }

    /// The body of the first message of a kind.
    pub fn find(&self, kind: u16) -> Result<Option<Bytes<'a>>> {
        self.all(kind).next().transpose()
    }

    /// The bodies of all messages of a kind.
    pub fn all(&self, kind: u16) -> impl Iterator<Item = Result<Bytes<'a>>> {
        self.0.iter().filter(move |m| m.kind == kind).map(|m| match m.flags & SHARED {
            0 => Ok(m.body),
            _ => Err(unsupported(format!("a shared header message of kind {:#x}", m.kind))),
        })
    }
}

/// How messages follow each other in a block.
#[derive(Clone, Copy)]
enum Framing {
    Version1,
    /// Whether each message carries its creation order.
    Version2 {
        ordered: bool,
    },
}

/// Version, a reserved byte, number of messages, reference count, bytes of the first block, padding to eight.
fn version_1<'a>(b: &mut Bytes<'a>) -> Result<(Framing, Bytes<'a>)> {
    let version = b.u8()?;
    if version != 1 {
        return Err(damaged(format!("an object header of version {version}")));
    }
    b.skip(7)?;
    let len = b.u32()?;
    b.skip(4)?;
    Ok((Framing::Version1, Bytes::new(b.take(len as usize)?)))
}

fn version_2<'a>(b: &mut Bytes<'a>) -> Result<(Framing, Bytes<'a>)> {
    let (version, flags) = (b.u8()?, b.u8()?);
    if version != 2 {
        return Err(unsupported(format!("an object header of version {version}")));
    }
    // Four times, then the limits between compact and dense attributes.
    b.skip(if flags & 0x20 != 0 { 16 } else { 0 } + if flags & 0x10 != 0 { 4 } else { 0 })?;
    let len = b.uint(1 << (flags & 3))?;
    Ok((Framing::Version2 { ordered: flags & 0x04 != 0 }, Bytes::new(b.take_u64(len)?)))
}

impl Framing {
    /// Cuts a block into messages; blocks that continue it are added to `blocks`.
    fn split<'a>(self, file: &File<'a>, mut b: Bytes<'a>, messages: &mut Vec<Message<'a>>, blocks: &mut Vec<Bytes<'a>>) -> Result<()> {
        let prefix = match self {
            Framing::Version1 => 8,
            Framing::Version2 { ordered } => 4 + if ordered { 2 } else { 0 },
        };
        // What is shorter than a message's prefix is a gap.
        while b.len() >= prefix {
            file.burn(1)?;
            if messages.len() > MOST {
                return Err(damaged("an object of more messages than can be counted"));
            }
            let message = self.message(&mut b)?;
            if message.kind != CONTINUATION {
                messages.push(message);
                continue;
            }
            let mut at = message.body;
            let mut block = file.at(at.u64()?, at.u64()?)?;
            if let Framing::Version2 { .. } = self {
                if block.take(4)? != b"OCHK" {
                    return Err(damaged("an object header is continued where no OCHK is"));
                }
                // Without the checksum.
                block = Bytes::new(block.take(block.len().saturating_sub(4))?);
            }
            blocks.push(block);
        }
        Ok(())
    }

    fn message<'a>(self, b: &mut Bytes<'a>) -> Result<Message<'a>> {
        match self {
            Framing::Version1 => {
                let (kind, len, flags) = (b.u16()?, b.u16()?, b.u8()?);
                b.skip(3)?;
                Ok(Message { kind, flags, body: Bytes::new(b.take(len.into())?) })
            }
            Framing::Version2 { ordered } => {
                let (kind, len, flags) = (b.u8()?, b.u16()?, b.u8()?);
                b.skip(if ordered { 2 } else { 0 })?;
                Ok(Message { kind: kind.into(), flags, body: Bytes::new(b.take(len.into())?) })
            }
        }
    }
}
