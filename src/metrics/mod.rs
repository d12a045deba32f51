//! How good predictions are: pure functions of probabilities `[n, k]`, true labels `[n]` and losses `[n]`, in f64.
//!
//! | measure | formula |
//! | --- | --- |
//! | loss | mean of -log softmax(logits)\[label\], from the logits, so that no probability is clipped |
//! | accuracy | correct / images |
//! | recall (sensitivity), specificity | TP / (TP + FN), TN / (TN + FP), one class against the rest |
//! | precision, npv | TP / (TP + FP), TN / (TN + FN) |
//! | f1 | 2 TP / (2 TP + FP + FN) |
//! | balanced accuracy | mean recall |
//! | auroc | P(a random image of the class scores higher than a random other one), ties count one half |
//! | average precision | sum over the distinct scores, from the highest, of (gain in recall) * precision |
//! | mcc | (n c - sum t_k p_k) / sqrt((n^2 - sum t_k^2) (n^2 - sum p_k^2)), c correct, t_k true and p_k predicted per class |
//! | brier | mean of sum_k (p_k - y_k)^2, 0 to 2; half of it where there are two classes, which is the usual (p - y)^2 |
//! | ece | see [`Calibration`] |
//!
//! 0 / 0 is undefined: `None`, in JSON `null`, and left out of means over classes. So it is in scikit-learn for the balanced
//! accuracy; where scikit-learn puts 0 with a warning (precision of a class that is never predicted) or refuses (macro AUROC
//! with a class that does not occur), this differs. MCC is 0 for 0 / 0 in both.
//!
//! Reading order: [`predictions`] (what is measured), [`score`] (the measures), [`calibration`], [`bootstrap`] (how sure one can be of
//! them).

pub mod bootstrap;
pub mod calibration;
pub mod predictions;
mod ranking;
pub mod score;

pub use bootstrap::{Interval, Intervals};
pub use calibration::Calibration;
pub use predictions::{Predictions, argmax, cross_entropy, softmax};
pub use score::{ClassScores, Scores};

use crate::error::{Error, Result};
use predictions::Scored;
use score::{Counts, Scorer};
use serde::{Deserialize, Serialize};

/// The measures of a set of predictions; serialised it is what `evaluate --json` prints and `metrics.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    #[serde(flatten)]
    pub scores: Scores<Option<f64>>,
    pub images: usize,
    pub classes: Vec<Class>,
    /// `confusion[t][p]`: images of class `t` that were taken for class `p`.
    pub confusion: Vec<Vec<usize>>,
    #[serde(flatten)]
    pub calibration: Calibration,
    /// How sure one can be of the scores; `None` where there is but one image or group.
    pub intervals: Option<Intervals>,
    /// The images whose true class got the lowest probability, the lowest first.
    pub worst: Vec<Scored>,
}

/// The measures of one class against the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Class {
    pub name: String,
    #[serde(flatten)]
    pub scores: ClassScores<Option<f64>>,
    /// The same as recall, under its medical name.
    pub sensitivity: Option<f64>,
    /// Images of this class.
    pub support: usize,
    #[serde(flatten)]
    pub counts: Counts,
    pub intervals: Option<ClassScores<Option<Interval>>>,
}

/// Of how many images [`Metrics`] keeps the names.
pub const WORST: usize = 20;

impl Metrics {
    /// Measures predictions.
    ///
    /// # Errors
    /// Kind `Input`: no images. Kind `Internal`: lengths that do not fit, a label beyond the classes.
    pub fn new(predictions: &Predictions) -> Result<Self> {
        if predictions.is_empty() {
            return Err(Error::input("no images to measure"));
        }
        predictions.check()?;
        let scorer = Scorer::new(predictions);
        let ones = vec![1; predictions.len()];
        let confusion = scorer.confusion(&ones);
        let (scores, per_class) = scorer.scores(&ones);
        let (intervals, class_intervals) = bootstrap::intervals(&scorer, predictions).unzip();
        let class = |(c, name): (usize, &String)| Class {
            name: name.clone(),
            scores: per_class[c],
            sensitivity: per_class[c].recall,
            support: confusion[c].iter().sum(),
            counts: Counts::of(c, &confusion),
            intervals: class_intervals.as_ref().map(|all: &Vec<_>| all[c]),
        };
        Ok(Metrics {
            scores,
            images: predictions.len(),
            classes: predictions.classes.iter().enumerate().map(class).collect(),
            confusion,
            calibration: Calibration::new(predictions),
            intervals,
            worst: predictions.worst(WORST),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let of = |labels: &[usize], probabilities: &[f64], losses: &[f64]| Predictions {
            classes: vec!["a".into(), "b".into()],
            paths: labels.iter().map(usize::to_string).collect(),
            labels: labels.to_vec(),
            probabilities: probabilities.to_vec(),
            losses: losses.to_vec(),
            groups: None,
        };
        assert_eq!(Metrics::new(&of(&[], &[], &[])).unwrap_err().exit_code(), 2);
        assert_eq!(Metrics::new(&of(&[2], &[0.5, 0.5], &[0.7])).unwrap_err().exit_code(), 3);
        assert!(Metrics::new(&of(&[1], &[0.5, 0.5], &[0.7])).unwrap().intervals.is_none());
    }

    #[test]
    fn what_is_written_is_read() {
        let predictions = Predictions {
            classes: vec!["a".into(), "b".into()],
            paths: vec!["a/1".into(), "a/2".into()],
            labels: vec![0, 0],
            probabilities: vec![0.25, 0.75, 0.5, 0.5],
            losses: vec![4f64.ln(), 2f64.ln()],
            groups: None,
        };
        let metrics = Metrics::new(&predictions).unwrap();
        assert_eq!(serde_json::from_str::<Metrics>(&serde_json::to_string(&metrics).unwrap()).unwrap(), metrics);
    }
}
