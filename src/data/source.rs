//! Which folders images come from: DATA, perhaps another one for validation; and a file that fixes the order of the classes.

use std::path::{Component, Path, PathBuf};

use crate::data::listing::{Listing, differences, top_level};
use crate::error::{Error, Result};

/// Where the images of a run are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A folder of class folders; all of it is trained on if there is a `val_dir`.
    pub data: PathBuf,
    /// A folder of the same class folders, to validate on.
    pub val_dir: Option<PathBuf>,
    /// A text file with the names of the classes, one a line, in the order of their labels.
    pub classes: Option<PathBuf>,
}

impl Source {
    /// A folder alone.
    pub fn new(data: impl Into<PathBuf>) -> Source {
        Source { data: data.into(), val_dir: None, classes: None }
    }

    /// Lists the images: those of DATA, then those of the validation folder, their paths as seen from DATA (`../val/a/1.png`).
    ///
    /// # Errors
    /// As [`Listing::read`]; when class folders are missing or left over, on either side, naming them.
    pub fn listing(&self) -> Result<Listing> {
        let classes = self.classes.as_deref().map(read_classes).transpose()?;
        if let (Some(wanted), Some(file)) = (&classes, &self.classes)
            && let Some(found) = differences(wanted, &top_level(&self.data)?.0)
        {
            let advice = format!("{} fixes the classes: every line needs a folder, and every folder a line", file.display());
            let error = Error::input(format!("its folders are not the classes of {} ({found})", file.display()));
            return Err(error.at(self.data.display()).advise(advice));
        }
        let train = Listing::read(&self.data, classes.as_deref())?;
        match &self.val_dir {
            None => Ok(train),
            Some(dir) => with_validation(train, dir).map_err(|e| e.at("--val-dir")),
        }
    }
}

/// The names in a file, one a line; space around them and empty lines do not count.
///
/// # Errors
/// Kind `Input`: no such file, not UTF-8, no names, a name twice.
pub fn read_classes(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines().map(str::trim);
    let names: Vec<String> = lines.filter(|line| !line.is_empty()).map(String::from).collect();
    let wrong = |what: String| Err(Error::input(what).at(path.display()).advise("expected the names of the class folders, one a line"));
    match names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        Some((_, name)) => wrong(format!("names the class `{name}` twice")),
        None if names.is_empty() => wrong("names no classes".into()),
        None => Ok(names),
    }
}

/// `train` with the images of `dir` after its own.
fn with_validation(mut train: Listing, dir: &Path) -> Result<Listing> {
    let real = |path: &Path| std::fs::canonicalize(path).map_err(|e| Error::io(path, &e));
    let (from, to) = (real(&train.root)?, real(dir)?);
    if from == to {
        return Err(Error::input("is DATA itself; what is trained on cannot validate").at(dir.display()));
    }
    let val = train.read_validation(dir)?;
    let way = relative(&from, &to);
    train.val_from = Some(train.files.len());
    train.files.extend(val.files.into_iter().map(|mut entry| {
        entry.path = way.join(&entry.path);
        entry
    }));
    train.warnings.extend(val.warnings.into_iter().map(|w| format!("--val-dir: {w}")));
    Ok(train)
}

/// The way from one absolute path to another, as `../val`; the other itself where they share no root.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    if shared == 0 {
        return to.into();
    }
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

/// The part of an image's path below the folder that holds its class folder: `a/1.png` of `a/1.png` and of `../val/a/1.png`.
pub fn below<'a>(path: &'a str, class: &str) -> &'a str {
    if !path.starts_with("../") && !path.starts_with('/') {
        return path;
    }
    path.find(&format!("/{class}/")).map_or(path, |at| &path[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Folder;

    #[test]
    fn a_validation_folder_lies_beside_or_elsewhere() {
        let f = Folder::new("source-val");
        f.touch(&["x/train/a/1.png", "x/train/b/1.png", "x/val/a/2.png", "x/val/b/2.png", "y/z/a/3.png", "y/z/b/3.png"]);
        let of = |val: &str| Source { val_dir: Some(f.path().join(val)), ..Source::new(f.path().join("x/train")) }.listing();
        let names = |l: &Listing| l.files.iter().map(|f| f.name()).collect::<Vec<_>>();
        let listing = of("x/val").unwrap();
        assert_eq!(names(&listing), ["a/1.png", "b/1.png", "../val/a/2.png", "../val/b/2.png"]);
        assert_eq!((listing.val_from, listing.labels()), (Some(2), vec![0, 1, 0, 1]));
        let listing = of("y/z").unwrap();
        assert_eq!(names(&listing)[2..], ["../../y/z/a/3.png", "../../y/z/b/3.png"]);
        assert!((0..4).all(|i| listing.full_path(i).exists()));
        assert_eq!(listing.only(&[0, 3]).val_from, Some(1));
        assert!(of("x/train").unwrap_err().to_string().contains("is DATA itself"));
        f.touch(&["y/z/c/3.png"]);
        let e = of("y/z").unwrap_err().to_string();
        assert!(e.contains("--val-dir") && e.contains("unknown: c"), "{e}");
    }

    #[cfg(unix)]
    #[test]
    fn a_way_that_leads_over_a_link_is_found() {
        let f = Folder::new("source-link");
        f.touch(&["deep/er/train/a/1.png", "deep/er/train/b/1.png", "val/a/2.png", "val/b/2.png"]);
        std::os::unix::fs::symlink(f.path().join("deep/er/train"), f.path().join("data")).unwrap();
        let source = Source { val_dir: Some(f.path().join("val")), ..Source::new(f.path().join("data")) };
        let listing = source.listing().unwrap();
        assert_eq!(listing.files[2].name(), "../../../val/a/2.png");
        assert!((0..4).all(|i| listing.full_path(i).exists()));
    }

    #[test]
    fn a_file_of_classes_fixes_their_order_and_must_name_every_folder() {
        let f = Folder::new("source-classes");
        f.touch(&["d/a b/1.png", "d/c/1.png"]);
        let of = |text: &str| {
            f.write("classes.txt", text.as_bytes());
            Source { classes: Some(f.path().join("classes.txt")), ..Source::new(f.path().join("d")) }.listing()
        };
        assert_eq!(of("\u{feff}c\r\n\r\n a b \r\n").unwrap().classes, ["c", "a b"]);
        for (text, part) in [("c\n", "unknown: a b"), ("c\na b\nz\n", "missing: z"), ("c\nc\n", "`c` twice"), ("\n", "no classes")] {
            let e = of(text).unwrap_err();
            assert!(e.exit_code() == 2 && e.to_string().contains(part) && e.to_string().contains("classes.txt"), "{e}");
        }
    }

    #[test]
    fn a_path_below_its_class_folder() {
        assert_eq!(below("a/x/1.png", "a"), "a/x/1.png");
        assert_eq!(below("../val/a/x/1.png", "a"), "a/x/1.png");
        assert_eq!(below("../val/b/1.png", "a"), "../val/b/1.png");
    }
}
