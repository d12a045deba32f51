//! Every file of a listing read and decoded, once, on all cores: into memory, into a cache file, or only to be looked at.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::data::catalog::{Catalog, Looked};
use crate::data::dataset::{Dataset, Options, Pixels, Store, level, sha256_hex};
use crate::data::decode::{Rgb, decode, read_file};
use crate::data::listing::Listing;
use crate::data::memory;
use crate::data::pixel_cache::{Builder, Key, Mapped, Record};
use crate::data::pixel_room::make_room;
use crate::data::portrait::Portrait;
use crate::data::resize::resize;
use crate::error::{Error, Result};

/// Where decoded pixels are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Keep {
    /// In memory if they fit, otherwise on disk.
    #[default]
    Auto,
    Memory,
    /// In a mapped cache file, which a later run finds again.
    Disk,
}

impl Keep {
    /// All ways.
    pub const ALL: [Keep; 3] = [Keep::Auto, Keep::Memory, Keep::Disk];
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Keep::Auto => "auto",
            Keep::Memory => "memory",
            Keep::Disk => "disk",
        })
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Keep::ALL.into_iter().find(|k| k.to_string() == name);
        known.ok_or_else(|| format!("{name:?} is none of {}", Keep::ALL.map(|k| k.to_string()).join(", ")))
    }
}

/// How a dataset is loaded.
#[derive(Clone, Debug)]
pub struct Loading {
    /// What becomes of an image.
    pub options: Options,
    /// Where the pixels go.
    pub keep: Keep,
    /// The folder of cache files; `pixels` in the user's cache directory if `None`.
    pub cache_dir: Option<PathBuf>,
    /// Bytes that the files of that folder may take together; this run's own is written in any case.
    pub limit: u64,
    /// Bytes of memory that something else is going to need.
    pub reserve: u64,
    /// Whether files that cannot be read are left out; otherwise they are an error.
    pub skip_bad: bool,
}

impl Loading {
    /// Wherever there is room, bad files being an error.
    pub fn new(options: Options) -> Loading {
        Loading { options, keep: Keep::Auto, cache_dir: None, limit: u64::MAX, reserve: 0, skip_bad: false }
    }

    fn folder(&self) -> Result<PathBuf> {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let user = || set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        let folder = self.cache_dir.clone().or_else(|| user().map(|cache| cache.join("defrost/pixels")));
        folder.ok_or_else(|| Error::input("no folder for the pixel cache: HOME is not set").advise("name one with --cache-dir DIR"))
    }

    /// Whether so many bytes go into memory.
    fn fits(&self, bytes: u64) -> bool {
        match self.keep {
            Keep::Memory => true,
            Keep::Disk => false,
            // A tenth stays free for everything else that runs.
            Keep::Auto => memory::available().is_none_or(|free| bytes + self.reserve <= free / 10 * 9),
        }
    }
}

/// What is being done with the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading, decoding, resizing.
    Decoding,
    /// Reading, to find the cache file that was made from these bytes.
    Reading,
    /// Checking a cache file.
    Verifying,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Decoding => "decoding",
            Stage::Reading => "reading",
            Stage::Verifying => "verifying",
        })
    }
}

/// Told after each file, from several threads: the stage, files done, files in all.
pub type Tell<'a> = &'a (dyn Fn(Stage, usize, usize) + Sync);

/// Reads and decodes every file without keeping pixels. Bad files are in the catalog, and no error.
pub fn look(listing: &Listing, exif: bool, tell: Tell) -> Catalog {
    let count = Count::new(Stage::Decoding, listing.files.len(), tell);
    let one = |index| {
        let looked = read(listing, index, exif).map(|(sha256, portrait, _)| (sha256, portrait));
        count.one();
        looked
    };
    Catalog::new(listing, (0..listing.files.len()).into_par_iter().map(one).collect()).0
}

