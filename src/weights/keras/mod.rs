//! Weights as Keras saves them, named but not yet read.
//!
//! Three layouts, told apart by content: the legacy HDF5 file (weights alone or a whole model, Keras 1 to 3), the
//! `.weights.h5` of Keras 3, and the `.keras` archive, a zip of a configuration and such a file. Nothing in a
//! file is ever executed; of a configuration only names, classes and numbers are read.

mod archive;
mod config;
mod legacy;
mod numbered;

pub use archive::{Archive, SIGNATURE as ZIP};
pub use config::{Config, ConfigLayer};

use super::hdf5::{Dataset, File};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// One tensor of a layer.
pub struct Weight<'f, 'a> {
    /// As the file has it, without `:0`: `conv1/kernel`, `block1_conv1_W_1`, `0`.
    pub name: String,
    pub data: Dataset<'f, 'a>,
}

impl Weight<'_, '_> {
    /// Lengths of the axes.
    pub fn shape(&self) -> Vec<usize> {
        self.data.shape().iter().map(|&d| usize::try_from(d).unwrap_or(usize::MAX)).collect()
    }
}

/// A layer that has weights.
pub struct Layer<'f, 'a> {
    pub name: String,
    pub weights: Vec<Weight<'f, 'a>>,
    /// Whether its place among the layers is known; it is not for those of a model within a model without configuration.
    pub ordered: bool,
}

/// All layers of a file that have weights.
pub enum Layers<'f, 'a> {
    /// In the order of the graph.
    Ordered(Vec<Layer<'f, 'a>>),
    /// By kind (`conv2d`, `batch_normalization`), each kind in the order of the graph.
    ByKind(BTreeMap<String, Vec<Layer<'f, 'a>>>),
}

/// What a file holds.
pub struct Found<'f, 'a> {
    pub layers: Layers<'f, 'a>,
    pub config: Option<Config>,
    /// The layout in words.
    pub layout: &'static str,
}

/// Reads names, shapes and types of all weights, and the configuration if the file has one; no weight's elements.
///
/// # Errors
/// A file that Keras did not write, that is damaged, or that holds what [`super::hdf5`] refuses.
pub fn read<'f, 'a>(file: &'f File<'a>, config: Option<Config>) -> Result<Found<'f, 'a>> {
    let root = file.root()?;
    if let Some(weights) = root.group("model_weights")? {
        let text = root.texts("model_config")?.and_then(|texts| texts.into_iter().next());
        let config = match text {
            Some(text) => Config::parse(&text).map_err(|e| e.at("model_config"))?,
            None => config,
        };
        let layers = legacy::layers(&weights, config.as_ref())?;
        return Ok(Found { layers: Layers::Ordered(layers), config, layout: "whole model in legacy HDF5" });
    }
    if legacy::is_legacy(&root) {
        let layers = legacy::layers(&root, config.as_ref())?;
        return Ok(Found { layers: Layers::Ordered(layers), config, layout: "weights in legacy HDF5" });
    }
    if let Some(layers) = numbered::layers(&root)? {
        let layout = if config.is_some() { ".keras archive" } else { "Keras 3 weights" };
        return Ok(Found { layers: Layers::ByKind(layers), config, layout });
    }
    let names: Vec<&str> = root.names().take(8).collect();
    let what = format!("is an HDF5 file, but not one of Keras's: it has neither layer_names nor layers, but {names:?}");
    Err(Error::input(what))
}
