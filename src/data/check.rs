//! What is wrong with a folder of images, found before a training run rather than after it.
//!
//! Every file is read and decoded. Besides damage the report looks for what makes a result better than it is: the same
//! picture in training and validation, and what makes it worse: the same picture under two classes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use crate::data::dataset::sha256_hex;
use crate::data::decode::{decode, read_file};
use crate::data::listing::Listing;
use crate::data::phash::Fingerprint;
use crate::data::split::Split;
use crate::error::Result;

/// Images with a side shorter than this are tiny.
pub const TINY_SIDE: usize = 32;
/// Near duplicates differ in at most this many of the hash's 64 bits ...
pub const NEAR_BITS: u32 = 6;
/// ... and by at most this many grey levels, on average over the thumbnail. Chosen on five medical collections: pairs
/// that pass both are recompressed or resized copies and neighbouring video frames or slices; a look-alike is rare.
pub const NEAR_LEVELS: f32 = 10.0;

/// Everything found; all paths are relative to the folder, in the listing's order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Images listed, bad ones among them.
    pub images: usize,
    /// Images per class, in class order.
    pub classes: Vec<ClassCount>,
    /// Files that cannot be read.
    pub bad: Vec<Bad>,
    /// Files with the same bytes.
    pub duplicates: Vec<Alike>,
    /// Different files that show the same scene; of exact duplicates only the first takes part.
    pub near_duplicates: Vec<Alike>,
    /// Images with a side under [`TINY_SIDE`].
    pub tiny: Vec<Small>,
    /// Images of one colour.
    pub blank: Vec<String>,
    /// Images that carry an EXIF orientation, which Keras ignores.
    pub turned: Vec<String>,
    /// 16-bit gray images with values above 255, which become white as in Pillow.
    pub clipped: Vec<String>,
    /// The listing's warnings, and the split's.
    pub warnings: Vec<String>,
}

/// A class and its images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// Its name.
    pub name: String,
    /// How many images it has.
    pub images: usize,
}

/// A file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bad {
    /// The file.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Images that are the same or nearly so. Of near duplicates each resembles another one of the group, not every one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alike {
    /// The files.
    pub paths: Vec<String>,
    /// Whether they are in more than one class: a wrong label.
    pub across_classes: bool,
    /// Whether they are on both sides of the split: validation sees what was trained on.
    pub across_split: bool,
}

/// An image and its size in pixels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Small {
    /// The file.
    pub path: String,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// What is kept of one readable file.
struct Seen {
    sha256: String,
    width: usize,
    height: usize,
    turned: bool,
    clipped: bool,
    fingerprint: Fingerprint,
}

/// Reads every file of `listing` on all cores; `split` are indices into it. `progress(done, total)` is called after
/// each file, from several threads. A bad file is a finding, not an error.
pub fn check(listing: &Listing, split: Option<&Split>, progress: &(dyn Fn(usize, usize) + Sync)) -> Report {
    let done = AtomicUsize::new(0);
    let total = listing.files.len();
    let seen: Vec<Result<Seen>> = (0..total)
        .into_par_iter()
        .map(|index| {
            let seen = look(listing, index);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            seen
        })
        .collect();
    let path = |i: usize| listing.files[i].name();
    let where_true = |test: &dyn Fn(&Seen) -> bool| -> Vec<usize> { (0..total).filter(|&i| seen[i].as_ref().is_ok_and(test)).collect() };
    let names = |indices: Vec<usize>| indices.into_iter().map(path).collect();
    let size = |i: usize| seen[i].as_ref().map_or((0, 0), |s| (s.width, s.height));
    let sides = Sides::new(listing, split);
    let same = exact_groups(&seen);
    let mut warnings = listing.warnings.clone();
    warnings.extend(split.iter().flat_map(|s| s.warnings(&listing.classes, &listing.labels())));
    Report {
        images: total,
        classes: listing.classes.iter().cloned().zip(listing.class_counts()).map(|(name, images)| ClassCount { name, images }).collect(),
        bad: (0..total).filter_map(|i| seen[i].as_ref().err().map(|e| Bad { path: path(i), reason: e.what().to_string() })).collect(),
        near_duplicates: near_groups(&seen, &same).iter().map(|g| sides.alike(g)).collect(),
        duplicates: same.iter().filter(|g| g.len() > 1).map(|g| sides.alike(g)).collect(),
        tiny: where_true(&|s| s.width.min(s.height) < TINY_SIDE)
            .into_iter()
            .map(|i| Small { path: path(i), width: size(i).0, height: size(i).1 })
            .collect(),
        blank: names(where_true(&|s| s.fingerprint.is_blank())),
        turned: names(where_true(&|s| s.turned)),
        clipped: names(where_true(&|s| s.clipped)),
        warnings,
    }
}

fn look(listing: &Listing, index: usize) -> Result<Seen> {
    let bytes = read_file(&listing.full_path(index))?;
    let rgb = decode(&bytes, false)?;
    Ok(Seen {
        sha256: sha256_hex(&bytes),
        width: rgb.width,
        height: rgb.height,
        turned: rgb.orientation != 1,
        clipped: rgb.clipped,
        fingerprint: Fingerprint::of(&rgb),
    })
}

/// Class and side of the split of every file.
struct Sides<'a> {
    listing: &'a Listing,
    /// 0 nowhere, 1 training, 2 validation.
    side: Vec<u8>,
}

