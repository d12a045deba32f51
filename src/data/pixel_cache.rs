//! Decoded pixels in a mapped file, for collections that do not fit into memory.
//!
//! The file is found by what it was made from: its name has the SHA-256 of every image's bytes and of how they became
//! pixels. It is written beside its place, synced and renamed, so that a reader sees all of it or nothing, and two
//! programs that build the same file do each other no harm. Every part has a checksum, checked before a pixel is used.
//!
//! ```text
//! Header | n Records | zeros up to a multiple of 4096 | n images, [size, size, 3] each, f32 or u8
//! ```
//!
//! Numbers are the machine's own; a file from a machine of the other byte order counts as damaged. A bad image has a
//! record and a place too, so that an image's place does not depend on the others.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytemuck::{Pod, Zeroable};
use memmap2::Mmap;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::data::phash::Fingerprint;
use crate::data::portrait::Portrait;
use crate::data::sniff::Format;
use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"dfpixels";
/// Raised when the layout changes, or what decoding and resizing make of an image.
const VERSION: u32 = 1;
const PAGE: usize = 4096;
/// An unfinished file that nobody has written to for so long was left by a program that is gone.
const STALE: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: u32,
    /// 0x0102_0304 in the machine's byte order.
    order: u32,
    images: u64,
    image_bytes: u64,
    key: [u8; 32],
    /// CRC-32 of this header, with zeros here, and the records.
    crc: u32,
    zero: u32,
}

/// What is kept of one image besides its pixels.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Record {
    sha256: [u8; 32],
    hash: u64,
    width: u32,
    height: u32,
    /// CRC-32 of the pixels.
    crc: u32,
    /// A position in [`Format::ALL`].
    format: u8,
    orientation: u8,
    clipped: u8,
    /// 1 if the file was read, 0 if it is bad.
    read: u8,
    thumbnail: [u8; 1024],
}

impl Record {
    /// The record of an image that was read; `sha256` in hex, `crc` of its pixels.
    pub fn new(sha256: &str, portrait: &Portrait, crc: u32) -> Record {
        let mut record = Record {
            hash: portrait.fingerprint.hash,
            width: portrait.width as u32,
            height: portrait.height as u32,
            crc,
            format: Format::ALL.iter().position(|f| *f == portrait.format).unwrap_or(0) as u8,
            orientation: portrait.orientation,
            clipped: u8::from(portrait.clipped),
            read: 1,
            ..Record::zeroed()
        };
        let digits = |i: usize| sha256.get(2 * i..2 * i + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        record.sha256 = std::array::from_fn(|i| digits(i).unwrap_or(0));
        let length = record.thumbnail.len().min(portrait.fingerprint.thumbnail.len());
        record.thumbnail[..length].copy_from_slice(&portrait.fingerprint.thumbnail[..length]);
        record
    }

    /// The record of a file that cannot be read.
    pub fn bad() -> Record {
        Record::zeroed()
    }

    /// Hash in hex and portrait, unless the file was bad.
    pub fn read(&self) -> Option<(String, Portrait)> {
        let portrait = || Portrait {
            format: Format::ALL[usize::from(self.format) % Format::ALL.len()],
            width: self.width as usize,
            height: self.height as usize,
            orientation: self.orientation,
            clipped: self.clipped != 0,
            fingerprint: Fingerprint { hash: self.hash, thumbnail: self.thumbnail.to_vec() },
        };
        (self.read != 0).then(|| (hex(&self.sha256), portrait()))
    }
}

/// Bytes in hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The name under which pixels are found: `how` says how they were made, `hashes` of what, in order.
pub struct Key {
    /// How many images there are and how they were made, readable.
    stem: String,
    images: usize,
}

impl Key {
    /// The key of `images` images made in the way that `how` describes.
    pub fn new(how: &str, images: usize) -> Key {
        Key { stem: format!("{how}-{images}"), images }
    }

    /// Whether a folder holds any file of this many images made in this way; only then it is worth while to hash them.
    pub fn any_in(&self, folder: &Path) -> bool {
        let start = format!("{}-", self.stem);
        fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(|e| e.file_name().to_string_lossy().starts_with(&start)))
    }

    /// The digest of everything that decides the pixels.
    pub fn digest(&self, hashes: &[String]) -> [u8; 32] {
        let program = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
        let mut digest = Sha256::new();
        digest.update(format!("{program} {VERSION} {}\n", self.stem));
        hashes.iter().for_each(|hash| digest.update(format!("{hash}\n")));
        digest.finalize().into()
    }

    /// The path of the file in a folder.
    pub fn path(&self, folder: &Path, digest: &[u8; 32]) -> PathBuf {
        folder.join(format!("{}-{}.pixels", self.stem, hex(&digest[..8])))
    }
}

/// Where the pixels begin.
fn data_start(images: usize) -> usize {
    (size_of::<Header>() + images * size_of::<Record>()).next_multiple_of(PAGE)
}

/// The pixels of a finished file.
pub struct Mapped {
    map: Mmap,
    start: usize,
    image_bytes: usize,
    path: PathBuf,
}

