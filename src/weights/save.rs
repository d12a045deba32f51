//! Writing safetensors: our own header, because the reference writer sorts tensors and pads as it likes, and a file that is
//! either old or new, never half.

use super::format::{KEY, Metadata};
use crate::base::DType;
use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A tensor to be written: little-endian numbers in row-major order.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub bytes: &'a [u8],
}

/// Writes a model file. The tensors come in the order of the data: all parameters in graph order, then all moving
/// statistics in graph order.
///
/// # Errors
/// A number that is not finite (the tensor is named and nothing is written), or what the disk says.
pub fn save<'a>(path: impl AsRef<Path>, metadata: &Metadata, tensors: impl IntoIterator<Item = Entry<'a>>, dtype: DType) -> Result<()> {
    save_tensors(path, &[(KEY, &metadata.to_json())], tensors.into_iter().map(|tensor| (tensor, dtype)))
}

/// Writes tensors of any number types with any metadata texts, under the same guarantees as [`save`].
///
/// # Errors
/// See [`save`]; also a tensor whose bytes do not fit its shape, or two of one name.
pub fn save_tensors<'a>(
    path: impl AsRef<Path>,
    metadata: &[(&str, &str)],
    tensors: impl IntoIterator<Item = (Entry<'a>, DType)>,
) -> Result<()> {
    let path = path.as_ref();
    let tensors: Vec<(Entry, DType)> = tensors.into_iter().collect();
    let mut names = std::collections::HashSet::new();
    for &(tensor, dtype) in &tensors {
        let wrong = |what: String| Err(Error::internal(what).at(tensor.name).at(path.display()));
        if tensor.bytes.len() != tensor.shape.iter().product::<usize>() * dtype.size() {
            return wrong(format!("{} bytes do not fit shape {:?} of {dtype}", tensor.bytes.len(), tensor.shape));
        }
        if !names.insert(tensor.name) {
            return wrong("two tensors have this name".into());
        }
        if let Some(position) = not_finite(tensor.bytes, dtype) {
            let what = format!("element {position} is not a finite number; the file was not written");
            return Err(Error::input(what).at(tensor.name).at(path.display()).advise("training has diverged: try a smaller --lr"));
        }
    }
    let header = header(metadata, &tensors);
    replace_file(path, |file| {
        file.write_all(&header)?;
        tensors.iter().try_for_each(|(tensor, _)| file.write_all(tensor.bytes))
    })
}

/// The position of the first number that is infinite or not a number.
fn not_finite(bytes: &[u8], dtype: DType) -> Option<usize> {
    match dtype {
        DType::F64 => bytes.as_chunks::<8>().0.iter().position(|b| !f64::from_le_bytes(*b).is_finite()),
        DType::F32 => bytes.as_chunks::<4>().0.iter().position(|b| !f32::from_le_bytes(*b).is_finite()),
        DType::Bf16 => bytes.as_chunks::<2>().0.iter().position(|b| !half::bf16::from_le_bytes(*b).is_finite()),
    }
}

/// Eight bytes of length, JSON with the tensors in the order of the data, spaces up to a multiple of 64.
fn header(metadata: &[(&str, &str)], tensors: &[(Entry, DType)]) -> Vec<u8> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let texts: Vec<String> = metadata.iter().map(|(key, text)| format!("{}:{}", quoted(key), quoted(text))).collect();
    let mut json = format!("{{\"__metadata__\":{{{}}}", texts.join(","));
    let mut start = 0;
    for (tensor, dtype) in tensors {
        let end = start + tensor.bytes.len();
        let (name, shape) = (quoted(tensor.name), tensor.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
        let dtype = dtype.to_string().to_uppercase();
        json += &format!(",{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{start},{end}]}}");
        start = end;
    }
    json.push('}');
    let padding = (8 + json.len()).next_multiple_of(64) - 8 - json.len();
    json.extend(std::iter::repeat_n(' ', padding));
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.into_bytes());
    bytes
}

