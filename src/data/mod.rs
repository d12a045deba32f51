//! From a folder of class folders to batches of pixels.

pub mod groups;
pub mod listing;
pub mod permutation;
pub mod split;
#[cfg(test)]
pub(crate) mod testing;
