//! Measures of how well a score ranks the images of a class above the others. Images may count several times, as in a
//! bootstrap resample, so the order is found once and only the weights change.

/// The images by the score of one class, the highest first.
pub struct Ranking {
    /// Positions of images.
    order: Vec<usize>,
    /// Where runs of equal scores end in `order`.
    ends: Vec<usize>,
}

/// The area under the ROC curve and the average precision; `None` where undefined.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ranked {
    pub auroc: Option<f64>,
    pub average_precision: Option<f64>,
}

impl Ranking {
    pub fn new(scores: &[f64]) -> Self {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut end = 0;
        let ends = order.chunk_by(|&a, &b| scores[a] == scores[b]).map(|tied| {
            end += tied.len();
            end
        });
        Ranking { ends: ends.collect(), order }
    }

    /// One pass from the highest score down. A pair of a positive and a negative image counts 1 if the positive one is
    /// ranked higher and 1/2 if they are tied (Mann and Whitney 1947); pairs are counted in halves, so the area is a ratio of
    /// whole numbers. Average precision needs a positive image, the area a negative one too.
    pub fn measure(&self, weights: &[u32], positive: impl Fn(usize) -> bool) -> Ranked {
        let (mut hits, mut seen, mut start) = (0u64, 0u64, 0);
        // Twice the number of pairs that are ranked the wrong way round.
        let (mut wrong, mut precision) = (0u64, 0.0);
        for &end in &self.ends {
            let (mut new_hits, mut new) = (0, 0);
            for &i in &self.order[start..end] {
                let weight = u64::from(weights[i]);
                new += weight;
                new_hits += if positive(i) { weight } else { 0 };
            }
            let missed = seen - hits;
            wrong += new_hits * (2 * missed + new - new_hits);
            hits += new_hits;
            seen += new;
            if new_hits > 0 {
                precision += new_hits as f64 * (hits as f64 / seen as f64);
            }
            start = end;
        }
        let pairs = 2 * hits * (seen - hits);
        Ranked {
            auroc: (pairs > 0).then(|| (pairs - wrong) as f64 / pairs as f64),
            average_precision: (hits > 0).then(|| precision / hits as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_ties_are_counted() {
        let ranking = Ranking::new(&[0.9, 0.5, 0.5, 0.1]);
        let positive = |i: usize| i == 0 || i == 2;
        // Of four pairs three are right and one is tied; precision is 1 at the first hit and 2/3 at the second.
        let ranked = ranking.measure(&[1; 4], positive);
        assert_eq!((ranked.auroc, ranked.average_precision), (Some(3.5 / 4.0), Some((1.0 + 2.0 / 3.0) / 2.0)));
        // The tied negative left out, and the last one counted twice.
        assert_eq!(ranking.measure(&[1, 0, 1, 2], positive), Ranked { auroc: Some(1.0), average_precision: Some(1.0) });
        assert_eq!(ranking.measure(&[0, 1, 0, 1], positive), Ranked::default());
        assert_eq!(ranking.measure(&[1, 0, 1, 0], positive).auroc, None);
    }
}
