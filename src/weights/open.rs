//! Reading safetensors: mapped, validated before anything is believed, every error with the file's name.

use crate::base::DType;
use crate::error::{Error, Result};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata as Header, SafeTensorError};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Bytes of a header: those of the networks here have a tenth of a million.
const LONGEST_HEADER: u64 = 4 << 20;

/// A mapped safetensors file whose tensors are all f32 or f64.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    map: Mmap,
    header: Header,
    /// In the order of the data.
    names: Vec<String>,
    /// Positions in `names`.
    positions: HashMap<String, usize>,
    data_offset: usize,
}

/// One tensor of a file. The bytes are little-endian numbers in row-major order.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    pub name: &'a str,
    pub dtype: DType,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
    /// Where the bytes begin in the file.
    pub offset: usize,
}

impl Tensor<'_> {
    /// The elements as f32, rounded if the file holds f64.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            DType::F64 => self.f64s().map(|x| x as f32).collect(),
            _ => self.f32s().collect(),
        }
    }

    /// The elements as bytes of another float type.
    pub fn bytes_as(&self, dtype: DType) -> Cow<'_, [u8]> {
        match (self.dtype, dtype) {
            (from, to) if from == to => Cow::Borrowed(self.bytes),
            (DType::F32, DType::F64) => Cow::Owned(self.f32s().flat_map(|x| f64::from(x).to_le_bytes()).collect()),
            (_, DType::Bf16) => Cow::Owned(self.to_f32().into_iter().flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect()),
            _ => Cow::Owned(self.to_f32().into_iter().flat_map(f32::to_le_bytes).collect()),
        }
    }

    fn f32s(&self) -> impl Iterator<Item = f32> + '_ {
        self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))
    }

    fn f64s(&self) -> impl Iterator<Item = f64> + '_ {
        self.bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b))
    }
}

/// One tensor of a file that another program wrote, of any element type.
#[derive(Clone, Copy, Debug)]
pub struct AnyTensor<'a> {
    pub shape: &'a [usize],
    dtype: Dtype,
    bytes: &'a [u8],
}

impl AnyTensor<'_> {
    /// The elements of any float type as f32; f64 are rounded.
    ///
    /// # Errors
    /// Elements that are no floats, in words; the caller names the tensor.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let pairs = || self.bytes.as_chunks::<2>().0.iter().copied();
        Ok(match self.dtype {
            Dtype::F64 => self.bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
            Dtype::F32 => self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F16 => pairs().map(|b| half::f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => pairs().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect(),
            other => return Err(Error::input(format!("has elements of type {other:?}, expected floats"))),
        })
    }
}

impl TensorFile {
    /// Maps a file and checks its header: offsets in order and without gaps, sizes that fit shapes, the file's length, dtypes.
    ///
    /// # Errors
    /// See [`super::ModelFile::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let file = Self::open_any(path)?;
        for name in &file.names {
            file.tensor(name)?;
        }
        Ok(file)
    }

    /// Like [`TensorFile::open`], for files of other programs: tensors may be of any type and are read by [`TensorFile::any`].
    ///
    /// # Errors
    /// See [`super::ModelFile::open`].
    pub fn open_any(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(|e| Error::io(path, &e))?;
        let metadata = file.metadata().map_err(|e| Error::io(path, &e))?;
        if metadata.is_dir() {
            let error = Error::input("is a folder, expected a safetensors file").at(path.display());
            let best = path.join("best.safetensors");
            return Err(if best.is_file() { error.advise(format!("the model of this run is {}", best.display())) } else { error });
        }
        if !metadata.is_file() || metadata.len() < 8 {
            let found = if metadata.is_file() { "it is empty or nearly so" } else { "it is not a file" };
            return Err(Error::input(format!("is not a safetensors file: {found}")).at(path.display()));
        }
        let map = map(&file).map_err(|e| Error::io(path, &e))?;
        let declared = map.first_chunk().map_or(0, |len| u64::from_le_bytes(*len));
        if declared > LONGEST_HEADER && declared < metadata.len() {
            return Err(Error::input(format!("has a header of {declared} bytes; at most {LONGEST_HEADER} are read")).at(path.display()));
        }
        let (header_len, header) = SafeTensors::read_metadata(&map).map_err(|e| explain(&map, e).at(path.display()))?;
        let (names, data_offset) = (header.offset_keys(), 8 + header_len);
        let positions = names.iter().cloned().zip(0..).collect();
        Ok(TensorFile { path: path.to_path_buf(), file, map, header, names, positions, data_offset })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, to be mapped once more as the memory of a device.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Names of all tensors, in the order of their data.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Where the data begins in the file; a multiple of 64 in files that defrost wrote.
    pub fn data_offset(&self) -> usize {
        self.data_offset
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// A metadata text.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// A tensor by name.
    ///
    /// # Errors
    /// When there is none, or its elements are neither f32 nor f64.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let at = |what: String| Error::input(what).at(name).at(self.path.display());
        let (Some(info), Some(&position)) = (self.header.info(name), self.positions.get(name)) else {
            return Err(at("the file has no such tensor".into()));
        };
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            other => return Err(at(format!("has elements of type {other:?}, expected F32 or F64"))),
        };
        let (start, end) = info.data_offsets;
        let (offset, end) = (self.data_offset + start, self.data_offset + end);
        Ok(Tensor { name: &self.names[position], dtype, shape: &info.shape, bytes: &self.map[offset..end], offset })
    }

    /// A tensor of any type by name.
    ///
    /// # Errors
    /// When there is none.
    pub fn any(&self, name: &str) -> Result<AnyTensor<'_>> {
        let info = self.header.info(name).ok_or_else(|| self.error(name, "the file has no such tensor"))?;
        let (start, end) = info.data_offsets;
        Ok(AnyTensor { shape: &info.shape, dtype: info.dtype, bytes: &self.map[self.data_offset + start..self.data_offset + end] })
    }

    /// An error about a tensor of this file.
    pub fn error(&self, tensor: &str, what: impl Into<String>) -> Error {
        Error::input(what).at(tensor).at(self.path.display())
    }
}

