//! Which images a folder of class folders holds, in the order Keras' `image_dataset_from_directory` lists them.
//!
//! Classes are the immediate subfolders in code-point order; inside a class the walk visits folders by their full path
//! as one string, and the names in each folder sorted. The order matters: the seeded split shuffles this very list.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::data::catalog::Bad;
use crate::error::{Error, Result};

/// The endings that count as images, in any case; what a file really is, its content decides when it is decoded.
pub const EXTENSIONS: [&str; 5] = [".bmp", ".gif", ".jpeg", ".jpg", ".png"];

/// Endings of pictures that are not read; what else lies in a folder is nobody's concern.
const OTHERS: [&str; 16] = [
    ".avif", ".dcm", ".dicom", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".nii", ".nii.gz", ".pgm", ".ppm", ".svs", ".tif", ".tiff",
    ".webp",
];

/// The images under a folder of class folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The folder that holds the class folders.
    pub root: PathBuf,
    /// Class names; a label is an index into this.
    pub classes: Vec<String>,
    /// All images, class by class.
    pub files: Vec<Entry>,
    /// From which file on they lie in a folder of their own for validation, if there is one.
    pub val_from: Option<usize>,
    /// What a user should know although it is no error: a class without images, images outside any class.
    pub warnings: Vec<String>,
}

/// One image of a [`Listing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the listing's root.
    pub path: PathBuf,
    /// Index into the listing's classes: its top-level folder.
    pub class: usize,
}

impl Entry {
    /// The path as text, with `/` between its parts on every system.
    pub fn name(&self) -> String {
        portable_name(&self.path)
    }
}

impl Listing {
    /// Lists the images under `root`. `classes` fixes the order of the classes and may leave some out; without it they
    /// are the subfolders whose names do not start with a dot, sorted by code point.
    ///
    /// A class folder may itself be a symbolic link; links to folders further down are not followed.
    ///
    /// # Errors
    /// Kind `Input`: `root` is not a folder, holds no class folders or fewer than two, holds no images, or a named
    /// class is missing or named twice.
    pub fn read(root: &Path, classes: Option<&[String]>) -> Result<Listing> {
        let (folders, stray) = top_level(root)?;
        let classes = match classes {
            Some(wanted) => chosen_classes(root, wanted, &folders)?,
            None => folders,
        };
        if classes.len() < 2 {
            return Err(Error::input(format!("only one class folder, `{}`; a classifier needs at least two", classes.concat()))
                .at(root.display())
                .advise("expected DATA/CLASS/image.jpg; is this the folder of one class?"));
        }
        let mut files = Vec::new();
        let (mut others, mut warnings) = (Vec::new(), Vec::new());
        for (class, name) in classes.iter().enumerate() {
            let before = files.len();
            files.extend(walk(root, Path::new(name), &mut others)?.into_iter().map(|path| Entry { path, class }));
            if files.len() == before {
                warnings.push(format!("class `{name}` has no images"));
            }
        }
        if files.is_empty() {
            return Err(Error::input(format!("no images in its {} class folders", classes.len()))
                .at(root.display())
                .advise(format!("files that end in {} count, in upper or lower case", EXTENSIONS.join(" "))));
        }
        match stray {
            0 => {}
            1 => warnings.push("1 image lies outside the class folders and is not used".into()),
            _ => warnings.push(format!("{stray} images lie outside the class folders and are not used")),
        }
        warnings.extend(other_kinds(&others));
        Ok(Listing { root: root.to_path_buf(), classes, files, val_from: None, warnings })
    }

    /// Lists a separate validation folder, whose class folders must be exactly those of `self`; labels agree with it.
    ///
    /// # Errors
    /// As [`Listing::read`], and when the class names differ, naming the differences.
    pub fn read_validation(&self, root: &Path) -> Result<Listing> {
        if let Some(found) = differences(&self.classes, &top_level(root)?.0) {
            return Err(Error::input(format!("its classes are not those of the training folder ({found})")).at(root.display()));
        }
        Listing::read(root, Some(&self.classes))
    }

    /// The listing of some of its files, in the order of their indices.
    pub fn only(&self, indices: &[usize]) -> Listing {
        let files = indices.iter().map(|&i| self.files[i].clone()).collect();
        let val_from = self.val_from.map(|from| indices.iter().filter(|&&i| i < from).count());
        Listing { files, val_from, ..self.clone() }
    }

