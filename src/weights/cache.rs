//! Where weights are kept on this machine: converted ones in a folder of this program, Keras's own files in Keras's.

use super::format::ModelFile;
use super::manifest::official;
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The folder of converted weights: `DEFROST_WEIGHTS`, or `defrost` in the user's cache directory (`XDG_CACHE_HOME` or
/// `~/.cache`, `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows).
///
/// # Errors
/// When neither that variable nor a home directory is set.
pub fn folder() -> Result<PathBuf> {
    folder_by(&set, std::env::consts::OS).ok_or_else(|| {
        Error::input("no folder for weights: neither DEFROST_WEIGHTS nor a home directory is set")
            .advise("set DEFROST_WEIGHTS, or name a file with --weights FILE")
    })
}

/// Where Keras keeps what it downloads: `models` in `KERAS_HOME` or in `~/.keras`.
pub fn keras_folder() -> Option<PathBuf> {
    let home = || set("HOME").or_else(|| set("USERPROFILE")).map(|home| PathBuf::from(home).join(".keras"));
    set("KERAS_HOME").map(PathBuf::from).or_else(home).map(|keras| keras.join("models"))
}

/// The converted weights of a backbone in a folder.
pub fn model_path(folder: &Path, backbone: &str) -> PathBuf {
    folder.join(format!("{backbone}.safetensors"))
}

/// Opens the converted ImageNet weights of a backbone.
///
/// # Errors
/// When they are not there, with what brings them; or when the file is damaged.
pub fn imagenet(backbone: &str) -> Result<ModelFile> {
    let path = model_path(&folder()?, backbone);
    if path.exists() {
        return ModelFile::open(&path).map_err(|e| e.advise(format!("`defrost weights verify {backbone}` says whether it is damaged")));
    }
    let by_hand = official().remove(backbone).map(|o| by_hand(&o.url)).unwrap_or_default();
    let what = format!("the ImageNet weights of {backbone} are not at {}", path.display());
    Err(Error::input(what).advise(format!("`defrost weights fetch {backbone}` brings them; without a network, first {by_hand}")))
}

/// How to do without a download: what `weights fetch` looks for before it asks the network.
pub fn by_hand(url: &str) -> String {
    let there = keras_folder().map_or("~/.keras/models".into(), |folder| folder.display().to_string());
    format!("put {url} into {there} by hand")
}

fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|v| !v.is_empty())
}

fn folder_by(set: &dyn Fn(&str) -> Option<OsString>, os: &str) -> Option<PathBuf> {
    let path = |name: &str| set(name).map(PathBuf::from);
    let cache = match os {
        "windows" => path("LOCALAPPDATA").or_else(|| path("USERPROFILE").map(|home| home.join("AppData").join("Local"))),
        "macos" => path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join("Library").join("Caches"))),
        _ => path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache"))),
    };
    path("DEFROST_WEIGHTS").or_else(|| cache.map(|cache| cache.join("defrost")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_follows_the_systems_conventions() {
        let with = |os: &str, set: &[(&str, &str)]| {
            let find = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
            folder_by(&find, os).map(|p| p.to_str().unwrap().replace('\\', "/"))
        };
        let home = ("HOME", "/home/a");
        assert_eq!(with("linux", &[home]).as_deref(), Some("/home/a/.cache/defrost"));
        assert_eq!(with("linux", &[home, ("XDG_CACHE_HOME", "/c")]).as_deref(), Some("/c/defrost"));
        assert_eq!(with("macos", &[home]).as_deref(), Some("/home/a/Library/Caches/defrost"));
        assert_eq!(with("windows", &[("LOCALAPPDATA", "C:/L")]).as_deref(), Some("C:/L/defrost"));
        assert_eq!(with("linux", &[home, ("DEFROST_WEIGHTS", "/w")]).as_deref(), Some("/w"));
        assert_eq!(with("linux", &[]), None);
    }
}
