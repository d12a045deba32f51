//! Images decoded as they are needed, in order and in bounded memory: what `predict` and `evaluate` read.
//!
//! A thread of its own decodes the next images on all cores while the current ones compute; at most
//! [`AHEAD`](super::batches::AHEAD) portions wait. The pixels are those of a [`Dataset`](super::dataset::Dataset).

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use rayon::prelude::*;

use crate::data::batches::AHEAD;
use crate::data::dataset::{Options, Pixels, level, sha256_hex};
use crate::data::decode::{Rgb, decode, read_file};
use crate::data::resize::resize;
use crate::error::{Error, Result};

/// What is known of an image besides its pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// SHA-256 of the file's bytes, in hex.
    pub sha256: String,
    /// Whether 16-bit gray lost values above 255.
    pub clipped: bool,
}

/// Some files in a row.
#[derive(Clone, Debug)]
pub struct Portion {
    /// `[m, size, size, 3]`, 0..=255: the `m` files that could be read, without gaps for the others.
    pub pixels: Vec<f32>,
    /// One for each file, in order.
    pub files: Vec<Result<Facts>>,
}

/// An iterator over portions of a list of files. Dropping it early ends its thread.
pub struct Stream {
    ready: Option<Receiver<Portion>>,
    worker: Option<JoinHandle<()>>,
}

impl Stream {
    /// Starts to read `files`, `portion` at a time. A file that has failed already takes its place as a failure.
    ///
    /// # Errors
    /// Kind `Input`: portions of 0 files. Kind `Machine`: no thread.
    pub fn new(files: Vec<Result<PathBuf>>, options: Options, portion: usize) -> Result<Stream> {
        if portion == 0 {
            return Err(Error::input("a batch size of 0"));
        }
        let (give, ready) = sync_channel(AHEAD - 1);
        let work = move || {
            for files in files.chunks(portion) {
                if give.send(read_all(files, &options)).is_err() {
                    return;
                }
            }
        };
        let worker = std::thread::Builder::new()
            .name("images".into())
            .spawn(work)
            .map_err(|e| Error::machine(format!("no thread for reading images: {e}")))?;
        Ok(Stream { ready: Some(ready), worker: Some(worker) })
    }
}

impl Iterator for Stream {
    type Item = Portion;

    fn next(&mut self) -> Option<Portion> {
        self.ready.as_ref()?.recv().ok()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Without a receiver the worker's next send fails, and it returns.
        self.ready = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

fn read_all(files: &[Result<PathBuf>], options: &Options) -> Portion {
    let images: Vec<Result<(Vec<f32>, Facts)>> = files.par_iter().map(|file| read_image(file.as_ref(), options)).collect();
    let mut pixels = Vec::with_capacity(files.len() * options.image_len());
    let mut keep = |(image, facts): (Vec<f32>, Facts)| {
        pixels.extend(image);
        facts
    };
    let files = images.into_iter().map(|image| image.map(&mut keep)).collect();
    Portion { pixels, files }
}

fn read_image(file: Result<&PathBuf, &Error>, options: &Options) -> Result<(Vec<f32>, Facts)> {
    let bytes = read_file(file.map_err(Error::clone)?)?;
    let rgb = decode(&bytes, options.exif)?;
    Ok((pixels_of(&rgb, options), Facts { sha256: sha256_hex(&bytes), clipped: rgb.clipped }))
}

/// What a network gets of a decoded image: `[size, size, 3]`, 0..=255.
pub fn pixels_of(image: &Rgb, options: &Options) -> Vec<f32> {
    let mut pixels = resize(image, options.size, options.size, options.resize);
    if options.pixels == Pixels::U8 {
        pixels.iter_mut().for_each(|v| *v = f32::from(level(*v)));
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Dataset;
    use crate::data::listing::Listing;
    use crate::data::testing::{Folder, png};

    #[test]
    fn the_pixels_are_those_of_a_dataset_and_failures_keep_their_places() {
        let f = Folder::new("stream");
        for i in 0..5u8 {
            let pixels: Vec<u8> = (0..60).map(|v: u8| v.wrapping_mul(31) ^ i).collect();
            f.write(&format!("{}/{i}.png", if i < 2 { "a" } else { "b" }), &png(5, 4, &pixels));
        }
        let listing = Listing::read(f.path(), None).unwrap();
        for pixels in [Pixels::F32, Pixels::U8] {
            let options = Options { pixels, ..Options::keras(3) };
            let data = Dataset::load(&listing, None, &options, &|_, _| ()).unwrap();
            let mut files: Vec<Result<PathBuf>> = (0..5).map(|i| Ok(listing.full_path(i))).collect();
            files.insert(1, Err(Error::input("gone before")));
            files.insert(4, Ok(f.path().join("a/none.png")));
            let portions: Vec<Portion> = Stream::new(files, options, 2).unwrap().collect();
            assert_eq!(portions.iter().map(|p| p.files.len()).collect::<Vec<_>>(), [2, 2, 2, 1]);
            let all: Vec<f32> = portions.iter().flat_map(|p| p.pixels.iter().copied()).collect();
            let mut expected = vec![0.0; 5 * 27];
            (0..5).for_each(|i| data.copy_image(i, &mut expected[i * 27..][..27]));
            assert_eq!(all, expected);
            let files: Vec<_> = portions.into_iter().flat_map(|p| p.files).collect();
            assert_eq!(files.iter().map(Result::is_err).collect::<Vec<_>>(), [false, true, false, false, true, false, false]);
            assert_eq!(files[1].as_ref().unwrap_err().what(), "gone before");
            assert_eq!(files[6].as_ref().unwrap().sha256, data.sha256[4]);
        }
    }

    #[test]
    fn dropping_a_stream_in_the_middle_ends_its_thread() {
        let files = vec![Err(Error::input("no")); 10_000];
        let mut stream = Stream::new(files, Options::keras(2), 1).unwrap();
        stream.next();
        drop(stream);
        assert!(Stream::new(vec![], Options::keras(2), 0).is_err());
    }
}
