//! All images of a listing, decoded once and held at the network's size: in memory, or in a mapped file.
//!
//! Decoding costs more than a frozen step and happens once; afterwards an epoch reads what is held. An image has the same
//! bits wherever that is.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::data::catalog::Catalog;
use crate::data::listing::Listing;
use crate::data::load::{self, Keep, Loading};
use crate::data::pixel_cache::{Mapped, hex};
use crate::data::resize::Resize;
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

/// Where the pixels `[n, size, size, 3]`, 0..=255, are held.
pub(super) enum Store {
    F32(Vec<f32>),
    U8(Vec<u8>),
    Mapped(Mapped),
}

/// Images at the network's size: a [`Catalog`] with pixels.
pub struct Dataset {
    catalog: Catalog,
    options: Options,
    store: Store,
    /// The place of each image in the store; bad files leave gaps.
    places: Vec<usize>,
    /// What was done to hold them, in sentences.
    pub notes: Vec<String>,
}

impl Deref for Dataset {
    type Target = Catalog;

    fn deref(&self) -> &Catalog {
        &self.catalog
    }
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

    /// Decodes the files of `listing` at `indices` (all of them, in its order, if `None`) into memory, on all cores.
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
        if let Some(index) = indices.unwrap_or_default().iter().find(|&&i| i >= listing.files.len()) {
            return Err(Error::internal(format!("file {index} of a listing of {}", listing.files.len())));
        }
        let chosen = indices.map(|indices| listing.only(indices));
        let how = Loading { keep: Keep::Memory, ..Loading::new(*options) };
        load::load(chosen.as_ref().unwrap_or(listing), &how, &|_, done, total| progress(done, total))
    }

    pub(super) fn new(catalog: Catalog, options: Options, store: Store, places: Vec<usize>, notes: Vec<String>) -> Dataset {
        Dataset { catalog, options, store, places, notes }
    }

    /// How it was made.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The cache file that holds the pixels, unless they are in memory.
    pub fn cache_file(&self) -> Option<&Path> {
        match &self.store {
            Store::Mapped(mapped) => Some(mapped.path()),
            _ => None,
        }
    }

    /// The bytes of image `index` as they are held, `[size, size, 3]`: [`Options::pixels`] says of which type.
    pub fn image_bytes(&self, index: usize) -> &[u8] {
        let (place, len) = (self.places[index], self.options.image_len());
        let range = place * len..(place + 1) * len;
        match &self.store {
            Store::F32(pixels) => bytemuck::cast_slice(&pixels[range]),
            Store::U8(pixels) => &pixels[range],
            Store::Mapped(mapped) => mapped.image(place),
        }
    }

    /// Writes image `index` to `out`, `[size, size, 3]`, 0..=255. Both must fit, as with a slice.
    pub fn copy_image(&self, index: usize, out: &mut [f32]) {
        let bytes = self.image_bytes(index);
        match self.options.pixels {
            Pixels::F32 => out.copy_from_slice(bytemuck::cast_slice(bytes)),
            Pixels::U8 => out.iter_mut().zip(bytes).for_each(|(o, &v)| *o = f32::from(v)),
        }
    }
}

/// The nearest grey level.
pub fn level(v: f32) -> u8 {
    (v + 0.5) as u8
}

/// Pairs of images with the same bytes, one of `a` at `in_a`, one of `b` at `in_b`: what a validation set shares with
/// its training set, within one dataset or between two.
pub fn same_bytes(a: &Dataset, in_a: &[usize], b: &Dataset, in_b: &[usize]) -> Vec<(usize, usize)> {
    let first: HashMap<&str, usize> = in_a.iter().rev().map(|&i| (a.sha256[i].as_str(), i)).collect();
    in_b.iter().filter_map(|&j| first.get(b.sha256[j].as_str()).map(|&i| (i, j))).collect()
}

/// SHA-256 of a file's bytes, in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
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
        assert_eq!(data.portraits.iter().map(|p| p.clipped).collect::<Vec<_>>(), [false, false, false, false, true]);
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
