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
    let hashes: Vec<u64> = candidates.iter().map(|(_, f)| f.hash).collect();
    let near = |&(a, b): &(usize, usize)| candidates[a].1.difference(candidates[b].1) <= NEAR_LEVELS;
    linked(near_hashes(&hashes).into_iter().filter(near).map(|(a, b)| (candidates[a].0, candidates[b].0)).collect())
}

/// Pairs of hashes, the earlier one first, that differ in at most [`NEAR_BITS`] bits.
///
/// Of `NEAR_BITS + 1` bands of the bits such a pair has one in common, so that only hashes with an equal band are compared
/// (multi-index hashing: Norouzi, Punjani and Fleet, 2012); a pair is taken at the first band that it shares.
fn near_hashes(hashes: &[u64]) -> Vec<(usize, usize)> {
    const BANDS: u32 = NEAR_BITS + 1;
    let edge = |band: u32| u64::BITS * band / BANDS;
    let mask = |band: u32| (u64::MAX >> (u64::BITS - (edge(band + 1) - edge(band)))) << edge(band);
    let in_band = |band: u32| {
        let of = move |i: &usize| hashes[*i] & mask(band);
        let mut order: Vec<usize> = (0..hashes.len()).collect();
        order.sort_by_key(of);
        let near = |a: usize, b: usize| {
            let differ = hashes[a] ^ hashes[b];
            differ.count_ones() <= NEAR_BITS && (0..band).all(|earlier| differ & mask(earlier) != 0)
        };
        let mut pairs = Vec::new();
        for same in order.chunk_by(|a, b| of(a) == of(b)) {
            for (i, &a) in same.iter().enumerate() {
                pairs.extend(same[i + 1..].iter().filter(|&&b| near(a, b)).map(|&b| (a, b)));
            }
        }
        pairs
    };
    (0..BANDS).into_par_iter().flat_map_iter(in_band).collect()
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
    fn bands_find_the_pairs_that_comparing_all_finds() {
        let mut random = crate::data::permutation::SplitMix64::new(3);
        let mut hashes: Vec<u64> = (0..300).map(|_| random.next_u64()).collect();
        // Neighbours at every distance up to 12, in random bits, also in all bits of one band.
        for i in 0..300usize {
            let flips = (0..i % 13).fold(0u64, |bits, _| bits | 1 << random.below(64));
            hashes.push(hashes[i] ^ flips);
        }
        hashes.extend([0, 0x3f, u64::MAX, u64::MAX << 6, u64::MAX << 7, 0]);
        let mut all: Vec<(usize, usize)> = (0..hashes.len()).flat_map(|a| (a + 1..hashes.len()).map(move |b| (a, b))).collect();
        all.retain(|&(a, b)| (hashes[a] ^ hashes[b]).count_ones() <= NEAR_BITS);
        let mut found = near_hashes(&hashes);
        found.sort_unstable();
        assert!(all.len() > 150 && found == all, "{} of {}", found.len(), all.len());
    }

    #[test]
    fn links_join_groups() {
        assert_eq!(linked(vec![(5, 9), (1, 2), (2, 5), (3, 4)]), [vec![1, 2, 5, 9], vec![3, 4]]);
        assert!(linked(vec![]).is_empty());
    }
}