impl Mapped {
    /// Opens a file and checks all of it, on all cores; `tell()` is called after each image.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn open(
        path: &Path,
        key: &Key,
        digest: &[u8; 32],
        image_bytes: usize,
        tell: impl Fn() + Sync,
    ) -> Result<(Mapped, Vec<Record>), String> {
        let file = File::open(path).map_err(|e| e.to_string())?;
        // Used now: others have to go first when room is needed. On a disk that is not written to it keeps its old time.
        let _ = file.set_modified(SystemTime::now());
        let map = map_file(&file).map_err(|e| e.to_string())?;
        let (images, start) = (key.images, data_start(key.images));
        if map.len() != start + images * image_bytes {
            return Err(format!("it has {} bytes, expected {}", map.len(), start + images * image_bytes));
        }
        let (head, records) = map[..size_of::<Header>() + images * size_of::<Record>()].split_at(size_of::<Header>());
        let header: Header = bytemuck::pod_read_unaligned(head);
        let expected = new_header(images, image_bytes, digest);
        if bytemuck::bytes_of(&header) != bytemuck::bytes_of(&Header { crc: header.crc, ..expected })
            || header.crc != checksum(&expected, records)
        {
            return Err("its header is not what was written".into());
        }
        let records: Vec<Record> = bytemuck::pod_collect_to_vec(records);
        let wrong = records.par_iter().zip(map[start..].par_chunks_exact(image_bytes)).filter(|(record, pixels)| {
            tell();
            record.read != 0 && record.crc != crc32fast::hash(pixels)
        });
        match wrong.count() {
            0 => Ok((Mapped { map, start, image_bytes, path: path.into() }, records)),
            n => Err(format!("the pixels of {n} images are not what was written")),
        }
    }

    /// The bytes of an image at its place, which must be one of the file's; they begin at a multiple of four.
    pub fn image(&self, place: usize) -> &[u8] {
        &self.map[self.start + place * self.image_bytes..][..self.image_bytes]
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Maps a file for reading.
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is only read, as bytes, for which every pattern is valid. Cache files are finished before they get
    // their name, replaced only by renaming and never written in place; a foreign program that shortens the file
    // meanwhile ends this process with SIGBUS, as with any mapped file.
    unsafe { Mmap::map(file) }
}

fn new_header(images: usize, image_bytes: usize, key: &[u8; 32]) -> Header {
    let (images, image_bytes) = (images as u64, image_bytes as u64);
    Header { magic: MAGIC, version: VERSION, order: 0x0102_0304, images, image_bytes, key: *key, crc: 0, zero: 0 }
}

fn checksum(header: &Header, records: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(bytemuck::bytes_of(header));
    crc.update(records);
    crc.finalize()
}

/// A file in the making. Dropped before its end, it leaves nothing behind.
pub struct Builder {
    file: Mutex<File>,
    folder: PathBuf,
    temporary: PathBuf,
    images: usize,
    image_bytes: usize,
}

impl Builder {
    /// Starts a file for `images` images of `image_bytes` bytes each in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// What the disk says.
    pub fn new(folder: &Path, images: usize, image_bytes: usize) -> Result<Builder> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(folder).map_err(|e| disk(folder, &e))?;
        sweep(folder);
        let temporary = folder.join(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(|e| disk(folder, &e))?;
        // Tells other programs that this file has an owner.
        let _ = file.try_lock();
        Ok(Builder { file: Mutex::new(file), folder: folder.into(), temporary, images, image_bytes })
    }

    /// Writes the pixels of an image at its place and returns their checksum, which belongs into its record. Written, and
    /// not stored through a map: a full disk is then an error and not a signal.
    ///
    /// # Errors
    /// What the disk says.
    pub fn put(&self, place: usize, pixels: &[u8]) -> Result<u32> {
        if place >= self.images || pixels.len() != self.image_bytes {
            return Err(Error::internal(format!("image {place} of {} bytes in a cache of other images", pixels.len())));
        }
        let crc = crc32fast::hash(pixels);
        self.write(data_start(self.images) + place * self.image_bytes, pixels)?;
        Ok(crc)
    }

    fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        file.seek(SeekFrom::Start(at as u64)).and_then(|_| file.write_all(bytes)).map_err(|e| disk(&self.folder, &e))
    }

    /// Completes the file under its name and maps it; `records` and their checksums are in the order of the places.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(self, key: &Key, digest: &[u8; 32], records: &[Record]) -> Result<Mapped> {
        let mut header = new_header(self.images, self.image_bytes, digest);
        header.crc = checksum(&header, bytemuck::cast_slice(records));
        self.write(size_of::<Header>(), bytemuck::cast_slice(records))?;
        self.write(0, bytemuck::bytes_of(&header))?;
        let path = key.path(&self.folder, digest);
        let file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        let length = data_start(self.images) + self.images * self.image_bytes;
        let done = file.set_len(length as u64).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&self.temporary, &path));
        done.and_then(|()| File::open(&path)).and_then(|file| map_file(&file)).map_err(|e| disk(&path, &e)).map(|map| Mapped {
            map,
            start: data_start(self.images),
            image_bytes: self.image_bytes,
            path,
        })
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        // After `finish` there is no such file any more.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// An error of the disk, with what helps.
fn disk(path: &Path, e: &std::io::Error) -> Error {
    Error::machine(format!("the pixel cache cannot be written: {e}"))
        .at(path.display())
        .advise("--cache-dir DIR puts it elsewhere; --pixels u8 and a smaller --input-size make it smaller")
}

/// Removes unfinished files whose programs are gone: old and locked by nobody.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let old = || entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| t.elapsed().is_ok_and(|age| age > STALE));
        let free = || File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if name.starts_with('.') && name.ends_with(".tmp") && old() && free() {
            let _ = fs::remove_file(entry.path());
        }
    }
}
