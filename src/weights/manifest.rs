//! The official ImageNet weights: where they are and how a file is known to be one of them.

use serde::Deserialize;
use std::collections::BTreeMap;

/// An official weight file of Keras Applications, without classifier.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Official {
    /// The name under which Keras caches it.
    pub file: String,
    pub url: String,
    /// MD5 of the whole file in hexadecimal, as Keras states it.
    pub md5: String,
    /// Bytes.
    pub size: u64,
}

/// The official files by backbone name.
pub fn official() -> BTreeMap<String, Official> {
    toml::from_str(include_str!("../../weights/manifest.toml")).expect("the manifest is part of the program and tested")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_four_files() {
        let official = official();
        assert_eq!(official.keys().collect::<Vec<_>>(), ["densenet121", "inceptionv3", "vgg16", "xception"]);
        for o in official.values() {
            assert!(o.url.ends_with(&o.file) && o.file.ends_with("_notop.h5"), "{}", o.url);
            assert!(o.size > 20 << 20 && o.size < 100 << 20);
            assert!(o.md5.len() == 32 && o.md5.chars().all(|c| c.is_ascii_hexdigit()), "{}", o.md5);
        }
    }
}
