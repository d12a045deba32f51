//! What a network is fed: `feed DATA SIZE SHARE SEED OUT` writes the pixels of all images `[n, size, size, 3]` as f32 to OUT, in
//! listing order, and prints the two lists of Keras's split, each in its own order. `scripts/keras-check.sh` holds both against Keras.

use defrost::data::dataset::{Dataset, Options};
use defrost::data::listing::Listing;
use defrost::data::split::keras_split;
use defrost::error::{Error, Result};
use std::path::Path;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [data, size, share, seed, out] = &args[..] else { return Err(Error::input("usage: feed DATA SIZE SHARE SEED OUT")) };
    let wrong = |what: &str| Error::input(format!("{what:?} is no number"));
    let listing = Listing::read(Path::new(data), None)?;
    let size = size.parse().map_err(|_| wrong(size))?;
    let (share, seed) = (share.parse().map_err(|_| wrong(share))?, seed.parse().map_err(|_| wrong(seed))?);
    let split = keras_split(listing.files.len(), share, seed)?;
    for (subset, list) in [("train", &split.train), ("val", &split.val)] {
        list.iter().for_each(|&i| println!("{subset} {}", listing.files[i].name()));
    }
    let dataset = Dataset::load(&listing, None, &Options::keras(size), &|_, _| ())?;
    let mut pixels = vec![0f32; dataset.len() * dataset.options().image_len()];
    pixels.chunks_mut(dataset.options().image_len()).enumerate().for_each(|(i, image)| dataset.copy_image(i, image));
    let bytes: Vec<u8> = pixels.iter().flat_map(|x| x.to_le_bytes()).collect();
    std::fs::write(out, bytes).map_err(|e| Error::io(out, &e))
}
