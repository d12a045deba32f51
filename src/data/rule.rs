//! Who trains and who validates: one rule for a run, made of a way, a share, a seed and what is known of groups.

use std::fmt;

use crate::data::catalog::Catalog;
use crate::data::groups::{Grouping, group_split};
use crate::data::split::{Split, keras_split, shuffled, stratified_split};
use crate::error::{Error, Result};

/// How validation images are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Way {
    /// The tail of NumPy's seeded shuffle.
    #[default]
    Keras,
    /// The same share of every class.
    Stratified,
    /// Whole groups.
    Group,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Keras => "keras",
            Way::Stratified => "stratified",
            Way::Group => "group",
        })
    }
}

/// The rule of a split.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub way: Way,
    /// How groups are known, where they are.
    pub grouping: Option<Grouping>,
    /// The share of images that validate.
    pub share: f64,
    pub seed: u32,
}

impl Default for Rule {
    /// Keras's split of a fifth, by the seed 42.
    fn default() -> Self {
        Rule { way: Way::Keras, grouping: None, share: 0.2, seed: 42 }
    }
}

impl Rule {
    /// Refuses what contradicts itself, before anything is read; `val_dir` says whether validation has a folder of its own.
    ///
    /// # Errors
    /// Kind `Input`, naming the flags.
    pub fn check(&self, val_dir: bool) -> Result<()> {
        let advice = "a group is a patient, a video or a site: --split group --group-regex 'patient_(\\d+)'";
        match self.way {
            Way::Stratified | Way::Group if val_dir => {
                Err(Error::input(format!("--split {} and --val-dir are two ways to choose validation images", self.way))
                    .advise("give one of them"))
            }
            Way::Group if self.grouping.is_none() => Err(Error::input("--split group needs --group-regex or --group-csv").advise(advice)),
            Way::Keras | Way::Stratified if self.grouping.is_some() && !val_dir => {
                Err(Error::input(format!("groups are given, and --split {} does not keep them together", self.way)).advise(advice))
            }
            _ => Ok(()),
        }
    }

    /// Splits the images of a catalog; returns the group of each too, where groups are known.
    ///
    /// # Errors
    /// Kind `Input`: images without a group, a share that leaves a side empty.
    pub fn split(&self, catalog: &Catalog) -> Result<(Split, Option<Vec<String>>)> {
        self.check(catalog.val_from.is_some())?;
        let images = || catalog.paths.iter().zip(&catalog.labels).map(|(path, &label)| (path.as_str(), catalog.classes[label].as_str()));
        let groups = self.grouping.as_ref().map(|grouping| grouping.of(images())).transpose()?;
        let (n, share, seed) = (catalog.len(), self.share, self.seed);
        let split = match (self.way, &groups) {
            _ if catalog.val_from.is_some() => {
                let from = catalog.val_from.unwrap_or(n);
                Split { train: shuffled(from, seed), val: (from..n).collect() }
            }
            _ if share == 0.0 => Split::all_train(n, seed),
            (Way::Keras, _) => keras_split(n, share, seed)?,
            (Way::Stratified, _) => stratified_split(&catalog.labels, share, seed)?,
            (Way::Group, groups) => group_split(groups.as_deref().unwrap_or_default(), share, seed)?,
        };
        match (split.train.is_empty(), split.val.is_empty() && catalog.val_from.is_some()) {
            (true, _) => Err(Error::input(format!("of {n} images none are left to train on")).at("--val-split")),
            (_, true) => Err(Error::input("none of its images can be read").at("--val-dir")),
            _ => Ok((split, groups)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::load::look;
    use crate::data::source::Source;
    use crate::data::testing::{Folder, png};
    use std::collections::BTreeSet;

    /// `train` with four patients of three images each in two classes, `val` with one image a class.
    fn catalogs(name: &str) -> (Catalog, Catalog) {
        let f = Folder::new(name);
        for i in 0..12u8 {
            f.write(&format!("train/{}/p{}_{i}.png", ["a", "b"][usize::from(i % 2)], i / 3), &png(2, 2, &[i; 12]));
        }
        f.write("val/a/p9_0.png", &png(2, 2, &[90; 12]));
        f.write("val/b/p3_1.png", &png(2, 2, &[91; 12]));
        let (alone, with) =
            (Source::new(f.path().join("train")), Source { val_dir: Some(f.path().join("val")), ..Source::new(f.path().join("train")) });
        let catalog = |source: Source| look(&source.listing().unwrap(), false, &|_, _, _| ());
        (catalog(alone), catalog(with))
    }

    fn patients() -> Option<Grouping> {
        Some(Grouping::Pattern(r"p(\d+)_".into()))
    }

    #[test]
    fn every_way_splits_and_groups_stay_known() {
        let (catalog, with_val) = catalogs("rule");
        let rule = |way| Rule { way, share: 0.25, ..Rule::default() };
        assert_eq!(rule(Way::Keras).split(&catalog).unwrap(), (keras_split(12, 0.25, 42).unwrap(), None));
        assert_eq!(rule(Way::Stratified).split(&catalog).unwrap(), (stratified_split(&catalog.labels, 0.25, 42).unwrap(), None));
        let (split, groups) = Rule { grouping: patients(), ..rule(Way::Group) }.split(&catalog).unwrap();
        let groups = groups.unwrap();
        let side = |indices: &[usize]| indices.iter().map(|&i| groups[i].clone()).collect::<BTreeSet<_>>();
        assert!(split.val.len() == 3 && side(&split.train).is_disjoint(&side(&split.val)));
        let (split, groups) = Rule { grouping: patients(), ..rule(Way::Keras) }.split(&with_val).unwrap();
        assert_eq!((&split.val, &groups.unwrap()[12..]), (&vec![12, 13], &["9".to_string(), "3".to_string()][..]));
        assert_eq!(split.train, shuffled(12, 42));
        assert_eq!(Rule { share: 0.0, ..Rule::default() }.split(&catalog).unwrap().0, Split::all_train(12, 42));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let rule = |way, grouping| Rule { way, grouping, ..Rule::default() };
        for (rule, val_dir, part) in [
            (rule(Way::Group, None), false, "needs --group-regex"),
            (rule(Way::Keras, patients()), false, "does not keep them together"),
            (rule(Way::Stratified, None), true, "--val-dir"),
            (rule(Way::Group, patients()), true, "--val-dir"),
        ] {
            let e = rule.check(val_dir).unwrap_err();
            assert!(e.exit_code() == 2 && e.to_string().contains(part), "{e}");
        }
        rule(Way::Keras, patients()).check(true).unwrap();
    }
}
