//! All readable images of a listing with what is known of each, and the files that cannot be read.

use serde::Serialize;

use crate::data::listing::{Listing, class_counts};
use crate::data::portrait::Portrait;
use crate::error::{Error, Result};

/// Bad files that an error names; `defrost check` names all.
const SHOWN: usize = 1000;

/// The images of a folder without their pixels; all lists of images are in the listing's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalog {
    /// Class names; a label is an index into this.
    pub classes: Vec<String>,
    /// One label per image.
    pub labels: Vec<usize>,
    /// Paths relative to the listing's root, `/` between the parts.
    pub paths: Vec<String>,
    /// SHA-256 of each file's bytes, in hex.
    pub sha256: Vec<String>,
    /// Size, format and looks of each.
    pub portraits: Vec<Portrait>,
    /// From which image on they lie in a folder of their own for validation, if there is one.
    pub val_from: Option<usize>,
    /// Files that cannot be read; they have no place in the lists above.
    pub bad: Vec<Bad>,
    /// What a user should know of how they were read.
    pub warnings: Vec<String>,
}

/// A file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// The file, relative to the listing's root.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What came of one file: the SHA-256 of its bytes in hex and its portrait, or why there is none.
pub type Looked = Result<(String, Portrait)>;

impl Catalog {
    /// The catalog of a listing's files, one result each; and for every image in it the file's index.
    pub fn new(listing: &Listing, looked: Vec<Looked>) -> (Catalog, Vec<usize>) {
        let (mut sha256, mut portraits, mut bad, mut good) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, result) in looked.into_iter().enumerate() {
            match result {
                Ok((hash, portrait)) => {
                    sha256.push(hash);
                    portraits.push(portrait);
                    good.push(index);
                }
                Err(e) => bad.push(Bad { path: listing.files[index].name(), reason: e.what().to_string() }),
            }
        }
        let rest = listing.only(&good);
        let catalog = Catalog {
            classes: rest.classes.clone(),
            labels: rest.labels(),
            paths: rest.files.iter().map(|f| f.name()).collect(),
            sha256,
            portraits,
            val_from: rest.val_from,
            bad,
            warnings: Vec::new(),
        };
        (catalog, good)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether it holds no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Images per class, in class order.
    pub fn class_counts(&self) -> Vec<usize> {
        class_counts(self.classes.len(), self.labels.iter().copied())
    }

    /// Nothing, if all files could be read.
    ///
    /// # Errors
    /// Kind `Input`: the bad files with their reasons, up to a thousand.
    pub fn all_good(&self, listing: &Listing) -> Result<()> {
        if self.bad.is_empty() {
            return Ok(());
        }
        let mut lines: Vec<String> = self.bad.iter().take(SHOWN).map(|b| format!("{}: {}", b.path, b.reason)).collect();
        if self.bad.len() > SHOWN {
            lines.push(format!("and {} more, which `defrost check` lists", self.bad.len() - SHOWN));
        }
        let what = format!("{} of {} images cannot be read\n  {}", self.bad.len(), listing.files.len(), lines.join("\n  "));
        Err(Error::input(what).at(listing.root.display()).advise("mend or remove them, or leave them out with --on-bad-image skip"))
    }
}
