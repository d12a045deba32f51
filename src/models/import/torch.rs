//! From a safetensors file of torchvision or timm to a model file.

use super::super::spec::Spec;
use super::{Imported, Options, metadata, save_model};
use crate::base::Val;
use crate::error::{Error, Result};
use crate::weights::TensorFile;
use crate::weights::torch::{TorchFile, is_torch};
use std::collections::HashMap;
use std::path::Path;

/// Imports by the names of the tensors; the profile goes with them.
pub fn import(path: &Path, out: &Path, options: &Options) -> Result<Imported> {
    let file = TensorFile::open_any(path)?;
    if file.metadata("defrost").is_some() {
        let error = Error::input("is a model file already").at(path.display());
        return Err(error.advise("use it as it is: `defrost train --weights FILE`, `defrost evaluate FILE DATA`"));
    }
    if !is_torch(&file) {
        let names: Vec<&String> = file.names().iter().take(4).collect();
        let what = format!("holds tensors of no network that is known here: {names:?}");
        return Err(Error::input(what)
            .at(path.display())
            .advise("VGG16, InceptionV3, DenseNet121 (torchvision, timm) and legacy_xception (timm) are"));
    }
    let torch = TorchFile::recognise(&file)?;
    let backbone = torch.backbone().parse()?;
    if let Some(other) = options.backbone.filter(|b| *b != backbone) {
        return Err(Error::input(format!("holds {}, expected {other}", torch.origin())).at(path.display()));
    }
    if !options.hidden.is_empty() {
        return Err(Error::input("--hidden describes the head of a Keras file; torchvision's and timm's heads have no hidden layers"));
    }
    let (classes, mut profile) = (torch.class_count(), torch.profile());
    // What the user says about the pixels holds for `--preprocess backbone` from now on.
    profile.preprocess = options.preprocess.map_or(profile.preprocess, |p| p.of(&profile));
    let preprocess = profile.preprocess;
    let spec = Spec { profile, preprocess, features_only: classes.is_none(), ..Spec::new(backbone, classes.unwrap_or(0)) };
    let spec = Spec { size: options.input_size.unwrap_or(spec.size), ..spec };
    let metadata = metadata(&spec, options)?;
    let model = spec.build()?;
    let weights = torch.convert(&model.graph)?;
    let bytes: HashMap<&str, &[u8]> = weights.iter().map(|w| (w.name.as_str(), bytemuck::cast_slice(&w.values))).collect();
    let named = |v: Val| bytes.get(model.graph.name(v)).copied().ok_or_else(|| Error::internal("no weight was found for it"));
    save_model(out, &metadata, &model, named)?;
    let (parameters, layout, notes) = (model.parameters(), torch.origin().to_string(), torch.notes().to_vec());
    Ok(Imported { metadata, classes, parameters, layout, notes })
}
