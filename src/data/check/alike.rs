//! Which images are the same, and which nearly so.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::{NEAR_BITS, NEAR_LEVELS};
use crate::data::phash::Fingerprint;
use crate::data::portrait::Portrait;

/// Images by their bytes, each group and the list of groups in the order of the images.
pub fn exact_groups(sha256: &[String]) -> Vec<Vec<usize>> {
    let mut by_hash: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    sha256.iter().enumerate().for_each(|(i, hash)| by_hash.entry(hash).or_default().push(i));
    let mut groups: Vec<Vec<usize>> = by_hash.into_values().collect();
    groups.sort();
    groups
}

/// Groups of two or more different images, linked by pairs that are near; of `same` bytes only the first takes part. Blank
/// images resemble everything and are left out.
pub fn near_groups(portraits: &[Portrait], same: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let fingerprint = |group: &Vec<usize>| (group[0], &portraits[group[0]].fingerprint);
    let candidates: Vec<(usize, &Fingerprint)> = same.iter().map(fingerprint).filter(|(_, f)| !f.is_blank()).collect();
    let pairs: Vec<(usize, usize)> = (0..candidates.len())
        .into_par_iter()
        .flat_map_iter(|a| {
            let (i, first) = candidates[a];
            let near = |f: &Fingerprint| first.distance(f) <= NEAR_BITS && first.difference(f) <= NEAR_LEVELS;
            candidates[a + 1..].iter().filter(move |(_, f)| near(f)).map(move |&(j, _)| (i, j))
        })
        .collect();
    linked(pairs)
}

/// The groups of what pairs link, directly or over others.
fn linked(pairs: Vec<(usize, usize)>) -> Vec<Vec<usize>> {
    // A smaller index of the same group, or itself.
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
        [i, j, a, b].into_iter().for_each(|k| _ = root.insert(k, top));
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    root.keys().for_each(|&i| groups.entry(find(&root, i)).or_default().push(i));
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_join_groups() {
        assert_eq!(linked(vec![(5, 9), (1, 2), (2, 5), (3, 4)]), [vec![1, 2, 5, 9], vec![3, 4]]);
        assert!(linked(vec![]).is_empty());
    }
}
