//! What a model file says about itself, and the model file opened.

use super::open::{Tensor, TensorFile};
use super::profile::Profile;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The version of [`Metadata`] that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Pixels of a side; what is larger cannot be computed and could not be counted.
const LARGEST_INPUT: usize = 1 << 16;

/// The metadata key of a model file.
pub(super) const KEY: &str = "defrost";

/// How a model must be fed and what its outputs mean: everything that `predict` needs besides the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// `vgg16`, `xception`, `inceptionv3` or `densenet121`.
    pub backbone: String,
    /// Class names in the order of the logits; empty if there is no head or the names are not known.
    pub classes: Vec<String>,
    /// Whether images were turned by their EXIF orientation.
    pub exif: bool,
    /// Hidden layers of the head: `1024:sigmoid`.
    pub hidden: Vec<String>,
    /// Side of the square images, in pixels.
    pub input_size: usize,
    /// How resized pixels are kept: `f32` or `u8`.
    pub pixels: String,
    /// `caffe`, `tf`, `torch` or `none`.
    pub preprocess: String,
    /// What the weights expect of the network around them.
    pub profile: Profile,
    /// How images are resized: `keras`, ...
    pub resize: String,
    /// Summary of the training run; free, without times, hosts or paths.
    pub training: serde_json::Value,
    /// See [`VERSION`].
    pub version: u32,
}

impl Metadata {
    /// Canonical JSON: keys sorted at every depth, no spaces. Equal metadata make equal text.
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        let value = serde_json::to_value(self).expect("strings, numbers and lists are JSON");
        write_sorted(&value, &mut text);
        text
    }

    fn from_json(text: &str) -> Result<Self> {
        let metadata: Metadata =
            serde_json::from_str(text).map_err(|e| Error::input(format!("metadata {KEY:?} is not what defrost writes: {e}")))?;
        if metadata.version > VERSION {
            let what = format!("written by a newer defrost (format {}, this program knows {VERSION})", metadata.version);
            return Err(Error::input(what));
        }
        if metadata.input_size > LARGEST_INPUT {
            let what = format!("metadata {KEY:?} has an input size of {}, at most {LARGEST_INPUT} is supported", metadata.input_size);
            return Err(Error::input(what));
        }
        if metadata.input_size == 0 || !metadata.profile.is_sound() {
            return Err(Error::input(format!("metadata {KEY:?} has an input size or an epsilon that is not positive")));
        }
        Ok(metadata)
    }
}

/// Writes JSON with sorted keys whatever order the map type of `serde_json` was built to keep.
fn write_sorted(value: &serde_json::Value, text: &mut String) {
    let list = |items: &mut dyn Iterator<Item = &serde_json::Value>, text: &mut String| {
        for (i, item) in items.enumerate() {
            text.push_str(if i == 0 { "" } else { "," });
            write_sorted(item, text);
        }
    };
    match value {
        serde_json::Value::Array(items) => {
            text.push('[');
            list(&mut items.iter(), text);
            text.push(']');
        }
        serde_json::Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            text.push('{');
            for (i, key) in keys.into_iter().enumerate() {
                text.push_str(if i == 0 { "" } else { "," });
                text.push_str(&serde_json::Value::from(key.as_str()).to_string());
                text.push(':');
                write_sorted(&map[key], text);
            }
            text.push('}');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

/// A model file: mapped tensors and metadata.
#[derive(Debug)]
pub struct ModelFile {
    tensors: TensorFile,
    metadata: Metadata,
}

impl ModelFile {
    /// Opens a model file. Only the header is read; the pages of the data are touched when a tensor is.
    ///
    /// # Errors
    /// A file that is missing, truncated or not safetensors, that defrost did not write, or that is newer than this program;
    /// each with the file's name and, where it applies, the tensor's.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let tensors = TensorFile::open(path.as_ref())?;
        let foreign = || {
            Error::input(format!("is a safetensors file, but not a defrost model: it has no metadata {KEY:?}"))
                .advise("`defrost import FILE --out MODEL` makes one of torchvision's and timm's weights")
        };
        let metadata = tensors.metadata(KEY).ok_or_else(foreign).and_then(Metadata::from_json);
        match metadata {
            Ok(metadata) => Ok(ModelFile { tensors, metadata }),
            Err(error) => Err(error.at(path.as_ref().display())),
        }
    }

    /// How the model must be fed and what its outputs mean.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors.
    pub fn tensors(&self) -> &TensorFile {
        &self.tensors
    }

    /// A tensor by name.
    ///
    /// # Errors
    /// When there is none, with the file's name.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        self.tensors.tensor(name)
    }

    /// Number of classes of the head, whether or not their names are known; `None` without a head.
    pub fn class_count(&self) -> Option<usize> {
        let last = self.tensors.names().iter().filter(|n| is_head(n) && n.ends_with("/bias")).max_by_key(|n| head_position(n))?;
        self.tensors.tensor(last).ok().and_then(|t| t.shape.first().copied())
    }

    /// Class names, or `0`, `1`, ... where they are not known.
    pub fn class_names(&self) -> Vec<String> {
        match self.class_count() {
            Some(count) if self.metadata.classes.is_empty() => (0..count).map(|i| i.to_string()).collect(),
            _ => self.metadata.classes.clone(),
        }
    }
}

/// Whether a tensor belongs to the head: to a layer `dense`, `dense_1`, ..., a name that no backbone has.
pub(super) fn is_head(tensor: &str) -> bool {
    head_position(tensor).is_some()
}

/// The number of the dense layer that a tensor belongs to.
fn head_position(tensor: &str) -> Option<usize> {
    let layer = tensor.split_once('/')?.0;
    let number = layer.strip_prefix("dense")?;
    if number.is_empty() { Some(0) } else { number.strip_prefix('_')?.parse().ok() }
}

#[cfg(test)]
pub(super) fn sample() -> Metadata {
    Metadata {
        backbone: "vgg16".into(),
        classes: vec!["normal".into(), "polyp".into()],
        exif: false,
        hidden: vec![],
        input_size: 224,
        pixels: "f32".into(),
        preprocess: "caffe".into(),
        profile: Profile {
            epsilon: 1e-3,
            gamma: true,
            count_padding: false,
            symmetric_pools: false,
            preprocess: crate::ops::preprocess::Mode::Caffe,
        },
        resize: "keras".into(),
        training: serde_json::json!({"seed": 42, "epochs": 20, "best": {"loss": 0.25, "epoch": 3}}),
        version: VERSION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_canonical_and_comes_back() {
        let text = sample().to_json();
        assert!(text.starts_with(r#"{"backbone":"vgg16","classes":["normal","polyp"],"exif":false"#), "{text}");
        assert!(
            text.contains(r#""profile":{"count_padding":false,"epsilon":0.001,"gamma":true,"preprocess":"caffe","symmetric_pools":false}"#),
            "{text}"
        );
        assert!(text.contains(r#""training":{"best":{"epoch":3,"loss":0.25},"epochs":20,"seed":42},"version":1}"#), "{text}");
        assert_eq!(Metadata::from_json(&text).unwrap(), sample());
        let newer = text.replace("\"version\":1", "\"version\":2");
        assert!(Metadata::from_json(&newer).unwrap_err().what().contains("newer"));
    }

    #[test]
    fn only_dense_layers_are_the_head() {
        assert!(is_head("dense/kernel") && is_head("dense_12/bias"));
        assert!(!is_head("densenet/kernel") && !is_head("dense_block/kernel") && !is_head("conv2d/kernel") && !is_head("dense"));
        assert!(head_position("dense_10/bias") > head_position("dense_9/bias"));
    }
}