impl Sides<'_> {
    fn new<'a>(listing: &'a Listing, split: Option<&Split>) -> Sides<'a> {
        let mut side = vec![0; listing.files.len()];
        for (indices, number) in split.iter().flat_map(|s| [(&s.train, 1), (&s.val, 2)]) {
            indices.iter().for_each(|&i| side[i] = number);
        }
        Sides { listing, side }
    }

    fn alike(&self, group: &[usize]) -> Alike {
        let has = |side: u8| group.iter().any(|&i| self.side[i] == side);
        Alike {
            paths: group.iter().map(|&i| self.listing.files[i].name()).collect(),
            across_classes: group.iter().any(|&i| self.listing.files[i].class != self.listing.files[group[0]].class),
            across_split: has(1) && has(2),
        }
    }
}

/// Readable files by their bytes, each group and the list of groups in the listing's order.
fn exact_groups(seen: &[Result<Seen>]) -> Vec<Vec<usize>> {
    let mut by_hash: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, file) in seen.iter().enumerate() {
        if let Ok(file) = file {
            by_hash.entry(&file.sha256).or_default().push(i);
        }
    }
    let mut groups: Vec<Vec<usize>> = by_hash.into_values().collect();
    groups.sort();
    groups
}

/// Groups of two or more different files, linked by pairs that are near. Blank images resemble everything and are left
/// out.
fn near_groups(seen: &[Result<Seen>], same: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let candidates: Vec<(usize, &Fingerprint)> = same
        .iter()
        .filter_map(|group| seen[group[0]].as_ref().ok().map(|s| (group[0], &s.fingerprint)))
        .filter(|(_, f)| !f.is_blank())
        .collect();
    let pairs: Vec<(usize, usize)> = (0..candidates.len())
        .into_par_iter()
        .flat_map_iter(|a| {
            let (i, first) = candidates[a];
            let near = |f: &Fingerprint| first.distance(f) <= NEAR_BITS && first.difference(f) <= NEAR_LEVELS;
            candidates[a + 1..].iter().filter(move |(_, f)| near(f)).map(move |&(j, _)| (i, j))
        })
        .collect();
    // The smallest index that each file is linked to, directly or over others.
    let mut root: BTreeMap<usize, usize> = BTreeMap::new();
    let find = |root: &BTreeMap<usize, usize>, mut i: usize| {
        while let Some(&up) = root.get(&i).filter(|&&up| up != i) {
            i = up;
        }
        i
    };
    for (i, j) in pairs {
        let (a, b) = (find(&root, i), find(&root, j));
        let top = a.min(b);
        for k in [i, j, a, b] {
            root.insert(k, top);
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for &i in root.keys() {
        groups.entry(find(&root, i)).or_default().push(i);
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::split::keras_split;
    use crate::data::testing::{Folder, png, shared};

    /// A picture of waves; `phase` makes another one.
    fn waves(side: u32, phase: f32) -> Vec<u8> {
        let pixel = |i: u32| {
            let (x, y) = ((i % side) as f32 / side as f32, (i / side) as f32 / side as f32);
            [(120.0 + 90.0 * (phase * x + 7.0 * y * y).sin() * (3.0 * phase * y - 4.0 * x * y).cos()) as u8; 3]
        };
        png(side, side, &(0..side * side).flat_map(pixel).collect::<Vec<u8>>())
    }

    #[test]
    fn every_kind_of_finding_is_reported() {
        let f = Folder::new("check");
        f.write("a/1.png", &waves(64, 5.0));
        f.write("a/2.png", &waves(80, 5.0));
        f.write("a/3.png", &waves(64, 9.0));
        f.write("a/4.png", &waves(64, 9.0));
        f.write("b/1.png", &waves(64, 9.0));
        f.write("b/2.png", &waves(20, 13.0));
        f.write("b/3.png", &png(64, 64, &[7; 64 * 64 * 3]));
        f.write("b/4.jpg", b"");
        f.write("stray.png", b"");
        let listing = Listing::read(f.path(), None).unwrap();
        let split = Split { train: vec![0, 2, 3, 4, 5, 6], val: vec![1, 7] };
        let report = check(&listing, Some(&split), &|_, _| ());
        assert_eq!((report.images, report.classes.iter().map(|c| c.images).collect::<Vec<_>>()), (8, vec![4, 4]));
        assert_eq!(report.bad, [Bad { path: "b/4.jpg".into(), reason: "the file is empty".into() }]);
        let alike = |paths: &[&str], across_classes, across_split| Alike {
            paths: paths.iter().map(|p| p.to_string()).collect(),
            across_classes,
            across_split,
        };
        assert_eq!(report.duplicates, [alike(&["a/3.png", "a/4.png", "b/1.png"], true, false)]);
        assert_eq!(report.near_duplicates, [alike(&["a/1.png", "a/2.png"], false, true)]);
        assert_eq!(report.tiny, [Small { path: "b/2.png".into(), width: 20, height: 20 }]);
        assert_eq!((report.blank, report.turned.len(), report.clipped.len()), (vec!["b/3.png".to_string()], 0, 0));
        assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    }

    #[test]
    fn real_folders_have_the_duplicates_their_description_names() {
        let Some(path) = shared("data/images/isic-skin-9") else { return };
        let listing = Listing::read(&path, None).unwrap();
        let report = check(&listing, Some(&keras_split(listing.files.len(), 0.2, 42).unwrap()), &|_, _| ());
        // `sha256sum` finds the same 21 pictures in two classes each.
        assert_eq!(report.duplicates.iter().filter(|d| d.across_classes).count(), 21);
        assert!(report.bad.is_empty() && report.duplicates.iter().any(|d| d.across_split));
        let Some(path) = shared("data/images/breast-ultrasound-3") else { return };
        let report = check(&Listing::read(&path, None).unwrap(), None, &|_, _| ());
        let across: Vec<_> = report.near_duplicates.iter().filter(|d| d.across_classes).map(|d| &d.paths[..]).collect();
        assert_eq!(across, [["benign/benign (437).png", "normal/normal (34).png"]]);
    }
}
