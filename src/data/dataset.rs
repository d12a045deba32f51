//! All images of a listing, decoded once and held at the network's size.
//!
//! Decoding costs more than a frozen step and happens once; afterwards an epoch reads memory. Whether that memory is
//! there is asked before the first file is read.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::data::decode::{decode, read_file};
use crate::data::listing::Listing;
use crate::data::resize::{Resize, resize};
use crate::error::{Error, Result};

/// How pixels are held: 4 bytes a channel as Keras has them, or 1 byte, rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pixels {
    /// f32, exactly what the resize gave.
    #[default]
    F32,
    /// u8, rounded to the nearest level: a quarter of the memory, at most half a level away.
    U8,
}

impl Pixels {
    /// Both ways.
    pub const ALL: [Pixels; 2] = [Pixels::F32, Pixels::U8];
}

impl fmt::Display for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pixels::F32 => "f32",
            Pixels::U8 => "u8",
        })
    }
}

impl FromStr for Pixels {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Pixels::ALL.into_iter().find(|p| p.to_string() == name);
        known.ok_or_else(|| format!("{name:?} is none of {}", Pixels::ALL.map(|p| p.to_string()).join(", ")))
    }
}

/// How a dataset is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Side of the square that the network takes, in pixels.
    pub size: usize,
    /// How images are brought to it.
    pub resize: Resize,
    /// How they are held.
    pub pixels: Pixels,
    /// Whether EXIF orientation is applied; Keras ignores it.
    pub exif: bool,
}

impl Options {
    /// Keras' way at the given size.
    pub fn keras(size: usize) -> Self {
        Options { size, resize: Resize::Keras, pixels: Pixels::F32, exif: false }
    }

    /// Values of one image: size * size * 3.
    pub fn image_len(&self) -> usize {
        self.size * self.size * 3
    }
}

/// `[n, size, size, 3]` pixels, 0..=255.
enum Store {
    F32(Vec<f32>),
    U8(Vec<u8>),
}

/// Images at the network's size with what is known of each; all lists are in the order that was asked for.
pub struct Dataset {
    /// Class names; a label is an index into this.
    pub classes: Vec<String>,
    /// One label per image.
    pub labels: Vec<usize>,
    /// Paths relative to the listing's root, `/` between the parts.
    pub paths: Vec<String>,
    /// SHA-256 of each file's bytes, in hex.
    pub sha256: Vec<String>,
    /// What a user should know although it is no error.
    pub warnings: Vec<String>,
    options: Options,
    store: Store,
}

/// What is learned of one file besides its pixels.
struct Facts {
    sha256: String,
    clipped: bool,
}

impl Dataset {
    /// Bytes that the pixels of `images` images take.
    pub fn bytes_needed(images: usize, options: &Options) -> u64 {
        let value = match options.pixels {
            Pixels::F32 => 4,
            Pixels::U8 => 1,
        };
        images as u64 * options.image_len() as u64 * value
    }