/// Decodes the files of a listing, or finds the cache file that an earlier run made of them.
///
/// # Errors
/// Kind `Input`: a size of 0, files that cannot be read (where they are not skipped) or nothing but such files. Kind
/// `Machine`: too little memory, a disk that is full.
pub fn load(listing: &Listing, how: &Loading, tell: Tell) -> Result<Dataset> {
    if how.options.size == 0 {
        return Err(Error::input("an input size of 0 pixels"));
    }
    let bytes = Dataset::bytes_needed(listing.files.len(), &how.options);
    let Loaded { store, looked, mut warnings, notes } =
        if how.fits(bytes) { in_memory(listing, how, tell) } else { on_disk(listing, how, tell) }?;
    let (mut catalog, places) = Catalog::new(listing, looked);
    if !how.skip_bad || catalog.is_empty() {
        catalog.all_good(listing)?;
    }
    catalog.warnings.append(&mut warnings);
    Ok(Dataset::new(catalog, how.options, store, places, notes))
}

/// Pixels, what came of each file, and what a user should know: warnings, and notes that nothing follows from.
struct Loaded {
    store: Store,
    looked: Vec<Looked>,
    warnings: Vec<String>,
    notes: Vec<String>,
}

fn in_memory(listing: &Listing, how: &Loading, tell: Tell) -> Result<Loaded> {
    let (options, len) = (&how.options, how.options.image_len());
    let values = listing.files.len() * len;
    let (store, looked) = match options.pixels {
        Pixels::F32 => {
            let mut all = allocate::<f32>(values)?;
            let keep = |place: &mut [f32], pixels: Vec<f32>| place.copy_from_slice(&pixels);
            let looked = fill(listing, options, all.par_chunks_exact_mut(len), keep, tell);
            (Store::F32(all), looked)
        }
        Pixels::U8 => {
            let mut all = allocate::<u8>(values)?;
            let keep = |place: &mut [u8], pixels: Vec<f32>| place.iter_mut().zip(pixels).for_each(|(p, v)| *p = level(v));
            let looked = fill(listing, options, all.par_chunks_exact_mut(len), keep, tell);
            (Store::U8(all), looked)
        }
    };
    Ok(Loaded { store, looked, warnings: Vec::new(), notes: Vec::new() })
}

/// Decodes every file into its place.
fn fill<'a, T: Send + 'a>(
    listing: &Listing,
    options: &Options,
    places: impl IndexedParallelIterator<Item = &'a mut [T]>,
    keep: impl Fn(&mut [T], Vec<f32>) + Sync,
    tell: Tell,
) -> Vec<Looked> {
    let count = Count::new(Stage::Decoding, listing.files.len(), tell);
    let one = |(index, place): (usize, &mut [T])| {
        let looked = sized(listing, index, options).map(|(sha256, portrait, pixels)| {
            keep(place, pixels);
            (sha256, portrait)
        });
        count.one();
        looked
    };
    places.enumerate().map(one).collect()
}

fn on_disk(listing: &Listing, how: &Loading, tell: Tell) -> Result<Loaded> {
    let Options { size, resize, pixels, exif } = how.options;
    let (folder, images) = (how.folder()?, listing.files.len());
    let key = Key::new(&format!("{size}-{resize}-{pixels}{}", if exif { "-exif" } else { "" }), images);
    let image_bytes = Dataset::bytes_needed(1, &how.options) as usize;
    let mut warnings = Vec::new();
    if key.any_in(&folder) {
        let digest = key.digest(&hashes(listing, tell));
        let path = key.path(&folder, &digest);
        if path.exists() {
            let count = Count::new(Stage::Verifying, images, tell);
            match Mapped::open(&path, &key, &digest, image_bytes, || count.one()) {
                Ok((mapped, records)) => {
                    let looked = recall(listing, &records, exif);
                    return Ok(Loaded { store: Store::Mapped(mapped), looked, warnings, notes: Vec::new() });
                }
                Err(why) => warnings.push(format!("the pixel cache {} was damaged ({why}) and is made anew", path.display())),
            }
        }
    }
    let builder = Builder::new(&folder, images, image_bytes)?;
    let notes = make_room(&folder, (images * image_bytes) as u64, how.limit).into_iter().collect();
    let count = Count::new(Stage::Decoding, images, tell);
    let one = |index| -> Result<(Looked, Record)> {
        let done = match sized(listing, index, &how.options) {
            Ok((sha256, portrait, values)) => {
                let crc = match pixels {
                    Pixels::F32 => builder.put(index, bytemuck::cast_slice(&values))?,
                    Pixels::U8 => builder.put(index, &values.iter().map(|&v| level(v)).collect::<Vec<u8>>())?,
                };
                let record = Record::new(&sha256, &portrait, crc);
                (Ok((sha256, portrait)), record)
            }
            Err(e) => (Err(e), Record::bad()),
        };
        count.one();
        Ok(done)
    };
    let (looked, records): (Vec<Looked>, Vec<Record>) =
        (0..images).into_par_iter().map(one).collect::<Result<Vec<_>>>()?.into_iter().unzip();
    if !how.skip_bad || looked.iter().all(Result::is_err) {
        Catalog::new(listing, looked.clone()).0.all_good(listing)?;
    }
    let hash = |looked: &Looked, index| looked.as_ref().map_or_else(|_| hash_of(listing, index), |(sha256, _)| sha256.clone());
    let all: Vec<String> = looked.iter().enumerate().map(|(index, looked)| hash(looked, index)).collect();
    let store = Store::Mapped(builder.finish(&key, &key.digest(&all), &records)?);
    Ok(Loaded { store, looked, warnings, notes })
}

