//! Who trains and who validates: one rule for a run, made of a way, a share, a seed and what is known of groups.

use std::fmt;

use crate::data::groups::{Grouping, group_split};
use crate::data::listing::Listing;
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

    /// Splits the files of a listing; returns the group of each too, where groups are known.
    ///
    /// # Errors
    /// Kind `Input`: what [`Rule::check`] refuses, files without a group, a share that leaves a side empty.
    pub fn split(&self, listing: &Listing) -> Result<(Split, Option<Vec<String>>)> {
        self.check(listing.val_from.is_some())?;
        let groups = self.groups(listing)?;
        Ok((self.sides(listing, groups.as_deref())?, groups))
    }

    /// The group of each file, where groups are known.
    ///
    /// # Errors
    /// As [`Grouping::of`].
    pub fn groups(&self, listing: &Listing) -> Result<Option<Vec<String>>> {
        let names: Vec<String> = listing.files.iter().map(|f| f.name()).collect();
        let named = names.iter().zip(&listing.files).map(|(name, file)| (name.as_str(), listing.classes[file.class].as_str()));
        self.grouping.as_ref().map(|grouping| grouping.of(named)).transpose()
    }

    fn sides(&self, listing: &Listing, groups: Option<&[String]>) -> Result<Split> {
        let (n, share, seed) = (listing.files.len(), self.share, self.seed);
        let split = match self.way {
            _ if listing.val_from.is_some() => {
                let from = listing.val_from.unwrap_or(n);
                Split { train: shuffled(from, seed), val: (from..n).collect() }
            }
            _ if share == 0.0 => Split::all_train(n, seed),
            Way::Keras => keras_split(n, share, seed)?,
            Way::Stratified => stratified_split(&listing.labels(), share, seed)?,
            Way::Group => group_split(groups.unwrap_or_default(), share, seed)?,
        };
        match (split.train.is_empty(), split.val.is_empty() && listing.val_from.is_some()) {
            (true, _) => Err(Error::input(format!("of {n} images none are left to train on")).at("--val-split")),
            (_, true) => Err(Error::input("none of its images can be read").at("--val-dir")),
            _ => Ok(split),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::Source;
    use crate::data::testing::Folder;
    use std::collections::BTreeSet;

    /// `train` with four patients of three images each in two classes, `val` with one image a class.
    fn listings(name: &str) -> (Listing, Listing) {
        let f = Folder::new(name);
        (0..12).for_each(|i| f.touch(&[&format!("train/{}/p{}_{i}.png", ["a", "b"][i % 2], i / 3)]));
        f.touch(&["val/a/p9_0.png", "val/b/p3_1.png"]);
        let alone = Source::new(f.path().join("train"));
        let with = Source { val_dir: Some(f.path().join("val")), ..alone.clone() };
        (alone.listing().unwrap(), with.listing().unwrap())
    }

    fn patients() -> Option<Grouping> {
        Some(Grouping::Pattern(r"p(\d+)_".into()))
    }

    #[test]
    fn every_way_splits_and_groups_stay_known() {
        let (listing, with_val) = listings("rule");
        let rule = |way| Rule { way, share: 0.25, ..Rule::default() };
        assert_eq!(rule(Way::Keras).split(&listing).unwrap(), (keras_split(12, 0.25, 42).unwrap(), None));
        assert_eq!(rule(Way::Stratified).split(&listing).unwrap(), (stratified_split(&listing.labels(), 0.25, 42).unwrap(), None));
        let (split, groups) = Rule { grouping: patients(), ..rule(Way::Group) }.split(&listing).unwrap();
        let groups = groups.unwrap();
        let side = |indices: &[usize]| indices.iter().map(|&i| groups[i].clone()).collect::<BTreeSet<_>>();
        assert!(split.val.len() == 3 && side(&split.train).is_disjoint(&side(&split.val)));
        let (split, groups) = Rule { grouping: patients(), ..rule(Way::Keras) }.split(&with_val).unwrap();
        assert_eq!((&split.val, &groups.unwrap()[12..]), (&vec![12, 13], &["9".to_string(), "3".to_string()][..]));
        assert_eq!(split.train, shuffled(12, 42));
        assert_eq!(Rule { share: 0.0, ..Rule::default() }.split(&listing).unwrap().0, Split::all_train(12, 42));
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
