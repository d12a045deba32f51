//! The measures themselves, of predictions in which each image counts as often as its weight says.

use super::predictions::Predictions;
use super::ranking::Ranking;
use serde::{Deserialize, Serialize};

/// Defines a record with one field per measure, and its fields as an array.
macro_rules! measures {
    ($(#[$doc:meta])* $name:ident [$count:literal] { $($(#[$of:meta])* $field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
        pub struct $name<T> { $($(#[$of])* pub $field: T),+ }

        impl<T> $name<T> {
            /// The fields in their order.
            pub fn array(self) -> [T; $count] {
                [$(self.$field),+]
            }

            /// The inverse of `array`.
            pub fn from_array([$($field),+]: [T; $count]) -> Self {
                $name { $($field),+ }
            }
        }
    };
}

measures! {
    /// The measures of all classes together: a number each, or an interval.
    Scores [7] {
        loss,
        accuracy,
        balanced_accuracy,
        /// Matthews correlation coefficient of all classes together (Gorodkin 2004).
        mcc,
        /// Mean over the classes for which it is defined.
        auroc_macro,
        /// Mean over the classes for which it is defined.
        average_precision_macro,
        brier,
    }
}

measures! {
    /// The measures of one class against the rest.
    ClassScores [7] {
        /// Positive predictive value.
        precision,
        /// Sensitivity.
        recall,
        specificity,
        /// Negative predictive value.
        npv,
        f1,
        auroc,
        average_precision,
    }
}

/// Images of a class and of the others, told apart rightly or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub true_positives: usize,
    pub false_positives: usize,
    pub false_negatives: usize,
    pub true_negatives: usize,
}

impl Counts {
    /// The counts of class `c`.
    pub fn of(c: usize, confusion: &[Vec<usize>]) -> Self {
        let hit = confusion[c][c];
        let support: usize = confusion[c].iter().sum();
        let predicted: usize = confusion.iter().map(|row| row[c]).sum();
        let all: usize = confusion.iter().flatten().sum();
        Counts {
            true_positives: hit,
            false_positives: predicted - hit,
            false_negatives: support - hit,
            true_negatives: all + hit - support - predicted,
        }
    }

    fn scores(self) -> ClassScores<Option<f64>> {
        let Counts { true_positives: tp, false_positives: fp, false_negatives: fn_, true_negatives: tn } = self;
        ClassScores {
            precision: ratio(tp, tp + fp),
            recall: ratio(tp, tp + fn_),
            specificity: ratio(tn, tn + fp),
            npv: ratio(tn, tn + fn_),
            f1: ratio(2 * tp, 2 * tp + fp + fn_),
            ..ClassScores::default()
        }
    }
}

/// Predictions, prepared for being measured many times.
pub struct Scorer<'a> {
    of: &'a Predictions,
    predicted: Vec<usize>,
    /// Of each image: sum_k (p_k - y_k)^2, halved where there are two classes.
    brier: Vec<f64>,
    /// By the score of each class.
    rankings: Vec<Ranking>,
}

impl<'a> Scorer<'a> {
    pub fn new(of: &'a Predictions) -> Self {
        let k = of.classes.len();
        let ranking = |c| Ranking::new(&of.probabilities.iter().skip(c).step_by(k).copied().collect::<Vec<_>>());
        let scale = if k == 2 { 0.5 } else { 1.0 };
        let squares = |i: usize| -> f64 {
            let target = |c| if c == of.labels[i] { 1.0 } else { 0.0 };
            of.row(i).iter().enumerate().map(|(c, p)| (p - target(c)).powi(2)).sum()
        };
        Scorer {
            predicted: (0..of.len()).map(|i| of.predicted(i)).collect(),
            brier: (0..of.len()).map(|i| scale * squares(i)).collect(),
            rankings: (0..k).map(ranking).collect(),
            of,
        }
    }

    /// `[true][predicted]`.
    pub fn confusion(&self, weights: &[u32]) -> Vec<Vec<usize>> {
        let k = self.of.classes.len();
        let mut confusion = vec![vec![0; k]; k];
        for ((&label, &predicted), &weight) in self.of.labels.iter().zip(&self.predicted).zip(weights) {
            confusion[label][predicted] += weight as usize;
        }
        confusion
    }

    /// The measures of all classes together and of each against the rest; image `i` counts `weights[i]` times.
    pub fn scores(&self, weights: &[u32]) -> (Scores<Option<f64>>, Vec<ClassScores<Option<f64>>>) {
        let confusion = self.confusion(weights);
        let class = |c: usize| {
            let ranked = self.rankings[c].measure(weights, |i| self.of.labels[i] == c);
            let counted = Counts::of(c, &confusion).scores();
            ClassScores { auroc: ranked.auroc, average_precision: ranked.average_precision, ..counted }
        };
        let classes: Vec<ClassScores<Option<f64>>> = (0..confusion.len()).map(class).collect();
        let correct: usize = (0..confusion.len()).map(|c| confusion[c][c]).sum();
        let images: usize = confusion.iter().flatten().sum();
        let weighted = |values: &[f64]| values.iter().zip(weights).map(|(x, &w)| x * f64::from(w)).sum::<f64>() / images as f64;
        let scores = Scores {
            loss: Some(weighted(&self.of.losses)),
            accuracy: ratio(correct, images),
            balanced_accuracy: mean(classes.iter().filter_map(|c| c.recall)),
            mcc: Some(mcc(&confusion)),
            auroc_macro: mean(classes.iter().filter_map(|c| c.auroc)),
            average_precision_macro: mean(classes.iter().filter_map(|c| c.average_precision)),
            brier: Some(weighted(&self.brier)),
        };
        (scores, classes)
    }
}

fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), x| (sum + x, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Sums of integers, so that 0 is exactly 0.
fn mcc(confusion: &[Vec<usize>]) -> f64 {
    let classes = 0..confusion.len();
    let truth: Vec<u128> = confusion.iter().map(|row| row.iter().sum::<usize>() as u128).collect();
    let predicted: Vec<u128> = classes.clone().map(|c| confusion.iter().map(|row| row[c]).sum::<usize>() as u128).collect();
    let dot = |a: &[u128], b: &[u128]| a.iter().zip(b).map(|(a, b)| a * b).sum::<u128>();
    let images: u128 = truth.iter().sum();
    let correct: u128 = classes.map(|c| confusion[c][c] as u128).sum();
    let covariance = (images * correct) as f64 - dot(&truth, &predicted) as f64;
    let spread = |x: &[u128]| (images * images - dot(x, x)) as f64;
    let scale = spread(&truth).sqrt() * spread(&predicted).sqrt();
    if scale == 0.0 { 0.0 } else { covariance / scale }
}
