//! The official ImageNet weights: found on this machine or downloaded, checked, converted, and looked after.

use super::super::backbone::Backbone;
use super::super::spec::Spec;
use super::{Options, import};
use crate::error::{Error, Kind, Result};
use crate::weights::digest::{forget, md5, record, recorded, sha256};
use crate::weights::download::{News, Patience, Wanted, download, remove};
use crate::weights::{ModelFile, Official, by_hand, keras_folder, model_path, official};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// Where converted weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// They were there.
    Ready,
    /// Keras's own file on this machine.
    Local(PathBuf),
    /// This address.
    Downloaded(String),
}

/// Brings the ImageNet weights of a backbone into `folder`, unless they are there. Looks for Keras's own file there and in
/// Keras's folder first. Of two processes one works and the other waits.
///
/// # Errors
/// What [`download`] says; a file with the right sum that is not the backbone's; a full disk. Nothing half done is left but
/// the part of a download.
pub fn fetch(backbone: Backbone, official: &Official, folder: &Path, patience: Patience, tell: &mut dyn FnMut(News)) -> Result<Origin> {
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
    let model = model_path(folder, backbone.name());
    let _lock = lock(&folder.join(format!(".{backbone}.lock")), tell)?;
    if model.exists() {
        match check(backbone, &model) {
            Ok(()) => return Ok(Origin::Ready),
            Err(e) if e.kind() == Kind::Input => tell(News::Note(&format!("{e}; it is made anew"))),
            Err(e) => return Err(e),
        }
    }
    if let Some(local) = local_file(official, folder, tell) {
        convert(backbone, official, &local, &model)?;
        return Ok(Origin::Local(local));
    }
    let part = folder.join(format!("{}.part", official.file));
    let wanted = Wanted { url: official.url.clone(), md5: official.md5.clone(), size: Some(official.size).filter(|&size| size > 0) };
    download(&wanted, &part, patience, tell).map_err(|e| e.advise(instead(backbone, &wanted.url)))?;
    convert(backbone, official, &part, &model)?;
    remove(&part)?;
    Ok(Origin::Downloaded(wanted.url))
}

/// What to do where nothing comes from `url`: by hand, or from another address; one that the user named may be wrong itself.
fn instead(backbone: Backbone, url: &str) -> String {
    let known = official().remove(backbone.name()).map(|o| o.url).unwrap_or_default();
    match by_hand(&known) {
        by_hand if url == known => format!("{by_hand} and run the same command, or name a mirror with --url"),
        by_hand => format!("is the address right? Without --url the official file is fetched; without a network, {by_hand}"),
    }
}

/// Checks converted weights: readable, the backbone's with every tensor, and unchanged since they were converted.
///
/// # Errors
/// What is wrong, with the file's name.
pub fn check(backbone: Backbone, model: &Path) -> Result<()> {
    let file = ModelFile::open(model)?;
    let profile = file.metadata().profile;
    let classes = file.class_names();
    let spec = Spec { profile, features_only: classes.is_empty(), ..Spec::new(backbone, classes.len()) };
    spec.build()?.match_file(&file, &classes)?;
    match recorded(model)? {
        Some(then) if then != sha256(model)? => {
            Err(Error::input("has changed since it was converted (its SHA-256 is another)").at(model.display()))
        }
        _ => Ok(()),
    }
}

/// Keras's own file on this machine, if it is the right one.
pub fn local_file(official: &Official, folder: &Path, tell: &mut dyn FnMut(News)) -> Option<PathBuf> {
    let folders = [Some(folder.to_path_buf()), keras_folder()];
    folders.into_iter().flatten().map(|folder| folder.join(&official.file)).filter(|path| path.is_file()).find(|path| {
        let why = match md5(path) {
            Ok(sum) if sum == official.md5 => return true,
            Ok(sum) => format!("{} is passed over: its MD5 is {sum}, expected {}", path.display(), official.md5),
            Err(e) => format!("{e}; it is passed over"),
        };
        tell(News::Note(&why));
        false
    })
}

/// Makes the model file, whole or not at all, and records its sum.
fn convert(backbone: Backbone, official: &Official, source: &Path, model: &Path) -> Result<()> {
    forget(model);
    let history = serde_json::json!({"imported": {"file": official.file, "md5": official.md5}});
    import(source, model, &Options { backbone: Some(backbone), history, ..Options::default() })?;
    record(model)
}

/// Waits until nobody else works on the same weights; the system lets go of the lock when the process ends, however it ends.
fn lock(path: &Path, tell: &mut dyn FnMut(News)) -> Result<Option<File>> {
    let file = File::options().create(true).append(true).open(path).map_err(|e| Error::io(path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            tell(News::Note("another defrost is bringing the same weights; waiting for it"));
            file.lock().map_err(|e| Error::io(path, &e))?;
            Ok(Some(file))
        }
        // A file system without locks: each writes under names of its own, and the last one stands.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}
