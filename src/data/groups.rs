//! A split that keeps all images of one patient, video or site on one side, so that validation sees no near-copies of
//! what was trained on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::data::csv;
use crate::data::source::below;
use crate::data::split::{Split, shuffled, val_count};
use crate::error::{Error, Result};

/// How the group of an image is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// A regular expression searched in the path (`class/file.jpg`): the first capture, or the whole match where the
    /// pattern captures nothing. `patient_(\d+)` groups by patient.
    Pattern(String),
    /// A CSV file with the columns `path` (as `split.csv` writes it: relative to DATA) and `group`; other columns and
    /// other paths are ignored.
    Csv(PathBuf),
}

impl Grouping {
    /// The group of each image, given by its path relative to DATA and the name of its class. An image of a validation
    /// folder goes by its path below that folder.
    ///
    /// # Errors
    /// Kind `Input`: a pattern that does not parse, no such file or columns, a path with two groups, or images without a
    /// group (the first few are named).
    pub fn of<'a>(&self, images: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Vec<String>> {
        let images = images.into_iter();
        match self {
            Grouping::Pattern(pattern) => by_pattern(images, pattern),
            Grouping::Csv(file) => by_csv(images, file).map_err(|e| e.at(file.display())),
        }
    }
}

/// A split in which no group (a patient, a video, a site) is on both sides. `groups[i]` names the group of file `i`.
///
/// Groups are shuffled by NumPy's generator and taken from the tail for validation, each one that brings the number of
/// validation images nearer to `int(val_split * n)`; at least one group is on each side.
///
/// # Errors
/// Kind `Input`: `val_split` is not in `[0, 1)`, or all files are one group.
pub fn group_split(groups: &[String], val_split: f64, seed: u32) -> Result<Split> {
    if val_split == 0.0 {
        return Ok(Split::all_train(groups.len(), seed));
    }
    let target = val_count(groups.len(), val_split)?;
    let mut number: HashMap<&str, usize> = HashMap::new();
    let mut sizes = Vec::new();
    for group in groups {
        let id = *number.entry(group).or_insert(sizes.len());
        if id == sizes.len() {
            sizes.push(0usize);
        }
        sizes[id] += 1;
    }
    if sizes.len() < 2 {
        return Err(Error::input(format!("all {} images are one group, `{}`", groups.len(), groups.first().map_or("", |g| g)))
            .advise("a group split needs at least two groups; check the pattern or the CSV file"));
    }
    let mut in_val = vec![false; sizes.len()];
    let mut taken = 0usize;
    for id in shuffled(sizes.len(), seed).into_iter().rev() {
        in_val[id] = (taken + sizes[id]).abs_diff(target) < taken.abs_diff(target);
        taken += if in_val[id] { sizes[id] } else { 0 };
    }
    let smallest = (0..sizes.len()).min_by_key(|&id| sizes[id]).unwrap_or(0);
    if taken == 0 {
        in_val[smallest] = true;
    } else if taken == groups.len() {
        in_val[smallest] = false;
    }
    let (val, train) = shuffled(groups.len(), seed).into_iter().partition(|&i| in_val[number[groups[i].as_str()]]);
    Ok(Split { train, val })
}

fn by_pattern<'a>(images: impl Iterator<Item = (&'a str, &'a str)>, pattern: &str) -> Result<Vec<String>> {
    let regex = regex_lite::Regex::new(pattern).map_err(|e| Error::input(format!("the group pattern `{pattern}` is not valid: {e}")))?;
    let wanted = usize::from(regex.captures_len() > 1);
    let group = |(path, class): (&str, &str)| {
        let found = regex.captures(below(path, class)).and_then(|c| c.get(wanted));
        found.map(|group| group.as_str().to_string()).ok_or_else(|| path.to_string())
    };
    every(images.map(group), |names| format!("the group pattern `{pattern}` does not match {names}"))
}

fn by_csv<'a>(images: impl Iterator<Item = (&'a str, &'a str)>, file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::input(e.to_string()))?;
    let of = parse_groups(&text)?;
    let group = |(path, class): (&str, &str)| {
        let found = of.get(path).or_else(|| of.get(below(path, class)));
        found.cloned().ok_or_else(|| path.to_string())
    };
    every(images.map(group), |names| format!("no group for {names}"))
}

