//! The order of an epoch: a permutation that depends on the seed and the epoch's number, and on nothing else.
//!
//! Keras draws from a shuffle buffer of eight batches, so that an image stays near its place in the list; here every
//! order of the whole list is as likely as any other.

/// SplitMix64 (Steele, Lea and Flood, 2014; public-domain reference by Vigna): a counter in steps of the golden ratio,
/// its bits mixed.
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Self {
        SplitMix64(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound` (`bound > 0`), each as likely: the high half of bits * bound, drawn again where the low
    /// half falls into the part that would favour some (Lemire, 2019).
    pub fn below(&mut self, bound: u64) -> u64 {
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= bound.wrapping_neg() % bound {
                return (product >> 64) as u64;
            }
        }
    }
}

/// The order in which epoch `epoch` (counted from 0) visits `0..n`.
pub fn epoch_order(n: usize, seed: u32, epoch: u32) -> Vec<usize> {
    // Seed and epoch as one number, mixed once, so that neighbours start far apart.
    let start = SplitMix64::new(u64::from(seed) << 32 | u64::from(epoch)).next_u64();
    let mut random = SplitMix64::new(start);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        // The published outputs for seed 1234567.
        let mut r = SplitMix64::new(1234567);
        assert_eq!([r.next_u64(), r.next_u64(), r.next_u64()], [6457827717110365317, 3203168211198807973, 9817491932198370423]);
        assert!((0..1000).all(|_| r.below(3) < 3));
    }

    #[test]
    fn every_epoch_is_a_permutation_of_its_own() {
        let (a, b, c) = (epoch_order(1000, 42, 0), epoch_order(1000, 42, 1), epoch_order(1000, 43, 0));
        assert!(a != b && a != c && b != c);
        assert_eq!(a, epoch_order(1000, 42, 0));
        for mut order in [a, b, c] {
            order.sort();
            assert_eq!(order, (0..1000).collect::<Vec<_>>());
        }
        assert_eq!(epoch_order(0, 1, 1), [0usize; 0]);
    }

    #[test]
    fn every_order_of_three_is_as_likely() {
        let mut seen = std::collections::HashMap::new();
        (0..6000).for_each(|epoch| *seen.entry(epoch_order(3, 42, epoch)).or_insert(0) += 1);
        // 1000 expected each; the standard deviation is 29.
        assert!(seen.len() == 6 && seen.values().all(|&n: &i32| (850..1150).contains(&n)), "{seen:?}");
    }

    #[test]
    fn the_order_stays_what_it_was() {
        assert_eq!(epoch_order(8, 42, 0), [2, 1, 7, 3, 0, 4, 6, 5]);
    }
}
