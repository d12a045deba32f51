//! Whether a model is as often right as it claims to be: of the images that it is 80% sure of, 80% should be right.

use super::predictions::Predictions;
use serde::{Deserialize, Serialize};

/// How many bins of equal width the confidence 0 to 1 is cut into.
pub const BINS: usize = 15;

/// Reliability by the probability of the predicted class (its confidence).
///
/// ece = sum over bins of images in the bin / images * |share of them that is right - mean confidence|, with [`BINS`] bins of
/// equal width (Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    pub ece: f64,
    /// All bins, from 0 to 1.
    pub reliability: Vec<Bin>,
}

/// The images whose confidence lies in a bin: above `from`, at most `to`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    pub from: f64,
    pub to: f64,
    pub images: usize,
    /// Mean confidence; `None` without images.
    pub confidence: Option<f64>,
    /// Share that is right; `None` without images.
    pub accuracy: Option<f64>,
}

impl Calibration {
    /// Bins predictions.
    pub fn new(of: &Predictions) -> Self {
        // NumPy's linspace(0, 1, BINS + 1), edge by edge.
        let edge = |b: usize| if b == BINS { 1.0 } else { b as f64 * (1.0 / BINS as f64) };
        let edges: Vec<f64> = (0..=BINS).map(edge).collect();
        let mut sums = [(0usize, 0.0, 0usize); BINS];
        for i in 0..of.len() {
            let best = of.predicted(i);
            let confidence = of.row(i)[best];
            // The first bin whose upper edge is not below.
            let bin = &mut sums[edges[1..BINS].partition_point(|&upper| upper < confidence)];
            *bin = (bin.0 + 1, bin.1 + confidence, bin.2 + usize::from(best == of.labels[i]));
        }
        let bin = |(b, &(images, confidence, right)): (usize, &(usize, f64, usize))| {
            let mean = |sum: f64| (images > 0).then(|| sum / images as f64);
            Bin { from: edges[b], to: edges[b + 1], images, confidence: mean(confidence), accuracy: mean(right as f64) }
        };
        let reliability: Vec<Bin> = sums.iter().enumerate().map(bin).collect();
        let gap = |b: &Bin| b.images as f64 * (b.accuracy.unwrap_or(0.0) - b.confidence.unwrap_or(0.0)).abs();
        Calibration { ece: reliability.iter().map(gap).sum::<f64>() / of.len() as f64, reliability }
    }
}