    /// The listing without files that cannot be read.
    pub fn without(&self, bad: &[Bad]) -> Listing {
        let bad: HashSet<&str> = bad.iter().map(|b| b.path.as_str()).collect();
        let good: Vec<usize> = (0..self.files.len()).filter(|&i| !bad.contains(self.files[i].name().as_str())).collect();
        self.only(&good)
    }

    /// Labels of all files, in order.
    pub fn labels(&self) -> Vec<usize> {
        self.files.iter().map(|f| f.class).collect()
    }

    /// Images per class, in class order.
    pub fn class_counts(&self) -> Vec<usize> {
        class_counts(self.classes.len(), self.files.iter().map(|f| f.class))
    }

    /// The full path of one file.
    pub fn full_path(&self, index: usize) -> PathBuf {
        self.root.join(&self.files[index].path)
    }
}

/// How often each of `classes` labels occurs.
pub fn class_counts(classes: usize, labels: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut counts = vec![0; classes];
    labels.into_iter().for_each(|label| counts[label] += 1);
    counts
}

/// The images at `path` for a prediction: the file itself, whatever it is called, or all images under a folder in the
/// order of a class folder's walk.
///
/// # Errors
/// Kind `Input`: nothing at `path`, or a folder without images.
pub fn find_images(path: &Path) -> Result<Vec<PathBuf>> {
    let kind = fs::metadata(path).map_err(|e| Error::io(path, &e))?;
    if !kind.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let found = walk(path, Path::new(""), &mut Vec::new())?;
    if found.is_empty() {
        return Err(Error::input("no images in this folder")
            .at(path.display())
            .advise(format!("files that end in {} count, in upper or lower case", EXTENSIONS.join(" "))));
    }
    Ok(found.into_iter().map(|p| path.join(p)).collect())
}