/// All groups, or an error that names the images without one.
fn every(groups: impl Iterator<Item = Result<String, String>>, what: impl Fn(String) -> String) -> Result<Vec<String>> {
    let (mut found, mut without) = (Vec::new(), Vec::new());
    groups.for_each(|group| match group {
        Ok(group) => found.push(group),
        Err(path) => without.push(path),
    });
    if without.is_empty() { Ok(found) } else { Err(Error::input(what(first_few(&without)))) }
}

fn parse_groups(text: &str) -> Result<HashMap<String, String>> {
    let mut records = csv::records(text).into_iter();
    let header = records.next().map(|(_, fields)| fields).unwrap_or_default();
    let column = |name: &str| header.iter().position(|h| h.trim() == name);
    let (Some(path_at), Some(group_at)) = (column("path"), column("group")) else {
        return Err(Error::input(format!("its first line is `{}`, expected the columns path,group", header.join(","))));
    };
    let mut of: HashMap<String, String> = HashMap::new();
    for (line, fields) in records {
        let (Some(path), Some(group)) = (fields.get(path_at), fields.get(group_at)) else {
            return Err(Error::input(format!("line {line} has {} columns, expected {}", fields.len(), header.len())));
        };
        let path = path.replace('\\', "/");
        if of.get(&path).is_some_and(|old| old != group) {
            return Err(Error::input(format!("line {line} gives `{path}` the group `{group}`, an earlier line `{}`", of[&path])));
        }
        of.insert(path, group.clone());
    }
    Ok(of)
}

fn first_few(names: &[String]) -> String {
    let shown = names.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > 3 { format!("{shown} and {} more", names.len() - 3) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Folder;

    #[test]
    fn no_group_is_on_both_sides() {
        let groups: Vec<String> = (0..500).map(|i| format!("patient {}", i * i % 61)).collect();
        let split = group_split(&groups, 0.2, 42).unwrap();
        let side = |s: &[usize]| s.iter().map(|&i| groups[i].clone()).collect::<std::collections::HashSet<_>>();
        assert!(side(&split.train).is_disjoint(&side(&split.val)));
        assert_eq!(split.train.len() + split.val.len(), 500);
        assert!(split.val.len().abs_diff(100) <= 10, "{}", split.val.len());
        // Two groups far larger than the share: one validates all the same.
        let two: Vec<String> = (0..100).map(|i| if i < 70 { "a".into() } else { "b".into() }).collect();
        assert_eq!(group_split(&two, 0.1, 1).unwrap().val.len(), 30);
        assert!(group_split(&vec!["a".to_string(); 5], 0.2, 1).unwrap_err().to_string().contains("one group, `a`"));
    }

    #[test]
    fn groups_come_from_a_pattern_or_a_csv_file() {
        let images = [("a/p1_x.jpg", "a"), ("../v/b/p22_y.jpg", "b")];
        let by = |pattern: &str| Grouping::Pattern(pattern.into()).of(images);
        assert_eq!(by(r"p(\d+)_").unwrap(), ["1", "22"]);
        assert_eq!(by("^.").unwrap(), ["a", "b"]);
        assert!(by(r"p(\d\d)_").unwrap_err().to_string().contains("a/p1_x.jpg"));
        assert!(by("p(").unwrap_err().to_string().contains("not valid"));
        let f = Folder::new("groups");
        let by = || Grouping::Csv(f.path().join("g.csv")).of(images);
        f.write("g.csv", b"\xef\xbb\xbfgroup,path,note\r\n\"one, \"\"1\"\"\",a/p1_x.jpg,\r\ntwo,b\\p22_y.jpg,n\r\n");
        assert_eq!(by().unwrap(), ["one, \"1\"", "two"]);
        f.write("g.csv", b"path,group\na/p1_x.jpg,1\n");
        assert!(by().unwrap_err().to_string().contains("no group for ../v/b/p22_y.jpg"));
        f.write("g.csv", b"path,group\na/p1_x.jpg,1\na/p1_x.jpg,2\n");
        assert!(by().unwrap_err().to_string().contains("line 3"));
        f.write("g.csv", b"file,patient\n");
        assert!(by().unwrap_err().to_string().contains("path,group"));
    }
}