/// What was found when the cache file was made; only why a file is bad is found out again.
fn recall(listing: &Listing, records: &[Record], exif: bool) -> Vec<Looked> {
    let again = |index| read(listing, index, exif).map(|(sha256, portrait, _)| (sha256, portrait));
    records.par_iter().enumerate().map(|(index, record)| record.read().map_or_else(|| again(index), Ok)).collect()
}

fn hashes(listing: &Listing, tell: Tell) -> Vec<String> {
    let count = Count::new(Stage::Reading, listing.files.len(), tell);
    let one = |index| {
        let hash = hash_of(listing, index);
        count.one();
        hash
    };
    (0..listing.files.len()).into_par_iter().map(one).collect()
}

/// SHA-256 of a file's bytes; a word where there are none to be had.
fn hash_of(listing: &Listing, index: usize) -> String {
    read_file(&listing.full_path(index)).map_or_else(|_| "unreadable".into(), |bytes| sha256_hex(&bytes))
}

fn read(listing: &Listing, index: usize, exif: bool) -> Result<(String, Portrait, Rgb)> {
    let bytes = read_file(&listing.full_path(index))?;
    let rgb = decode(&bytes, exif)?;
    Ok((sha256_hex(&bytes), Portrait::of(&bytes, &rgb)?, rgb))
}

fn sized(listing: &Listing, index: usize, options: &Options) -> Result<(String, Portrait, Vec<f32>)> {
    let (sha256, portrait, rgb) = read(listing, index, options.exif)?;
    Ok((sha256, portrait, resize(&rgb, options.size, options.size, options.resize)))
}

/// Zeros, or an error that says how many bytes were missing.
fn allocate<T: Clone + Default>(values: usize) -> Result<Vec<T>> {
    let bytes = (values * size_of::<T>()) as u64;
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let refuse = |why: String| {
        Error::machine(format!("the pixels take {:.1} GiB of memory, {why}", gib(bytes)))
            .advise("--pixel-cache disk keeps them in a file; --pixels u8 takes a quarter, a smaller --input-size less still")
    };
    if let Some(free) = memory::available().filter(|&free| bytes > free) {
        return Err(refuse(format!("{:.1} GiB are free", gib(free))));
    }
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(values).map_err(|_| refuse("which the system does not give".into()))?;
    zeros.resize(values, T::default());
    Ok(zeros)
}

/// Counts files of a stage and tells.
struct Count<'a> {
    stage: Stage,
    done: AtomicUsize,
    total: usize,
    tell: Tell<'a>,
}

impl<'a> Count<'a> {
    fn new(stage: Stage, total: usize, tell: Tell<'a>) -> Count<'a> {
        Count { stage, done: AtomicUsize::new(0), total, tell }
    }

    fn one(&self) {
        (self.tell)(self.stage, self.done.fetch_add(1, Ordering::Relaxed) + 1, self.total);
    }
}

#[cfg(test)]
mod tests;