/// Maps a whole file for reading.
///
/// # Errors
/// A file that cannot be opened, or that is a folder.
pub fn map_file(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let metadata = file.metadata().map_err(|e| Error::io(path, &e))?;
    match metadata.is_file() {
        true => map(&file).map_err(|e| Error::io(path, &e)),
        false => Err(Error::input("is not a file").at(path.display())),
    }
}

fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is only read, as bytes, for which every pattern is valid. Model files are replaced by renaming a
    // finished file over them and never written in place, so the mapped inode keeps its contents; a foreign program that
    // shortens the file meanwhile ends this process with SIGBUS, as with any mapped file.
    unsafe { Mmap::map(file) }
}

/// Says what is wrong with a file that is not valid safetensors.
fn explain(bytes: &[u8], error: SafeTensorError) -> Error {
    let import = "`defrost import FILE --out MODEL` makes a model of it";
    if bytes.starts_with(b"\x89HDF\r\n\x1a\n") {
        return Error::input("is an HDF5 file (Keras .h5), expected a safetensors model").advise(import);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        let pickle = bytes.windows(9).take(4096).any(|w| w == b"/data.pkl");
        let what = if pickle { "a PyTorch pickle" } else { "a zip archive (perhaps .keras)" };
        let advice = if pickle { "`defrost import FILE --out MODEL` says how to convert it" } else { import };
        return Error::input(format!("is {what}, expected a safetensors model")).advise(advice);
    }
    match error {
        SafeTensorError::MetadataIncompleteBuffer => wrong_length(bytes),
        SafeTensorError::InvalidOffset(name) => Error::input("its bytes overlap those of another tensor or leave a gap").at(name),
        SafeTensorError::InvalidHeaderLength => {
            let header = u64::from_le_bytes(bytes[..8].try_into().expect("at least eight bytes"));
            let what = format!("is truncated or not a safetensors file: a header of {header} bytes does not fit {} bytes", bytes.len());
            Error::input(what)
        }
        other => Error::input(format!("is not a safetensors file: {other}")),
    }
}

/// A header that is sound but asks for more or fewer bytes than there are: names the first tensor that is cut off.
fn wrong_length(bytes: &[u8]) -> Error {
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("at least eight bytes")) as usize;
    let data = bytes.len() - 8 - header;
    let tensors: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes[8..8 + header]).unwrap_or_default();
    let end_of = |tensor: &serde_json::Value| tensor["data_offsets"][1].as_u64().unwrap_or(0) as usize;
    let expected = tensors.values().map(end_of).max().unwrap_or(0);
    let cut = tensors.iter().filter(|(_, t)| end_of(t) > data).min_by_key(|(_, t)| end_of(t));
    match cut {
        Some((name, _)) => Error::input(format!("the file is truncated here: {data} bytes of data, expected {expected}")).at(name),
        None => Error::input(format!("has {data} bytes of data, expected {expected}")),
    }
}
