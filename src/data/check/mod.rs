//! What is wrong with a collection of images, found before a training run rather than after it.
//!
//! Besides damage the report looks for what makes a result better than it is: the same picture in training and
//! validation, and what makes it worse: the same picture under two classes. It reads a [`Catalog`] and no file, so that a
//! training run, which decodes everything anyway, has it for nothing.

mod alike;
mod sentences;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::data::catalog::{Bad, Catalog};
use crate::data::listing::class_counts;
use crate::data::portrait::Portrait;
use crate::data::sniff::Format;
use crate::data::split::Split;

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
    /// Images that can be read.
    pub images: usize,
    /// Images per class, in class order.
    pub classes: Vec<ClassCount>,
    /// Images per format.
    pub formats: BTreeMap<String, usize>,
    /// The image of the fewest pixels and that of the most.
    pub sizes: Option<[Size; 2]>,
    /// Files that cannot be read.
    pub bad: Vec<Bad>,
    /// Files whose names promise another format; they are read by their content.
    pub misnamed: Vec<Misnamed>,
    /// Files with the same bytes.
    pub duplicates: Vec<Alike>,
    /// Different files that show the same scene; of exact duplicates only the first takes part.
    pub near_duplicates: Vec<Alike>,
    /// Images with a side under [`TINY_SIDE`].
    pub tiny: Vec<Size>,
    /// Images of one colour.
    pub blank: Vec<String>,
    /// Images that carry an EXIF orientation, which Keras ignores.
    pub turned: Vec<String>,
    /// 16-bit gray images with values above 255, which become white as in Pillow.
    pub clipped: Vec<String>,
    /// How many groups (patients, videos) there are, where groups are known.
    pub groups: Option<usize>,
    /// Groups on both sides of the split.
    pub groups_across_split: Vec<String>,
    /// What else a user should know.
    pub warnings: Vec<String>,
}

/// A class and its images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    pub name: String,
    /// Those that can be read.
    pub images: usize,
    /// Those that the split trains on.
    pub train: usize,
    /// Those that it validates on.
    pub val: usize,
}

/// A file that is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Misnamed {
    pub path: String,
    pub content: Format,
}

/// Images that are the same or nearly so. Of near duplicates each resembles another one of the group, not every one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alike {
    pub paths: Vec<String>,
    /// Whether they are in more than one class: a wrong label.
    pub across_classes: bool,
    /// Whether they are on both sides of the split: validation sees what was trained on.
    pub across_split: bool,
}

/// An image and its size in pixels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    pub path: String,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Report {
    /// Looks through a catalog. `split` are indices into it; `groups` has one for each image.
    pub fn new(catalog: &Catalog, split: &Split, groups: Option<&[String]>, mut warnings: Vec<String>) -> Report {
        let c = catalog;
        let chosen = |test: &dyn Fn(&Portrait) -> bool| (0..c.len()).filter(|&i| test(&c.portraits[i])).collect::<Vec<_>>();
        let names = |indices: Vec<usize>| indices.into_iter().map(|i| c.paths[i].clone()).collect();
        let size = |i: usize| Size { path: c.paths[i].clone(), width: c.portraits[i].width, height: c.portraits[i].height };
        let pixels = |&i: &usize| c.portraits[i].width * c.portraits[i].height;
        let extremes = (0..c.len()).min_by_key(pixels).zip((0..c.len()).rev().max_by_key(pixels));
        let misnamed = |i: usize| c.portraits[i].misnamed(&c.paths[i]).map(|_| (c.paths[i].clone(), c.portraits[i].format));
        let mut formats = BTreeMap::new();
        c.portraits.iter().for_each(|p| *formats.entry(p.format.to_string()).or_insert(0) += 1);
        let (sides, same) = (Sides::new(c, split), alike::exact_groups(&c.sha256));
        warnings.extend(split.warnings(&c.classes, &c.labels));
        Report {
            images: c.len(),
            classes: sides.classes(split),
            formats,
            sizes: extremes.map(|(a, b)| [size(a), size(b)]),
            bad: c.bad.clone(),
            misnamed: (0..c.len()).filter_map(misnamed).map(|(path, content)| Misnamed { path, content }).collect(),
            near_duplicates: alike::near_groups(&c.portraits, &same).iter().map(|g| sides.alike(g)).collect(),
            duplicates: same.iter().filter(|g| g.len() > 1).map(|g| sides.alike(g)).collect(),
            tiny: chosen(&|p| p.width.min(p.height) < TINY_SIDE).into_iter().map(size).collect(),
            blank: names(chosen(&|p| p.fingerprint.is_blank())),
            turned: names(chosen(&|p| p.orientation != 1)),
            clipped: names(chosen(&|p| p.clipped)),
            groups: groups.map(|groups| groups.iter().collect::<BTreeSet<_>>().len()),
            groups_across_split: groups.map_or(Vec::new(), |groups| groups_across(split, groups)),
            warnings,
        }
    }
}

/// Groups with images on both sides.
fn groups_across(split: &Split, groups: &[String]) -> Vec<String> {
    let side = |indices: &[usize]| indices.iter().map(|&i| groups[i].as_str()).collect::<BTreeSet<_>>();
    side(&split.train).intersection(&side(&split.val)).map(|g| g.to_string()).collect()
}

