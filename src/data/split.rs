//! Which images train and which validate: Keras' seeded split, bit for bit, and one that keeps the classes in proportion.
//!
//! Keras shuffles the sorted list with NumPy's legacy generator and takes the tail for validation. The stratified
//! split and the [group split](super::groups) keep that shuffled order and change only who goes where.

use crate::data::listing::class_counts;
use crate::error::{Error, Result};

/// NumPy's legacy `RandomState`: the Mersenne Twister MT19937 (Matsumoto and Nishimura, 1998) with a 32-bit seed.
pub struct RandomState {
    state: [u32; 624],
    next: usize,
}

impl RandomState {
    /// `numpy.random.RandomState(seed)`: state\[i\] = 1812433253 * (state\[i-1\] ^ (state\[i-1\] >> 30)) + i.
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for i in 1..624 {
            state[i] = 1812433253u32.wrapping_mul(state[i - 1] ^ (state[i - 1] >> 30)).wrapping_add(i as u32);
        }
        RandomState { state, next: 624 }
    }

    fn twist(&mut self) {
        for i in 0..624 {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.next == 624 {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A number in `0..=max`: words masked to the bits of `max` until one fits.
    pub fn interval(&mut self, max: u32) -> u32 {
        if max == 0 {
            return 0;
        }
        let mask = u32::MAX >> max.leading_zeros();
        loop {
            let value = self.next_u32() & mask;
            if value <= max {
                return value;
            }
        }
    }

    /// `RandomState.shuffle`: Fisher-Yates from the end. Lists are shorter than 2^32.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.interval(i as u32) as usize);
        }
    }
}

/// Indices into a listing's files, each in the order that `--no-shuffle` trains in.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Split {
    /// Trained on.
    pub train: Vec<usize>,
    /// Validated on.
    pub val: Vec<usize>,
}

impl Split {
    /// The whole list shuffled, to train on; validation comes from elsewhere (`--val-dir`) or not at all.
    pub fn all_train(n: usize, seed: u32) -> Split {
        Split { train: shuffled(n, seed), val: Vec::new() }
    }

    /// What a study should know about a split: classes with nothing to train on or nothing to validate on.
    pub fn warnings(&self, classes: &[String], labels: &[usize]) -> Vec<String> {
        let side = |name: &str, indices: &[usize]| {
            let counts = class_counts(classes.len(), indices.iter().map(|&i| labels[i]));
            let empty: Vec<_> = classes.iter().zip(counts).filter(|(_, n)| *n == 0).map(|(c, _)| c.as_str()).collect();
            (!indices.is_empty() && !empty.is_empty()).then(|| format!("no {name} images of class {}", empty.join(", ")))
        };
        [side("training", &self.train), side("validation", &self.val)].into_iter().flatten().collect()
    }
}

pub(super) fn shuffled(n: usize, seed: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    RandomState::new(seed).shuffle(&mut order);
    order
}

/// Validation images out of `n`: `int(val_split * n)`, the product in f64 and its fraction cut off.
pub(super) fn val_count(n: usize, val_split: f64) -> Result<usize> {
    if !(0.0..1.0).contains(&val_split) {
        return Err(Error::input(format!("the validation share is {val_split}, expected 0 or more and less than 1")));
    }
    Ok((val_split * n as f64) as usize)
}

/// Keras' split of `n` files: the list shuffled by NumPy, its first part trained on, its tail validated on.
///
/// # Errors
/// Kind `Input`: `val_split` is not in `[0, 1)`, or it is above 0 and leaves a side empty.
pub fn keras_split(n: usize, val_split: f64, seed: u32) -> Result<Split> {
    let n_val = val_count(n, val_split)?;
    if (n_val == 0 && val_split > 0.0) || n_val == n {
        return Err(Error::input(format!("a validation share of {val_split} of {n} images gives {n_val}"))
            .advise("give a larger share, or 0 to train without validation"));
    }
    let mut train = shuffled(n, seed);
    let val = train.split_off(n - n_val);
    Ok(Split { train, val })
}

