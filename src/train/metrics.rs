//! How good predictions are: pure functions of probabilities `[n, k]`, true labels `[n]` and losses `[n]`, in f64.
//!
//! | measure | formula |
//! | --- | --- |
//! | loss | mean of -log softmax(logits)\[label\], from the logits, so that no probability is clipped |
//! | accuracy | correct / images |
//! | precision, recall, specificity | TP / (TP + FP), TP / (TP + FN), TN / (TN + FP), one class against the rest |
//! | f1 | 2 TP / (2 TP + FP + FN) |
//! | balanced accuracy | mean recall |
//! | auroc | P(a random image of the class scores higher than a random other one), ties count one half |
//! | mcc | (n c - sum t_k p_k) / sqrt((n^2 - sum t_k^2) (n^2 - sum p_k^2)), c correct, t_k true and p_k predicted per class |
//!
//! 0 / 0 is undefined: `None`, in JSON `null`, and left out of means over classes. So it is in scikit-learn for the balanced
//! accuracy; where scikit-learn puts 0 with a warning (precision of a class that is never predicted) or refuses (macro AUROC
//! with a class that does not occur), this differs. MCC is 0 for 0 / 0 in both.

use crate::error::{Error, Result};
use serde::Serialize;

/// The measures of a set of predictions; serialised it is what `evaluate --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    pub loss: f64,
    pub accuracy: f64,
    pub balanced_accuracy: Option<f64>,
    /// Matthews correlation coefficient of all classes together (Gorodkin 2004).
    pub mcc: f64,
    /// Mean over the classes for which it is defined.
    pub auroc_macro: Option<f64>,
    pub images: usize,
    pub classes: Vec<Class>,
    /// `confusion[t][p]`: images of class `t` that were taken for class `p`.
    pub confusion: Vec<Vec<usize>>,
}

/// The measures of one class against the rest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    pub name: String,
    pub precision: Option<f64>,
    /// Also called sensitivity.
    pub recall: Option<f64>,
    pub specificity: Option<f64>,
    pub f1: Option<f64>,
    pub auroc: Option<f64>,
    /// Images of this class.
    pub support: usize,
}

impl Metrics {
    /// Measures predictions over the classes called `names`: `labels` and `losses` have one entry per image, `probabilities`
    /// one row per image.
    ///
    /// # Errors
    /// Kind `Input`: no images. Kind `Internal`: lengths that do not fit, a label beyond the classes.
    pub fn new(names: &[String], labels: &[usize], probabilities: &[f64], losses: &[f64]) -> Result<Self> {
        let (images, classes) = (labels.len(), names.len());
        if images == 0 {
            return Err(Error::input("no images to measure"));
        }
        if probabilities.len() != images * classes || losses.len() != images || labels.iter().any(|&l| l >= classes) {
            let what =
                format!("{} probabilities and {} losses for {images} images of {classes} classes", probabilities.len(), losses.len());
            return Err(Error::internal(what));
        }
        let mut confusion = vec![vec![0; classes]; classes];
        for (row, &label) in probabilities.chunks_exact(classes).zip(labels) {
            confusion[label][argmax(row)] += 1;
        }
        let class = |(c, name): (usize, &String)| {
            let scores: Vec<f64> = probabilities.iter().skip(c).step_by(classes).copied().collect();
            Class { auroc: auroc(&scores, |i| labels[i] == c), ..one_against_rest(name, c, &confusion) }
        };
        let per_class: Vec<Class> = names.iter().enumerate().map(class).collect();
        let correct: usize = (0..classes).map(|c| confusion[c][c]).sum();
        Ok(Metrics {
            loss: losses.iter().sum::<f64>() / images as f64,
            accuracy: correct as f64 / images as f64,
            balanced_accuracy: mean(per_class.iter().filter_map(|c| c.recall)),
            mcc: mcc(&confusion),
            auroc_macro: mean(per_class.iter().filter_map(|c| c.auroc)),
            images,
            classes: per_class,
            confusion,
        })
    }
}

/// -log softmax(logits)\[label\] = log(sum exp(x - max)) - (x\[label\] - max).
pub fn cross_entropy(logits: &[f64], label: usize) -> f64 {
    let largest = logits.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
    sum.ln() - (logits[label] - largest)
}

/// The position of the largest number, the first of several; one that is not a number counts as the smallest.
pub fn argmax(row: &[f64]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i] > row[best] || (row[best].is_nan() && !row[i].is_nan()) { i } else { best })
}

/// Everything of a class that follows from the confusion matrix.
fn one_against_rest(name: &str, c: usize, confusion: &[Vec<usize>]) -> Class {
    let hit = confusion[c][c];
    let support: usize = confusion[c].iter().sum();
    let predicted: usize = confusion.iter().map(|row| row[c]).sum();
    let others = confusion.iter().flatten().sum::<usize>() - support;
    Class {
        name: name.into(),
        precision: ratio(hit, predicted),
        recall: ratio(hit, support),
        specificity: ratio(others - (predicted - hit), others),
        f1: ratio(2 * hit, support + predicted),
        auroc: None,
        support,
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

/// Area under the ROC curve by ranks (Mann and Whitney 1947): (sum of the positives' ranks - p (p + 1) / 2) / (p q) for `p`
/// positives and `q` negatives; equal scores share the mean of their ranks. `None` without either.
fn auroc(scores: &[f64], positive: impl Fn(usize) -> bool) -> Option<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let (mut before, mut rank_sum, mut positives) = (0, 0.0, 0);
    for tied in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let hits = tied.iter().filter(|&&i| positive(i)).count();
        // Ranks before + 1 ..= before + len, of which the mean is a half or a whole number.
        rank_sum += hits as f64 * (before as f64 + (tied.len() + 1) as f64 / 2.0);
        positives += hits;
        before += tied.len();
    }
    let (p, q) = (positives as f64, (scores.len() - positives) as f64);
    (p > 0.0 && q > 0.0).then(|| (rank_sum - p * (p + 1.0) / 2.0) / (p * q))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_first_and_nan_is_never_preferred() {
        assert_eq!([argmax(&[0.4, 0.4, 0.2]), argmax(&[f64::NAN, 0.1, 0.9]), argmax(&[0.9, f64::NAN])], [0, 2, 0]);
    }

    #[test]
    fn the_loss_of_a_hopeless_logit_is_finite() {
        assert_eq!(cross_entropy(&[0.0, 1000.0], 0), 1000.0);
        assert_eq!(cross_entropy(&[5.0, 5.0], 1), 2f64.ln());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let names = ["a".to_string(), "b".to_string()];
        assert_eq!(Metrics::new(&names, &[], &[], &[]).unwrap_err().exit_code(), 2);
        assert_eq!(Metrics::new(&names, &[2], &[0.5, 0.5], &[0.7]).unwrap_err().exit_code(), 3);
    }
}
