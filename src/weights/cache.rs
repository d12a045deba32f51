//! Where converted ImageNet weights are kept on this machine.

use super::format::ModelFile;
use super::manifest::official;
use crate::error::{Error, Result};
use std::path::PathBuf;

/// The folder of converted weights: `DEFROST_WEIGHTS`, or `defrost` in the user's cache directory.
///
/// # Errors
/// When neither that variable nor a home directory is set.
pub fn folder() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache"))).map(|cache| cache.join("defrost"));
    set("DEFROST_WEIGHTS").or_else(cache).ok_or_else(|| {
        Error::input("no folder for weights: neither DEFROST_WEIGHTS nor HOME is set")
            .advise("set DEFROST_WEIGHTS, or name a file with --weights FILE")
    })
}

/// Opens the converted ImageNet weights of a backbone.
///
/// # Errors
/// When they are not there, with where they were looked for; or when the file is damaged.
pub fn imagenet(backbone: &str) -> Result<ModelFile> {
    let path = folder()?.join(format!("{backbone}.safetensors"));
    if path.exists() {
        return ModelFile::open(&path);
    }
    let source = official().remove(backbone).map(|o| o.url).unwrap_or_default();
    let what = format!("the ImageNet weights of {backbone} are not at {} (Keras's own file, to be converted, is {source})", path.display());
    Err(Error::input(what).advise("start from a model file with --weights FILE, or from nothing with --weights random"))
}