/// Replaces a file by what `fill` writes, all or nothing: a temporary file in the same folder, synced, renamed over the old
/// one, and the folder synced, so that a crash at any moment leaves the old file or the new one. A link stays a link: what it
/// leads to is replaced. What is no file, as a pipe or `/dev/stdout`, is written to.
///
/// # Errors
/// What the disk says; the temporary file is then removed and the old file untouched.
pub fn replace_file(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let failed = |e: io::Error| Error::io(path, &e);
    // Where there is nothing yet, or a link that leads nowhere, the name itself is made.
    let target = fs::canonicalize(path).unwrap_or(path.into());
    if fs::metadata(&target).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let mut stream = BufWriter::new(File::options().write(true).open(&target).map_err(failed)?);
        return fill(&mut stream).and_then(|()| stream.flush()).map_err(failed);
    }
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = temporary_beside(&target, folder);
    let written = File::create(&temporary).and_then(|file| {
        let mut file = BufWriter::with_capacity(1 << 20, file);
        fill(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, &target)
    });
    if let Err(error) = written {
        // The first error is the one to report; that nothing was left behind is a courtesy.
        let _ = fs::remove_file(&temporary);
        return Err(failed(error));
    }
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::io(folder, &e))?;
    }
    Ok(())
}

/// Removes what writers that were killed left in a folder. Nobody may be writing there.
///
/// # Errors
/// What the disk says.
pub fn remove_leftovers(folder: &Path) -> Result<()> {
    let failed = |e: io::Error| Error::io(folder, &e);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if is_leftover(&entry.file_name().to_string_lossy()) {
            fs::remove_file(entry.path()).map_err(|e| Error::io(entry.path(), &e))?;
        }
    }
    Ok(())
}

/// Whether a file's name is one that [`replace_file`] gives to what is not finished: `.NAME.PROCESS-COUNT.tmp`.
pub fn is_leftover(name: &str) -> bool {
    let inner = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
    let numbers = inner.and_then(|inner| inner.rsplit_once('.')).and_then(|(_, numbers)| numbers.split_once('-'));
    numbers.is_some_and(|(process, count)| process.parse::<u32>().is_ok() && count.parse::<u64>().is_ok())
}