/// A path as text with `/` between its parts; a name that is not Unicode shows its odd parts as U+FFFD.
pub fn portable_name(path: &Path) -> String {
    path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// What tells the class folders from those that are expected, if anything: `missing: a; unknown: b, c`.
pub(super) fn differences(expected: &[String], folders: &[String]) -> Option<String> {
    let only = |ours: &[String], theirs: &[String]| -> Vec<String> { ours.iter().filter(|c| !theirs.contains(c)).cloned().collect() };
    let parts = [("missing", only(expected, folders)), ("unknown", only(folders, expected))];
    let told: Vec<String> = parts.iter().filter(|(_, n)| !n.is_empty()).map(|(what, n)| format!("{what}: {}", n.join(", "))).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// The class folders at the top, sorted, and the number of images that lie beside them.
pub(super) fn top_level(root: &Path) -> Result<(Vec<String>, usize)> {
    let kind = fs::metadata(root).map_err(|e| Error::io(root, &e))?;
    if !kind.is_dir() {
        return Err(Error::input("not a folder; expected a folder of class folders (DATA/CLASS/image.jpg)").at(root.display()));
    }
    let mut folders = Vec::new();
    let mut stray = 0;
    for entry in fs::read_dir(root).map_err(|e| Error::io(root, &e))? {
        let entry = entry.map_err(|e| Error::io(root, &e))?;
        let name = entry.file_name();
        // `fs::metadata` follows a link: a linked class folder is a class, as it is for Keras.
        if !fs::metadata(entry.path()).is_ok_and(|m| m.is_dir()) {
            stray += usize::from(has_image_extension(&name));
        } else if !name.as_encoded_bytes().starts_with(b".") {
            let name = name.into_string().map_err(|n| {
                Error::input(format!("the name of the class folder `{}` is not Unicode", n.to_string_lossy()))
                    .at(root.display())
                    .advise("rename the folder")
            })?;
            folders.push(name);
        }
    }
    if folders.is_empty() {
        return Err(Error::input("no class folders in it")
            .at(root.display())
            .advise("expected DATA/CLASS/image.jpg: one subfolder per class, named after it"));
    }
    // UTF-8 byte order is code-point order, which is Python's order of `str`.
    folders.sort();
    Ok((folders, stray))
}

fn chosen_classes(root: &Path, wanted: &[String], folders: &[String]) -> Result<Vec<String>> {
    let missing: Vec<_> = wanted.iter().filter(|c| !folders.contains(c)).map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(
            Error::input(format!("no class folder for {}; the folders are {}", missing.join(", "), folders.join(", "))).at(root.display())
        );
    }
    if let Some((_, name)) = wanted.iter().enumerate().find(|(i, c)| wanted[..*i].contains(c)) {
        return Err(Error::input(format!("class `{name}` is named twice")));
    }
    Ok(wanted.to_vec())
}

fn has_image_extension(name: &OsStr) -> bool {
    EXTENSIONS.iter().any(|ending| ends_with(name, ending))
}

/// Whether a name ends so, in upper or lower case.
fn ends_with(name: &OsStr, ending: &str) -> bool {
    let name = name.as_encoded_bytes();
    name.len() >= ending.len() && name[name.len() - ending.len()..].eq_ignore_ascii_case(ending.as_bytes())
}

/// `pictures that are not read and not used: 2 .tif, 1 .webp (first: a/scan.tif); convert them to PNG or JPEG`.
fn other_kinds(others: &[PathBuf]) -> Option<String> {
    let first = others.iter().map(|path| portable_name(path)).min()?;
    let of = |ending: &str| others.iter().filter(|path| ends_with(path.as_os_str(), ending)).count();
    let counts = OTHERS.iter().map(|ending| (of(ending), ending)).filter(|(count, _)| *count > 0);
    let kinds: Vec<String> = counts.map(|(count, ending)| format!("{count} {ending}")).collect();
    Some(format!("pictures that are not read and not used: {} (first: {first}); convert them to PNG or JPEG", kinds.join(", ")))
}

/// Images under `root/top`, relative to `root`; pictures of other kinds go to `others`.
///
/// The key of a folder is its path as one string: `a-b` comes before `a/c`, because `-` sorts before `/`; comparing
/// paths part by part would swap them.
fn walk(root: &Path, top: &Path, others: &mut Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let mut folders: BTreeMap<Vec<u8>, (PathBuf, Vec<OsString>)> = BTreeMap::new();
    let mut pending = vec![top.to_path_buf()];
    while let Some(folder) = pending.pop() {
        let full = root.join(&folder);
        let mut names = Vec::new();
        for entry in fs::read_dir(&full).map_err(|e| Error::io(&full, &e))? {
            let entry = entry.map_err(|e| Error::io(&full, &e))?;
            let kind = entry.file_type().map_err(|e| Error::io(entry.path(), &e))?;
            let name = entry.file_name();
            if kind.is_dir() {
                pending.push(folder.join(&name));
            } else if has_image_extension(&name) && !(kind.is_symlink() && entry.path().is_dir()) {
                names.push(name);
            } else if OTHERS.iter().any(|ending| ends_with(&name, ending)) {
                others.push(folder.join(&name));
            }
        }
        names.sort_by(|a, b| a.as_encoded_bytes().cmp(b.as_encoded_bytes()));
        folders.insert(folder.as_os_str().as_encoded_bytes().to_vec(), (folder, names));
    }
    Ok(folders.into_values().flat_map(|(folder, names)| names.into_iter().map(move |n| folder.join(n))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Folder, shared};

    fn names(listing: &Listing) -> Vec<String> {
        listing.files.iter().map(Entry::name).collect()
    }

    #[test]
    fn the_order_is_that_of_keras() {
        let f = Folder::new("listing-order");
        for path in
            ["b/1.JPG", "b/a/c/d.png", "b/a-b/z.gif", "b/10.jpeg", "b/2.bmp", "B/x.jpg", "é/y.png", "b/note.txt", ".hidden/h.png", "b/.jpg"]
        {
            f.write(path, b"");
        }
        let listing = Listing::read(f.path(), None).unwrap();
        assert_eq!(listing.classes, ["B", "b", "é"]);
        assert_eq!(names(&listing), ["B/x.jpg", "b/.jpg", "b/1.JPG", "b/10.jpeg", "b/2.bmp", "b/a-b/z.gif", "b/a/c/d.png", "é/y.png"]);
        assert_eq!(listing.labels(), [0, 1, 1, 1, 1, 1, 1, 2]);
        assert_eq!(listing.class_counts(), [1, 6, 1]);
        assert!(listing.warnings.is_empty());
    }

    #[test]
    fn a_given_order_of_classes_fixes_the_labels_and_may_leave_some_out() {
        let f = Folder::new("listing-classes");
        f.touch(&["a/1.png", "b/1.png", "c/1.png"]);
        let wanted = ["c".to_string(), "a".to_string()];
        let listing = Listing::read(f.path(), Some(&wanted)).unwrap();
        assert_eq!((names(&listing), listing.labels()), (vec!["c/1.png".into(), "a/1.png".into()], vec![0, 1]));
        let e = Listing::read(f.path(), Some(&["a".to_string(), "z".to_string()])).unwrap_err();
        assert!(e.to_string().contains("no class folder for z"), "{e}");
        let e = Listing::read(f.path(), Some(&["a".to_string(), "a".to_string()])).unwrap_err();
        assert!(e.to_string().contains("`a` is named twice"), "{e}");
    }

    #[cfg(unix)]
    #[test]
    fn linked_folders_inside_a_class_are_not_followed_but_linked_files_and_classes_are() {
        let f = Folder::new("listing-links");
        f.touch(&["a/1.png", "b/2.png", "elsewhere.d/3.png"]);
        let link = |from: &str, to: &str| std::os::unix::fs::symlink(f.path().join(to), f.path().join(from)).unwrap();
        link("a/inner", "b");
        link("a/folder.png", "b");
        link("a/file.png", "b/2.png");
        link("c", "b");
        let listing = Listing::read(f.path(), None).unwrap();
        assert_eq!(names(&listing), ["a/1.png", "a/file.png", "b/2.png", "c/2.png", "elsewhere.d/3.png"]);
    }

    #[test]
    fn what_is_wrong_with_a_folder_is_said() {
        let f = Folder::new("listing-wrong");
        let says = |path: &Path, text: &str| {
            let e = Listing::read(path, None).unwrap_err();
            assert!(e.to_string().contains(text), "{e}");
            assert_eq!(e.exit_code(), 2);
        };
        says(&f.path().join("absent"), "absent");
        f.write("file.png", b"");
        says(&f.path().join("file.png"), "not a folder");
        says(f.path(), "no class folders");
        f.write("a/readme.txt", b"");
        says(f.path(), "only one class folder, `a`");
        f.write("b/readme.txt", b"");
        says(f.path(), ".bmp .gif .jpeg .jpg .png");
        f.write("b/1.png", b"");
        assert_eq!(
            Listing::read(f.path(), None).unwrap().warnings,
            ["class `a` has no images", "1 image lies outside the class folders and is not used"]
        );
    }

    #[test]
    fn pictures_of_other_kinds_are_not_passed_over_in_silence() {
        let f = Folder::new("listing-others");
        f.touch(&[
            "a/1.png",
            "b/2.png",
            "b/scan.TIF",
            "b/deep/old.tif",
            "a/x.webp",
            "a/slide.dcm",
            "a/notes.txt",
            "a/.DS_Store",
            "a/Thumbs.db",
        ]);
        let said = "pictures that are not read and not used: 1 .dcm, 2 .tif, 1 .webp (first: a/slide.dcm); convert them to PNG or JPEG";
        assert_eq!(Listing::read(f.path(), None).unwrap().warnings, [said]);
    }

    #[test]
    fn a_validation_folder_must_have_the_same_classes() {
        let f = Folder::new("listing-validation");
        f.touch(&["t/a/1.png", "t/b/1.png", "v/a/2.png", "v/b/2.png", "w/a/3.png", "w/c/3.png"]);
        let train = Listing::read(&f.path().join("t"), Some(&["b".into(), "a".into()])).unwrap();
        let val = train.read_validation(&f.path().join("v")).unwrap();
        assert_eq!((names(&val), val.classes), (vec!["b/2.png".into(), "a/2.png".into()], train.classes.clone()));
        let e = train.read_validation(&f.path().join("w")).unwrap_err();
        assert!(e.to_string().contains("missing: b; unknown: c"), "{e}");
    }

    #[test]
    fn a_prediction_takes_one_image_or_a_folder() {
        let f = Folder::new("listing-find");
        f.touch(&["x/b.png", "x/a/z.jpg", "x/notes.txt", "y/notes.txt"]);
        let found = find_images(&f.path().join("x")).unwrap();
        assert_eq!(found, [f.path().join("x/b.png"), f.path().join("x/a/z.jpg")]);
        assert_eq!(find_images(&f.path().join("x/notes.txt")).unwrap().len(), 1);
        assert!(find_images(&f.path().join("y")).unwrap_err().to_string().contains("no images"));
        assert!(find_images(&f.path().join("none")).is_err());
    }

    #[test]
    fn real_folders_hold_what_their_description_says() {
        for (folder, classes, each) in [("hyperkvasir-5", 5, 100), ("isic-skin-9", 9, 77), ("brain-mri-4", 4, 60)] {
            let Some(path) = shared(&format!("data/images/{folder}")) else { return };
            assert_eq!(Listing::read(&path, None).unwrap().class_counts(), vec![each; classes], "{folder}");
        }
    }
}
