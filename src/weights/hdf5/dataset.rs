//! Data sets: shape, element type and where the elements are.

use super::bytes::Bytes;
use super::chunks::Chunks;
use super::filters::Filter;
use super::object::{DATASPACE, DATATYPE, EXTERNAL_FILES, FILTERS, LAYOUT, Object};
use super::types::{Float, Type, count, shape};
use super::{File, damaged, unsupported};
use crate::error::{Error, Result};
use std::borrow::Cow;

/// A data set whose elements have not been read.
pub struct Dataset<'f, 'a> {
    file: &'f File<'a>,
    shape: Vec<u64>,
    kind: Type,
    /// Bytes of an element.
    size: usize,
    place: Place<'a>,
}

enum Place<'a> {
    Whole(Bytes<'a>),
    Chunks(Chunks),
    /// No byte was ever written.
    Nowhere,
}

impl<'f, 'a> Dataset<'f, 'a> {
    pub(super) fn open(file: &'f File<'a>, address: u64) -> Result<Self> {
        let object = Object::read(file, address)?;
        let part = |kind: u16, name: &str| object.find(kind)?.ok_or_else(|| damaged(format!("an object without {name}")));
        let Some(mut layout) = object.find(LAYOUT)? else {
            return Err(Error::input("is a group, expected a data set"));
        };
        if object.find(EXTERNAL_FILES)?.is_some() {
            return Err(Error::input("has its data in another file, which is refused"));
        }
        let (shape, (kind, size)) = (shape(&mut part(DATASPACE, "shape")?)?, Type::read(&mut part(DATATYPE, "type")?)?);
        let bytes = count(&shape)?.checked_mul(size as u64).ok_or_else(|| damaged("more bytes than can be counted"))?;
        let filters = object.find(FILTERS)?.map(Filter::read_all).transpose()?.unwrap_or_default();
        let place = place(file, &mut layout, &shape, size, bytes, filters)?;
        Ok(Dataset { file, shape, kind, size, place })
    }

    /// Lengths of the axes; none for a single value.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// What the elements are, in words: `f32`, `8-byte integers`.
    pub fn elements(&self) -> String {
        self.kind.name()
    }

    /// Checks that the elements are numbers that [`Dataset::read`] reads.
    ///
    /// # Errors
    /// Elements that are not floats, data that was never written.
    pub fn check(&self) -> Result<()> {
        match (&self.kind, &self.place) {
            (Type::Float { .. }, Place::Nowhere) => Err(Error::input("its data was never written")),
            (Type::Float { .. }, _) => Ok(()),
            (other, _) => Err(Error::input(format!("has {}, expected f32, f64 or f16", other.name()))),
        }
    }

    /// The elements as little-endian f32, rounded where they are f64. The memory it takes is what [`Dataset::shape`] says: look
    /// at that first. Borrowed from the file where it holds them in this form.
    ///
    /// # Errors
    /// See [`Dataset::check`]; also filters and chunk indices that are not supported, or a damaged file.
    pub fn read(&self) -> Result<Cow<'a, [u8]>> {
        self.check()?;
        let raw: Cow<[u8]> = match &self.place {
            Place::Whole(bytes) => Cow::Borrowed(bytes.rest()),
            Place::Chunks(chunks) => Cow::Owned(chunks.read(self.file, &self.shape, self.size)?),
            Place::Nowhere => Cow::default(),
        };
        let Type::Float { kind, big_endian } = self.kind else { return Ok(Cow::default()) };
        Ok(match (kind, big_endian) {
            (Float::F32, false) => raw,
            (Float::F32, true) => each(&raw, |b: [u8; 4]| f32::from_be_bytes(b)),
            (Float::F64, false) => each(&raw, |b: [u8; 8]| f64::from_le_bytes(b) as f32),
            (Float::F64, true) => each(&raw, |b: [u8; 8]| f64::from_be_bytes(b) as f32),
            (Float::F16, false) => each(&raw, |b: [u8; 2]| half::f16::from_le_bytes(b).to_f32()),
            (Float::F16, true) => each(&raw, |b: [u8; 2]| half::f16::from_be_bytes(b).to_f32()),
            (Float::Bf16, false) => each(&raw, |b: [u8; 2]| half::bf16::from_le_bytes(b).to_f32()),
            (Float::Bf16, true) => each(&raw, |b: [u8; 2]| half::bf16::from_be_bytes(b).to_f32()),
        })
    }
}

/// Converts element by element.
fn each<'a, const N: usize>(raw: &[u8], to_f32: impl Fn([u8; N]) -> f32) -> Cow<'a, [u8]> {
    raw.as_chunks::<N>().0.iter().flat_map(|&b| to_f32(b).to_le_bytes()).collect()
}

/// Reads a layout message. Whole data must lie in the file with the length that shape and type say.
fn place<'a>(file: &File<'a>, b: &mut Bytes<'a>, shape: &[u64], size: usize, bytes: u64, filters: Vec<Filter>) -> Result<Place<'a>> {
    let version = b.u8()?;
    if !(3..=4).contains(&version) {
        return Err(unsupported(format!("a data layout of version {version}")));
    }
    let whole = |stored: u64, data: Result<Bytes<'a>>| match stored == bytes {
        true => data.map(Place::Whole),
        false => Err(damaged(format!("shape {shape:?} takes {bytes} bytes, {stored} are stored"))),
    };
    match b.u8()? {
        0 => {
            let stored = b.u16()?;
            whole(stored.into(), b.take(stored.into()).map(Bytes::new))
        }
        1 => {
            let (address, stored) = (b.address()?, b.u64()?);
            match address {
                Some(address) => whole(stored, file.at(address, stored)),
                None if bytes == 0 => Ok(Place::Whole(Bytes::new(&[]))),
                None => Ok(Place::Nowhere),
            }
        }
        2 => Ok(Chunks::open(version, b, shape, size, filters)?.map_or(Place::Nowhere, Place::Chunks)),
        3 => Err(Error::input("is a virtual data set, which is refused")),
        other => Err(damaged(format!("a data layout of class {other}"))),
    }
}