/// Class and side of the split of every image.
struct Sides<'a> {
    catalog: &'a Catalog,
    /// 0 nowhere, 1 training, 2 validation.
    side: Vec<u8>,
}

impl Sides<'_> {
    fn new<'a>(catalog: &'a Catalog, split: &Split) -> Sides<'a> {
        let mut side = vec![0; catalog.len()];
        for (indices, number) in [(&split.train, 1), (&split.val, 2)] {
            indices.iter().for_each(|&i| side[i] = number);
        }
        Sides { catalog, side }
    }

    fn classes(&self, split: &Split) -> Vec<ClassCount> {
        let c = self.catalog;
        let count = |indices: &[usize]| class_counts(c.classes.len(), indices.iter().map(|&i| c.labels[i]));
        let (all, train, val) = (c.class_counts(), count(&split.train), count(&split.val));
        let class = |(i, name): (usize, &String)| ClassCount { name: name.clone(), images: all[i], train: train[i], val: val[i] };
        c.classes.iter().enumerate().map(class).collect()
    }

    fn alike(&self, group: &[usize]) -> Alike {
        let has = |side: u8| group.iter().any(|&i| self.side[i] == side);
        Alike {
            paths: group.iter().map(|&i| self.catalog.paths[i].clone()).collect(),
            across_classes: group.iter().any(|&i| self.catalog.labels[i] != self.catalog.labels[group[0]]),
            across_split: has(1) && has(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::listing::Listing;
    use crate::data::load::look;
    use crate::data::split::keras_split;
    use std::path::Path;

    /// The catalog of a folder and its report by the default split.
    fn report(path: &Path) -> Report {
        let listing = Listing::read(path, None).unwrap();
        let catalog = look(&listing, false, &|_, _, _| ());
        let split = keras_split(catalog.len(), 0.2, 42).unwrap();
        Report::new(&catalog, &split, None, listing.warnings)
    }
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
        f.write("b/5.jpg", &waves(64, 21.0));
        let listing = Listing::read(f.path(), None).unwrap();
        let catalog = look(&listing, false, &|_, _, _| ());
        let split = Split { train: vec![0, 2, 3, 4, 5, 6], val: vec![1, 7] };
        let groups = ["x", "y", "x", "x", "x", "x", "z", "z"].map(String::from);
        let report = Report::new(&catalog, &split, Some(&groups), listing.warnings);
        assert_eq!(
            (report.images, report.classes.iter().map(|c| (c.images, c.train, c.val)).collect::<Vec<_>>()),
            (8, vec![(4, 3, 1), (4, 3, 1)])
        );
        assert_eq!(report.bad, [Bad { path: "b/4.jpg".into(), reason: "the file is empty".into() }]);
        assert_eq!(report.misnamed, [Misnamed { path: "b/5.jpg".into(), content: Format::Png }]);
        assert_eq!((report.formats["PNG"], report.groups, &*report.groups_across_split), (8, Some(3), &["z".to_string()][..]));
        let [smallest, largest] = report.sizes.clone().unwrap();
        assert_eq!((smallest.path, largest.width), ("b/2.png".into(), 80));
        let alike = |paths: &[&str], across_classes, across_split| Alike {
            paths: paths.iter().map(|p| p.to_string()).collect(),
            across_classes,
            across_split,
        };
        assert_eq!(report.duplicates, [alike(&["a/3.png", "a/4.png", "b/1.png"], true, false)]);
        assert_eq!(report.near_duplicates, [alike(&["a/1.png", "a/2.png"], false, true)]);
        assert_eq!(report.tiny, [Size { path: "b/2.png".into(), width: 20, height: 20 }]);
        assert_eq!((report.blank.clone(), report.turned.len(), report.clipped.len()), (vec!["b/3.png".to_string()], 0, 0));
        assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
        let said = report.sentences();
        for part in [
            "1 image lies outside the class folders",
            "1 image that cannot be read, left out (first: b/4.jpg)",
            "1 picture under more than one class (first: a/3.png, a/4.png, b/1.png)",
            "1 group on both sides of the split, which flatters validation (first: z)",
            "1 set of near duplicates on both sides of the split, which flatters validation (first: a/1.png, a/2.png)",
            "1 image with a side under 32 pixels (first: b/2.png)",
            "1 image of one colour (first: b/3.png)",
            "1 file not of the format that the name says, read by content (first: b/5.jpg)",
        ] {
            assert!(said.iter().any(|s| s.starts_with(part)), "{part}: {said:#?}");
        }
        assert_eq!(said.len(), 8, "{said:#?}");
    }

    #[test]
    fn real_folders_have_the_duplicates_their_description_names() {
        let Some(path) = shared("data/images/isic-skin-9") else { return };
        let report = report(&path);
        // `sha256sum` finds the same 21 pictures in two classes each.
        assert_eq!(report.duplicates.iter().filter(|d| d.across_classes).count(), 21);
        assert!(report.bad.is_empty() && report.duplicates.iter().any(|d| d.across_split));
        let Some(path) = shared("data/images/breast-ultrasound-3") else { return };
        let report = super::tests::report(&path);
        let across: Vec<_> = report.near_duplicates.iter().filter(|d| d.across_classes).map(|d| &d.paths[..]).collect();
        assert_eq!(across, [["benign/benign (437).png", "normal/normal (34).png"]]);
    }
}
