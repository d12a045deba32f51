//! `BACKBONE|MODEL`: what `summary` and `explain` look at.

use crate::error::{Error, Result};
use crate::models::{Backbone, Purpose, Spec};
use crate::train::opened::spec_of;
use crate::weights::ModelFile;
use std::path::PathBuf;

/// A network by name, or a model file.
#[derive(Clone, Debug)]
pub enum Subject {
    Backbone(Backbone),
    File(PathBuf),
}

impl std::str::FromStr for Subject {
    type Err = Error;

    /// What ends in `.safetensors`, is a file, or is on disk and no network's name, is a model.
    fn from_str(text: &str) -> Result<Self> {
        let path = PathBuf::from(text);
        if path.extension().is_some_and(|e| e == "safetensors") || path.is_file() {
            return Ok(Subject::File(path));
        }
        match text.parse::<Backbone>() {
            Ok(backbone) => Ok(Subject::Backbone(backbone)),
            Err(_) if path.exists() => Ok(Subject::File(path)),
            Err(e) => Err(Error::input(format!("{}, or name a .safetensors file", e.what()))),
        }
    }
}

impl Subject {
    /// What to build for inference on one image: the network without head, or the model with the head that its file holds.
    pub fn spec(&self, size: Option<usize>) -> Result<Spec> {
        let mut spec = match self {
            Subject::Backbone(backbone) => Spec { features_only: true, ..Spec::new(*backbone, 0) },
            Subject::File(path) => spec_of(&ModelFile::open(path)?)?,
        };
        spec.size = size.unwrap_or(spec.size);
        spec.backbone.check_size(spec.size)?;
        Ok(spec)
    }
}

/// The same network in training; one without head gets a head for `classes`.
pub fn in_training(spec: &Spec, batch: usize, classes: usize) -> Spec {
    let classes = if spec.features_only { classes } else { spec.classes };
    Spec { batch, classes, features_only: false, purpose: Purpose::Train, ..spec.clone() }
}
