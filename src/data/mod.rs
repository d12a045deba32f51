//! From a folder of class folders to batches of pixels, with Keras' numbers.
//!
//! Read in the order in which an image travels:
//!
//! 1. [`source`] and [`listing`]: which files there are, in Keras' order, and what class each one is;
//! 2. [`sniff`] and [`decode`]: bytes to RGB, as Pillow does it;
//! 3. [`resize`]: RGB to the network's size, as TensorFlow does it;
//! 4. [`load`]: all of that once for every file, on all cores, into a [`dataset`]: a [`catalog`] of what is known of each
//!    image ([`portrait`]), and the pixels, in [`memory`] or in a mapped [`pixel_cache`];
//! 5. [`rule`], [`split`] and [`groups`]: who trains and who validates; NumPy's shuffle;
//! 6. [`check`]: damage, duplicates (with [`phash`]) and leaks across the split, from the catalog;
//! 7. [`permutation`], [`augment`] and [`batches`]: an epoch's order, its random changes and its batches; [`stream`]: the same
//!    pixels read once, as needed.
//!
//! [`csv`] and [`split_file`] read and write the tables.
//!
//! Refused: formats that Keras does not read, damaged or truncated files (all of them are named, none is skipped in
//! silence), sizes that a header claims beyond any camera's. Pixels leave this module as 0..=255; what a backbone wants
//! made of them (`preprocess_input`) is the model's business.

pub mod augment;
pub mod batches;
pub mod catalog;
pub mod check;
pub mod csv;
pub mod dataset;
pub mod decode;
pub mod groups;
mod jpeg;
pub mod listing;
pub mod load;
pub mod memory;
pub mod permutation;
pub mod phash;
pub mod pixel_cache;
pub mod pixel_room;
pub mod portrait;
pub mod resize;
pub mod rule;
mod shield;
pub mod sniff;
pub mod source;
pub mod split;
pub mod split_file;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