    /// Decodes the files of `listing` at `indices` (all of them, in its order, if `None`) on all cores.
    /// `progress(done, total)` is called after each file, from several threads, `done` counting up.
    ///
    /// # Errors
    /// Kind `Input`: files that cannot be decoded, every one named with its reason. Kind `Machine`: not enough memory.
    pub fn load(
        listing: &Listing,
        indices: Option<&[usize]>,
        options: &Options,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Dataset> {
        let all: Vec<usize> = (0..listing.files.len()).collect();
        let indices = indices.unwrap_or(&all);
        if options.size == 0 {
            return Err(Error::input("an input size of 0 pixels"));
        }
        if let Some(index) = indices.iter().find(|&&i| i >= listing.files.len()) {
            return Err(Error::internal(format!("file {index} of a listing of {}", listing.files.len())));
        }
        let done = AtomicUsize::new(0);
        let tell = || progress(done.fetch_add(1, Ordering::Relaxed) + 1, indices.len());
        let values = indices.len() * options.image_len();
        let (store, facts) = match options.pixels {
            Pixels::F32 => {
                let mut pixels = allocate(values)?;
                let facts = fill(listing, indices, options, &mut pixels, |v| v, tell)?;
                (Store::F32(pixels), facts)
            }
            Pixels::U8 => {
                let mut pixels = allocate(values)?;
                let facts = fill(listing, indices, options, &mut pixels, level, tell)?;
                (Store::U8(pixels), facts)
            }
        };
        Ok(Dataset {
            classes: listing.classes.clone(),
            labels: indices.iter().map(|&i| listing.files[i].class).collect(),
            paths: indices.iter().map(|&i| listing.files[i].name()).collect(),
            warnings: clipped_warning(listing, indices, &facts).into_iter().collect(),
            sha256: facts.into_iter().map(|f| f.sha256).collect(),
            options: *options,
            store,
        })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether it holds no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// How it was made.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Writes image `index` to `out`, `[size, size, 3]`, 0..=255. Both must fit, as with a slice.
    pub fn copy_image(&self, index: usize, out: &mut [f32]) {
        let len = self.options.image_len();
        let range = index * len..(index + 1) * len;
        match &self.store {
            Store::F32(pixels) => out.copy_from_slice(&pixels[range]),
            Store::U8(pixels) => out.iter_mut().zip(&pixels[range]).for_each(|(o, &v)| *o = f32::from(v)),
        }
    }
}

/// The nearest grey level.
pub fn level(v: f32) -> u8 {
    (v + 0.5) as u8
}

/// Zeros, or an error that says how many bytes were missing.
fn allocate<T: Clone + Default>(values: usize) -> Result<Vec<T>> {
    let bytes = (values * size_of::<T>()) as u64;
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let refuse = |why: String| {
        Error::machine(format!("the pixels take {:.1} GiB of memory, {why}", gib(bytes)))
            .advise("--pixels u8 takes a quarter of it; a smaller --input-size less still")
    };
    if let Some(free) = available_memory().filter(|&free| bytes > free) {
        return Err(refuse(format!("{:.1} GiB are free", gib(free))));
    }
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(values).map_err(|_| refuse("which the system does not give".into()))?;
    zeros.resize(values, T::default());
    Ok(zeros)
}

/// Bytes that can be had without swapping, where the system says so: Linux hands out more than it has and ends the
/// program when it is used.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Decodes every file into its place in `pixels`, through `store`; the facts are in the order of `indices`.
fn fill<T: Send>(
    listing: &Listing,
    indices: &[usize],
    options: &Options,
    pixels: &mut [T],
    store: impl Fn(f32) -> T + Sync,
    tell: impl Fn() + Sync,
) -> Result<Vec<Facts>> {
    let results: Vec<Result<Facts>> = pixels
        .par_chunks_exact_mut(options.image_len())
        .zip(indices)
        .map(|(place, &index)| {
            let bytes = read_file(&listing.full_path(index))?;
            let rgb = decode(&bytes, options.exif)?;
            let values = resize(&rgb, options.size, options.size, options.resize);
            place.iter_mut().zip(values).for_each(|(p, v)| *p = store(v));
            tell();
            Ok(Facts { sha256: sha256_hex(&bytes), clipped: rgb.clipped })
        })
        .collect();
    let bad: Vec<String> = results
        .iter()
        .zip(indices)
        .filter_map(|(result, &i)| result.as_ref().err().map(|e| format!("{}: {}", listing.files[i].name(), e.what())))
        .collect();
    if !bad.is_empty() {
        return Err(Error::input(format!("{} of {} images cannot be read\n  {}", bad.len(), indices.len(), bad.join("\n  ")))
            .at(listing.root.display())
            .advise("mend or remove them"));
    }
    results.into_iter().collect()
}

/// Pairs of images with the same bytes, one of `a` at `in_a`, one of `b` at `in_b`: what a validation set shares with
/// its training set, within one dataset or between two.
pub fn same_bytes(a: &Dataset, in_a: &[usize], b: &Dataset, in_b: &[usize]) -> Vec<(usize, usize)> {
    let first: HashMap<&str, usize> = in_a.iter().rev().map(|&i| (a.sha256[i].as_str(), i)).collect();
    in_b.iter().filter_map(|&j| first.get(b.sha256[j].as_str()).map(|&i| (i, j))).collect()
}

/// SHA-256 of a file's bytes, in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn clipped_warning(listing: &Listing, indices: &[usize], facts: &[Facts]) -> Option<String> {
    let mut clipped = facts.iter().zip(indices).filter(|(f, _)| f.clipped).map(|(_, &i)| listing.files[i].name());
    let first = clipped.next()?;
    Some(format!(
        "{} images are 16-bit gray with values above 255, which become white as in Pillow (first: {first}); convert them to 8 bits",
        clipped.count() + 1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Folder, png, shared};
    use std::sync::Mutex;

    /// Two classes, three images of 4 x 2 pixels.
    fn small(name: &str) -> (Folder, Listing) {
        let f = Folder::new(name);
        for (i, path) in ["a/1.png", "a/2.png", "b/1.png"].iter().enumerate() {
            let pixels: Vec<u8> = (0..24).map(|v| v * 10 + i as u8).collect();
            f.write(path, &png(4, 2, &pixels));
        }
        let listing = Listing::read(f.path(), None).unwrap();
        (f, listing)
    }

    fn image(dataset: &Dataset, index: usize) -> Vec<f32> {
        let mut out = vec![0.0; dataset.options().image_len()];
        dataset.copy_image(index, &mut out);
        out
    }

    #[test]
    fn images_labels_paths_and_hashes_are_in_the_order_asked_for() {
        let (f, listing) = small("dataset-order");
        let seen = Mutex::new(Vec::new());
        let data =
            Dataset::load(&listing, Some(&[2, 0]), &Options::keras(2), &|done, total| seen.lock().unwrap().push((done, total))).unwrap();
        assert_eq!((data.len(), &data.labels, &data.paths), (2, &vec![1, 0], &vec!["b/1.png".to_string(), "a/1.png".to_string()]));
        assert_eq!(data.sha256[0], sha256_hex(&std::fs::read(f.path().join("b/1.png")).unwrap()));
        // Columns 0.5 and 2.5 of four: the mean of two neighbours each.
        assert_eq!(image(&data, 1)[..6], [15.0, 25.0, 35.0, 75.0, 85.0, 95.0]);
        assert_eq!(image(&data, 0)[..3], [17.0, 27.0, 37.0]);
        let mut seen = seen.into_inner().unwrap();
        seen.sort();
        assert_eq!(seen, [(1, 2), (2, 2)]);
        let all = Dataset::load(&listing, None, &Options::keras(2), &|_, _| ()).unwrap();
        assert_eq!((all.len(), image(&all, 2)), (3, image(&data, 0)));
    }

    #[test]
    fn bytes_are_rounded_floats_in_a_quarter_of_the_memory() {
        let (_f, listing) = small("dataset-u8");
        let exact = Options { size: 3, ..Options::keras(3) };
        let rounded = Options { pixels: Pixels::U8, ..exact };
        assert_eq!((Dataset::bytes_needed(3, &exact), Dataset::bytes_needed(3, &rounded)), (3 * 27 * 4, 3 * 27));
        let load = |options| Dataset::load(&listing, None, options, &|_, _| ()).unwrap();
        let expected: Vec<f32> = image(&load(&exact), 1).iter().map(|v| (v + 0.5).floor()).collect();
        assert_eq!(image(&load(&rounded), 1), expected);
    }

    #[test]
    fn images_on_both_sides_and_clipped_ones_are_found() {
        let (f, _) = small("dataset-same");
        std::fs::copy(f.path().join("a/1.png"), f.path().join("b/2.png")).unwrap();
        let mut gray = std::io::Cursor::new(Vec::new());
        let samples = [0x1234u16.to_ne_bytes(); 4].concat();
        image::write_buffer_with_format(&mut gray, &samples, 2, 2, image::ExtendedColorType::L16, image::ImageFormat::Png).unwrap();
        f.write("b/3.png", gray.get_ref());
        let data = Dataset::load(&Listing::read(f.path(), None).unwrap(), None, &Options::keras(2), &|_, _| ()).unwrap();
        assert_eq!(same_bytes(&data, &[0, 1], &data, &[2, 3, 4]), [(0, 3)]);
        assert!(data.warnings.len() == 1 && data.warnings[0].contains("(first: b/3.png)"), "{:?}", data.warnings);
    }

    #[test]
    fn every_bad_file_is_named_with_its_reason() {
        let (f, _) = small("dataset-bad");
        f.write("a/empty.jpg", b"");
        f.write("b/page.png", b"<html>");
        let listing = Listing::read(f.path(), None).unwrap();
        let e = Dataset::load(&listing, None, &Options::keras(2), &|_, _| ()).err().unwrap();
        assert_eq!(e.exit_code(), 2);
        let text = e.to_string();
        for part in ["2 of 5 images", "a/empty.jpg: the file is empty", "b/page.png: the content is a web page"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn too_little_memory_is_an_error_of_the_machine() {
        let e = allocate::<f32>(1 << 50).err().unwrap();
        assert_eq!(e.exit_code(), 3);
        assert!(e.to_string().contains("--pixels u8"), "{e}");
    }

    #[test]
    fn real_folders_load_the_same_on_one_thread_and_on_many() {
        let Some(path) = shared("data/images/breast-ultrasound-3") else { return };
        let listing = Listing::read(&path, None).unwrap();
        let some: Vec<usize> = (0..listing.files.len()).step_by(10).collect();
        let load = || Dataset::load(&listing, Some(&some), &Options::keras(64), &|_, _| ()).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let (one, many) = (pool.install(load), load());
        assert_eq!((&one.paths, &one.sha256), (&many.paths, &many.sha256));
        assert!((0..one.len()).all(|i| image(&one, i) == image(&many, i)));
    }
}