/// A hidden name that no other writer of this or another process uses.
fn temporary_beside(path: &Path, folder: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    folder.join(format!(".{name}.{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::super::format::{ModelFile, sample};
    use super::super::open::TensorFile;
    use super::*;
    use crate::error::Kind;

    /// A folder of its own that goes away with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("defrost-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }
        fn at(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn write(path: &Path, kernel: &[f32]) -> Result<()> {
        let (kernel, bias) = (floats(kernel), floats(&[5.0, -6.0]));
        let kernel = Entry { name: "z/kernel", shape: &[2, 2], bytes: &kernel };
        let bias = Entry { name: "a/bias", shape: &[2], bytes: &bias };
        save(path, &sample(), [kernel, bias], DType::F32)
    }

    #[test]
    fn what_is_written_is_read_in_the_same_order_from_a_multiple_of_64() {
        let folder = Folder::new("roundtrip");
        let path = folder.at("m.safetensors");
        write(&path, &[1.0, 2.0, 3.0, 4.0]).unwrap();
        let file = ModelFile::open(&path).unwrap();
        assert_eq!(file.metadata(), &sample());
        assert_eq!(file.tensors().names(), ["z/kernel", "a/bias"]);
        assert_eq!(file.tensors().data_offset() % 64, 0);
        let (kernel, bias) = (file.tensor("z/kernel").unwrap(), file.tensor("a/bias").unwrap());
        assert_eq!((kernel.shape, kernel.to_f32()), (&[2, 2][..], vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!(kernel.offset, file.tensors().data_offset());
        assert_eq!(bias.offset, kernel.offset + 16);
        assert_eq!(*bias.bytes_as(DType::F64), [5f64.to_le_bytes(), (-6f64).to_le_bytes()].concat());

        // The reference reader agrees, and equal contents make equal bytes.
        let bytes = fs::read(&path).unwrap();
        let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(reference.tensor("a/bias").unwrap().data(), floats(&[5.0, -6.0]));
        let again = folder.at("again.safetensors");
        write(&again, &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(bytes, fs::read(&again).unwrap());
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_number_that_is_not_finite_leaves_the_old_file() {
        let folder = Folder::new("finite");
        let path = folder.at("m.safetensors");
        write(&path, &[1.0; 4]).unwrap();
        let before = fs::read(&path).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let error = write(&path, &[1.0, bad, 0.0, 0.0]).unwrap_err().to_string();
            assert!(error.contains("m.safetensors: z/kernel: element 1"), "{error}");
        }
        let failed = replace_file(&path, |f| f.write_all(b"half").and(Err(io::ErrorKind::StorageFull.into()))).unwrap_err();
        assert_eq!(failed.kind(), Kind::Machine);
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_links_and_what_is_no_file_is_never_replaced() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let folder = Folder::new("links");
        let (file, link, socket) = (folder.at("file"), folder.at("link"), folder.at("socket"));
        fs::write(&file, "old").unwrap();
        symlink(&file, &link).unwrap();
        replace_file(&link, |f| f.write_all(b"new")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && fs::read(&file).unwrap() == b"new");
        // A socket cannot be opened; as a pipe it would be written to.
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        replace_file(&socket, |f| f.write_all(b"new")).unwrap_err();
        assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 3);
    }

    #[test]
    fn a_damaged_file_is_refused_with_the_place_of_the_damage() {
        let folder = Folder::new("damage");
        let path = folder.at("m.safetensors");
        write(&path, &[1.0; 4]).unwrap();
        let good = fs::read(&path).unwrap();
        // The error of opening these bytes as a model.
        let error = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let error = ModelFile::open(&path).unwrap_err();
            assert_eq!(error.kind(), Kind::Input);
            assert!(error.to_string().contains("m.safetensors"), "{error}");
            error.to_string()
        };
        for len in 0..good.len() {
            error(&good[..len]);
        }
        assert!(error(&good[..good.len() - 1]).contains("a/bias: the file is truncated"));
        assert!(error(&good[..good.len() - 9]).contains("z/kernel: the file is truncated"));
        assert!(error(&[&good[..], &[0]].concat()).contains("25 bytes of data, expected 24"));
        assert!(error(b"\x89HDF\r\n\x1a\nmore").contains("`defrost import FILE"));
        assert!(error(b"no model at all, only text").contains("not a safetensors"));

        let text = |from: &str, to: &str| {
            let text: Vec<u8> = good.clone();
            let at = text.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            [&text[..at], to.as_bytes(), &text[at + from.len()..]].concat()
        };
        assert!(error(&text("\"F32\"", "\"I32\"")).contains("z/kernel: has elements of type I32"));
        assert!(error(&text("defrost", "grinder")).contains("not a defrost model"));
        assert!(error(&text("[0,16]", "[0,12]")).contains("m.safetensors"));
        assert!(error(&text("\\\"input_size\\\":224", "\\\"input_size\\\":0  ")).contains("not positive"));
    }

    #[test]
    fn a_missing_file_or_tensor_is_named() {
        let folder = Folder::new("missing");
        let error = TensorFile::open(folder.at("none.safetensors")).unwrap_err();
        assert!(error.to_string().contains("none.safetensors"), "{error}");
        assert!(ModelFile::open(&folder.0).unwrap_err().to_string().ends_with("is a folder, expected a safetensors file"));
        // A run's folder: which of its files is meant is said.
        fs::write(folder.0.join("best.safetensors"), "").unwrap();
        let advice = format!("the model of this run is {}", folder.0.join("best.safetensors").display());
        assert!(ModelFile::open(&folder.0).unwrap_err().to_string().ends_with(&advice));
        let path = folder.at("m.safetensors");
        write(&path, &[1.0; 4]).unwrap();
        let error = ModelFile::open(&path).unwrap().tensor("b/kernel").unwrap_err().to_string();
        assert!(error.contains("m.safetensors: b/kernel: the file has no such tensor"), "{error}");
    }
}