/// Keras' shuffle, but every class gives validation its share: `val_split` of its images, rounded so that the total is
/// Keras' (largest remainders first). A class of two images or more has at least one on each side, which may raise the
/// total; the only image of a class is trained on.
///
/// # Errors
/// As [`keras_split`].
pub fn stratified_split(labels: &[usize], val_split: f64, seed: u32) -> Result<Split> {
    if val_split == 0.0 {
        return Ok(Split::all_train(labels.len(), seed));
    }
    let mut remaining = stratified_quota(labels, val_split)?;
    let mut split = Split::default();
    for &i in shuffled(labels.len(), seed).iter().rev() {
        let left = &mut remaining[labels[i]];
        if *left > 0 {
            *left -= 1;
            split.val.push(i);
        } else {
            split.train.push(i);
        }
    }
    split.train.reverse();
    split.val.reverse();
    if split.val.is_empty() || split.train.is_empty() {
        return Err(Error::input(format!("a validation share of {val_split} of {} images leaves one side empty", labels.len()))
            .advise("give another share, or 0 to train without validation"));
    }
    Ok(split)
}

/// Validation images per class.
fn stratified_quota(labels: &[usize], val_split: f64) -> Result<Vec<usize>> {
    let total = val_count(labels.len(), val_split)?;
    let counts = class_counts(labels.iter().max().map_or(0, |m| m + 1), labels.iter().copied());
    let exact: Vec<f64> = counts.iter().map(|&c| val_split * c as f64).collect();
    let mut quota: Vec<usize> = exact.iter().map(|x| *x as usize).collect();
    let mut by_remainder: Vec<usize> = (0..counts.len()).collect();
    by_remainder.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let given: usize = quota.iter().sum();
    for &class in by_remainder.iter().take(total.saturating_sub(given)) {
        quota[class] += 1;
    }
    for (q, &count) in quota.iter_mut().zip(&counts) {
        *q = if count < 2 { 0 } else { (*q).clamp(1, count - 1) };
    }
    Ok(quota)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::sha256_hex;
    use crate::data::listing::Listing;
    use crate::data::testing::shared;

    fn sha256(order: &[usize]) -> String {
        sha256_hex(&order.iter().flat_map(|&i| (i as u32).to_le_bytes()).collect::<Vec<u8>>())
    }

    #[test]
    fn the_shuffle_is_numpys() {
        assert_eq!(shuffled(10, 42), [8, 1, 5, 0, 7, 2, 9, 4, 3, 6]);
        assert_eq!(shuffled(1000, 42)[..8], [521, 737, 740, 660, 411, 678, 626, 513]);
        assert_eq!(shuffled(4000, 42)[..8], [555, 3491, 527, 3925, 2989, 70, 1756, 211]);
        let order = shuffled(8000, 42);
        assert_eq!(order[..8], [2215, 2582, 1662, 3027, 4343, 2680, 1765, 1123]);
        assert_eq!(order[7992..], [3092, 3772, 5191, 5226, 5390, 860, 7603, 7270]);
        assert_eq!(sha256(&order), "4001b9bebcb1160c3b5eb49cd357a53872d195eee37455c0a933e3e83794a933");
        // From numpy 2.4.6, 1000 numbers, seeds at the edges of u32 too.
        for (seed, hash) in [
            (0, "0170dcea75cad468919398661e0bae589e101ea5c81e5eabcb7936eec0dd6c0a"),
            (7, "ee04b0a50e1d0f375271a969eddb971e684dec8f98d44e1598d37e09c877c8dc"),
            (42, "d32ced5c0422023ce691deb5e01cffb97c930477895f4e9ece52baee57804c62"),
            (u32::MAX, "65fb47e78be4f63bc881f15492dd11fa5af848584e8f0682fffed693d8b7ed35"),
        ] {
            assert_eq!(sha256(&shuffled(1000, seed)), hash, "seed {seed}");
        }
        let mut r = RandomState::new(7);
        assert_eq!([r.next_u32(), r.next_u32(), r.next_u32()], [327741615, 976413892, 3349725721]);
    }

    #[test]
    fn kvasirs_validation_counts_are_those_of_keras() {
        let split = keras_split(8000, 0.2, 42).unwrap();
        assert_eq!((split.train.len(), split.val.len()), (6400, 1600));
        assert_eq!(class_counts(8, split.val.iter().map(|i| i / 1000)), [185, 188, 207, 207, 204, 218, 183, 208]);
    }

    #[test]
    fn the_number_of_validation_images_is_pythons_int() {
        // int(0.29 * 100) is 28 in Python: the product is 28.999999999999996.
        assert_eq!(keras_split(100, 0.29, 1).unwrap().val.len(), 28);
        assert_eq!(keras_split(7, 0.2, 1).unwrap().val.len(), 1);
        assert_eq!(keras_split(7, 0.0, 1).unwrap().val.len(), 0);
        for bad in [-0.1, 1.0, f64::NAN] {
            assert_eq!(keras_split(10, bad, 1).unwrap_err().exit_code(), 2);
        }
        assert!(keras_split(4, 0.2, 1).unwrap_err().to_string().contains("gives 0"));
    }

    #[test]
    fn real_folders_split_as_keras_splits_them() {
        // SHA-256 (first eight bytes) of the paths, one a line, of `image_dataset_from_directory(validation_split=0.2,
        // seed=42)`, Keras 3.15, subsets training and validation.
        for (folder, train, val) in [
            ("brain-mri-4", "547795b0e137fb0c", "04acb12fef5b8247"),
            ("breast-ultrasound-3", "e77219d72d3636ce", "5e03167ca052633b"),
            ("chest-xray-3", "c1c98e3a09482a34", "d60b38824f495989"),
            ("hyperkvasir-5", "17e82651d48b97b1", "1778f243733229a5"),
            ("isic-skin-9", "030494829675b9a9", "a6a2b03489073227"),
        ] {
            let Some(path) = shared(&format!("data/images/{folder}")) else { return };
            let listing = Listing::read(&path, None).unwrap();
            let split = keras_split(listing.files.len(), 0.2, 42).unwrap();
            let hash = |side: &[usize]| {
                let names: Vec<String> = side.iter().map(|&i| listing.files[i].name()).collect();
                sha256_hex(names.join("\n").as_bytes())[..16].to_string()
            };
            assert_eq!((hash(&split.train), hash(&split.val)), (train.into(), val.into()), "{folder}");
        }
    }

    #[test]
    fn a_stratified_split_gives_every_class_its_share() {
        let labels: Vec<usize> = (0..1000)
            .map(|i| {
                if i < 700 {
                    0
                } else if i < 997 {
                    1
                } else {
                    2
                }
            })
            .collect();
        let split = stratified_split(&labels, 0.2, 42).unwrap();
        assert_eq!(class_counts(3, split.val.iter().map(|&i| labels[i])), [140, 59, 1]);
        let order = shuffled(1000, 42);
        let place = |i: &usize| order.iter().position(|j| j == i).unwrap();
        assert!(split.val.is_sorted_by_key(place) && split.train.is_sorted_by_key(place));
        let mut all = [split.train, split.val].concat();
        all.sort();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        // A class of one image is trained on; a class of two is on both sides.
        let small = stratified_split(&[0, 1, 1, 2, 2, 2, 2, 2], 0.125, 1).unwrap();
        assert!(small.train.contains(&0));
        assert_eq!(class_counts(3, small.val.iter().map(|&i| [0, 1, 1, 2, 2, 2, 2, 2][i])), [0, 1, 1]);
    }

    #[test]
    fn a_class_missing_on_one_side_is_named() {
        let split = Split { train: vec![0, 1], val: vec![2] };
        let classes = ["a".to_string(), "b".to_string()];
        assert_eq!(split.warnings(&classes, &[0, 1, 1]), ["no validation images of class a"]);
    }
}
