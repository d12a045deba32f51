//! How sure one can be of a measure: intervals by the bootstrap (Efron 1979).
//!
//! A resample draws as many images as there are, with replacement, and measures again; the middle 95% of 2,000 such numbers
//! is the interval. Images of one patient resemble each other, so where groups are known whole groups are drawn: an interval
//! over images would be too narrow. A resample in which a measure is undefined has no say in it.

use super::predictions::Predictions;
use super::score::{ClassScores, Scorer, Scores};
use crate::data::permutation::SplitMix64;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// How many resamples are drawn.
pub const RESAMPLES: usize = 2000;
/// Share of the resamples inside the interval.
pub const LEVEL: f64 = 0.95;
/// Where the random numbers begin; resample `r` has a generator of its own.
pub const SEED: u32 = 42;

/// The ends of an interval.
pub type Interval = [f64; 2];

/// Intervals of the scores and how they came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    pub level: f64,
    pub resamples: usize,
    pub seed: u32,
    /// What is drawn: `image` or `group`.
    pub unit: String,
    /// How many there are to draw from.
    pub units: usize,
    #[serde(flatten)]
    pub scores: Scores<Option<Interval>>,
}

/// The intervals of all classes together and of each; `None` where there are fewer than two images or groups to draw from.
pub fn intervals(scorer: &Scorer, of: &Predictions) -> Option<(Intervals, Vec<ClassScores<Option<Interval>>>)> {
    let (unit_of, units) = units(of);
    if units < 2 {
        return None;
    }
    let drawn: Vec<_> = (0..RESAMPLES as u64).into_par_iter().map(|r| scorer.scores(&weights(r, &unit_of, units))).collect();
    let all: Vec<_> = drawn.iter().map(|(scores, _)| scores.array()).collect();
    let class = |c: usize| {
        let rows: Vec<_> = drawn.iter().map(|(_, classes)| classes[c].array()).collect();
        ClassScores::from_array(columns(&rows))
    };
    let intervals = Intervals {
        level: LEVEL,
        resamples: RESAMPLES,
        seed: SEED,
        unit: if of.groups.is_some() { "group" } else { "image" }.into(),
        units,
        scores: Scores::from_array(columns(&all)),
    };
    Some((intervals, (0..of.classes.len()).map(class).collect()))
}

/// The unit that each image belongs to, numbered by first appearance, and how many units there are.
fn units(of: &Predictions) -> (Vec<usize>, usize) {
    let Some(groups) = &of.groups else { return ((0..of.len()).collect(), of.len()) };
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let unit_of = groups.iter().map(|group| {
        let next = numbers.len();
        *numbers.entry(group).or_insert(next)
    });
    (unit_of.collect(), numbers.len())
}

/// How often each image is in resample `r`: as often as its unit is drawn.
fn weights(r: u64, unit_of: &[usize], units: usize) -> Vec<u32> {
    // Seed and number as one, mixed once, so that neighbours start far apart.
    let start = SplitMix64::new(u64::from(SEED) << 32 | r).next_u64();
    let mut random = SplitMix64::new(start);
    let mut drawn = vec![0; units];
    for _ in 0..units {
        drawn[random.below(units as u64) as usize] += 1;
    }
    unit_of.iter().map(|&unit| drawn[unit]).collect()
}

/// The interval of each column of numbers.
fn columns<const N: usize>(rows: &[[Option<f64>; N]]) -> [Option<Interval>; N] {
    std::array::from_fn(|column| {
        let mut values: Vec<f64> = rows.iter().filter_map(|row| row[column]).collect();
        values.sort_by(f64::total_cmp);
        let tail = (1.0 - LEVEL) / 2.0;
        (!values.is_empty()).then(|| [percentile(&values, tail), percentile(&values, 1.0 - tail)])
    })
}

/// The value below which a share of sorted values lies, interpolated linearly as NumPy does.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (sorted[high] - sorted[low]) * part
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two classes; every fifth image is taken for the other one.
    fn some(n: usize, groups: Option<Vec<String>>) -> Predictions {
        let labels: Vec<usize> = (0..n).map(|i| i % 2).collect();
        let mut p = Predictions { classes: vec!["a".into(), "b".into()], labels, groups, ..Predictions::default() };
        p.paths = (0..n).map(|i| i.to_string()).collect();
        (0..n).for_each(|i| p.push(if (i % 2 == 0) == (i % 5 != 0) { &[1.0, 0.0] } else { &[0.0, 1.0] }));
        p
    }

    #[test]
    fn the_interval_is_that_of_the_normal_approximation() {
        let p = some(400, None);
        let (intervals, classes) = intervals(&Scorer::new(&p), &p).unwrap();
        // 0.8 +- 1.96 sqrt(0.8 * 0.2 / 400) = 0.8 +- 0.0392; the bootstrap of a share is binomial, in steps of 1/400.
        let [low, high] = intervals.scores.accuracy.unwrap();
        assert!((low - 0.7608).abs() <= 0.005 && (high - 0.8392).abs() <= 0.005, "{low} {high}");
        assert_eq!((intervals.unit.as_str(), intervals.units, classes.len()), ("image", 400, 2));
    }

    #[test]
    fn groups_are_drawn_whole() {
        // Eight images of one group always come together: as uncertain as 50 images, not as 400.
        let groups = |size: usize| Some((0..400).map(|i| (i / size).to_string()).collect());
        let width = |groups| {
            let p = some(400, groups);
            let (intervals, _) = intervals(&Scorer::new(&p), &p).unwrap();
            let [low, high] = intervals.scores.loss.unwrap();
            (intervals.units, high - low)
        };
        let ((one, single), (fifty, grouped)) = (width(groups(1)), width(groups(8)));
        assert_eq!((one, fifty), (400, 50));
        assert_eq!(single, width(None).1);
        // Mistakes are spread evenly over the groups (1 or 2 of 8), so here groups make it surer.
        assert!(grouped < 0.5 * single, "{grouped} {single}");
        let p = some(10, Some(vec!["all".into(); 10]));
        assert!(intervals(&Scorer::new(&p), &p).is_none());
    }

    #[test]
    fn percentiles_are_interpolated() {
        assert_eq!([percentile(&[1.0, 2.0, 4.0], 0.5), percentile(&[1.0, 2.0, 4.0], 0.75), percentile(&[7.0], 0.025)], [2.0, 3.0, 7.0]);
    }
}
