//! Weights on disk: the model file, how it is read, written and matched with a graph, and the values that new weights start
//! from.
//!
//! A model file is a safetensors file with Keras's layer names, `block1_conv1/kernel`, and one metadata key, `defrost`, with
//! canonical JSON ([`Metadata`]). Its data is the image of the memory it is loaded to: all parameters in graph order, then all
//! moving statistics in graph order, without gaps, from a multiple of 64 bytes on. On the CPU a private map of the file
//! can thereby *be* the arena of parameters, and pages that are never trained are never copied. It holds no time, host or
//! path, so that equal tensors and settings make equal bytes.
//!
//! Refused: numbers that are not finite (when written), any dtype but f32 and f64, and tensors that a model does not know.

mod cache;
pub mod digest;
pub mod download;
mod format;
pub mod hdf5;
mod init;
pub mod keras;
mod manifest;
mod matching;
mod open;
mod profile;
mod save;
pub mod torch;

pub use cache::{by_hand, folder, imagenet, keras_folder, model_path};
pub use format::{Metadata, ModelFile, VERSION};
pub use init::Draw;
pub use manifest::{Official, official};
pub use matching::{Head, Matched, Request, Source};
pub use open::{AnyTensor, Tensor, TensorFile, map_file};
pub use profile::{Preprocess, Profile};
pub use save::{Entry, is_leftover, remove_leftovers, replace_file, save, save_tensors};
