//! What a model said of images whose classes are known, and the table of it.

use crate::data::csv;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Images in the order in which they are listed, and what a model said of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    /// In the model's order.
    pub classes: Vec<String>,
    /// Relative to DATA, `/` between the parts.
    pub paths: Vec<String>,
    /// The true classes.
    pub labels: Vec<usize>,
    /// `[n, classes]`.
    pub probabilities: Vec<f64>,
    /// -log of the true class's probability, from the logits.
    pub losses: Vec<f64>,
    /// The patient, video or site of each image, where it is known.
    pub groups: Option<Vec<String>>,
}

/// One image in a list of the worst.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    pub path: String,
    pub class: String,
    pub predicted: String,
    /// Of the predicted class.
    pub probability: f64,
    /// Of the true class.
    pub true_probability: f64,
    pub loss: f64,
}

/// The columns before those of the classes.
const COLUMNS: [&str; 3] = ["path", "label", "predicted"];

impl Predictions {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether it holds no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Appends what a model said, as logits `[m, classes]`, of the next `m` images, whose labels are known already.
    pub fn push(&mut self, logits: &[f64]) {
        for row in logits.chunks_exact(self.classes.len()) {
            self.losses.push(cross_entropy(row, self.labels[self.losses.len()]));
            self.probabilities.extend(softmax(row));
        }
    }

    /// The probabilities of image `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.probabilities[i * self.classes.len()..(i + 1) * self.classes.len()]
    }

    /// The class that the model takes image `i` for.
    pub fn predicted(&self, i: usize) -> usize {
        argmax(self.row(i))
    }

    /// Whether all lists are as long as they must be.
    pub(super) fn check(&self) -> Result<()> {
        let (n, k) = (self.len(), self.classes.len());
        let fits = self.paths.len() == n && self.losses.len() == n && self.probabilities.len() == n * k;
        let known = self.labels.iter().all(|&l| l < k) && self.groups.as_ref().is_none_or(|g| g.len() == n);
        if fits && known {
            return Ok(());
        }
        let (p, l) = (self.probabilities.len(), self.losses.len());
        Err(Error::internal(format!("{p} probabilities and {l} losses for {n} images of {k} classes")))
    }

    /// The images whose true class got the lowest probability, at most `count`, the lowest first; of equals, in their order.
    pub fn worst(&self, count: usize) -> Vec<Scored> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by(|&a, &b| self.losses[b].total_cmp(&self.losses[a]));
        order.truncate(count);
        order.into_iter().map(|i| self.scored(i)).collect()
    }

    /// The images that were taken for another class than theirs, ordered like [`Predictions::worst`].
    pub fn mistakes(&self, count: usize) -> Vec<Scored> {
        let mut all = self.worst(self.len());
        all.retain(|s| s.class != s.predicted);
        all.truncate(count);
        all
    }

    /// Of each class that has one, the image that is rightly taken for it with the highest probability.
    pub fn surest(&self) -> Vec<Scored> {
        let right = |c: usize| (0..self.len()).filter(move |&i| self.labels[i] == c && self.predicted(i) == c);
        let best = |c: usize| right(c).max_by(|&a, &b| self.row(a)[c].total_cmp(&self.row(b)[c]).then(b.cmp(&a)));
        (0..self.classes.len()).filter_map(best).map(|i| self.scored(i)).collect()
    }

    fn scored(&self, i: usize) -> Scored {
        let (row, best, label) = (self.row(i), self.predicted(i), self.labels[i]);
        Scored {
            path: self.paths[i].clone(),
            class: self.classes[label].clone(),
            predicted: self.classes[best].clone(),
            probability: row[best],
            true_probability: row[label],
            loss: self.losses[i],
        }
    }

    /// `path,label,predicted` and the probability of each class, a line for each image, in their order.
    pub fn to_csv(&self) -> String {
        let header = csv::line(COLUMNS.into_iter().chain(self.classes.iter().map(String::as_str)));
        let line = |i: usize| {
            let texts = [&self.paths[i], &self.classes[self.labels[i]], &self.classes[self.predicted(i)]];
            let numbers: Vec<String> = self.row(i).iter().map(f64::to_string).collect();
            csv::line(texts.into_iter().chain(&numbers))
        };
        header + &(0..self.len()).map(line).collect::<String>()
    }

    /// Reads what [`Predictions::to_csv`] wrote; losses are those of the probabilities.
    ///
    /// # Errors
    /// Kind `Input`: no such file, other columns, a class or a number that is none.
    pub fn read_csv(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
        Self::parse(&text).map_err(|e| e.at(path.display()).advise("expected the predictions_val.csv of a run"))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut records = csv::records(text).into_iter();
        let header = records.next().map(|(_, fields)| fields).unwrap_or_default();
        if header.len() < 4 || header[..3] != COLUMNS {
            return Err(Error::input(format!("its first line is `{}`", header.join(","))));
        }
        let mut all = Predictions { classes: header[3..].to_vec(), ..Predictions::default() };
        for (line, fields) in records {
            let wrong = |what: &str| Error::input(format!("line {line} {what}"));
            if fields.len() != header.len() {
                return Err(wrong("has another number of columns than the first"));
            }
            let label = all.classes.iter().position(|c| *c == fields[1]).ok_or_else(|| wrong("has a label that is no class"))?;
            let row: Vec<f64> = fields[3..].iter().filter_map(|field| field.parse().ok()).collect();
            if row.len() != all.classes.len() {
                return Err(wrong("has a probability that is no number"));
            }
            all.losses.push(-row[label].ln());
            all.paths.push(fields[0].clone());
            all.labels.push(label);
            all.probabilities.extend(row);
        }
        Ok(all)
    }
}

/// exp(x - max) / sum exp(x - max), in f64 whatever the network computed in.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::MIN, f64::max);
    let exp: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|x| x / sum).collect()
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
    fn a_table_comes_back_and_the_worst_come_first() {
        let mut p = Predictions {
            classes: vec!["a, b".into(), "c".into()],
            paths: ["x/\"1\".png", "2", "3"].map(String::from).to_vec(),
            labels: vec![1, 0, 1],
            ..Predictions::default()
        };
        p.push(&[2.0, 1.0, 3.0, 0.0]);
        p.push(&[1.0, 1.0]);
        let read = Predictions::parse(&p.to_csv()).unwrap();
        assert_eq!((&read.paths, &read.labels, &read.probabilities), (&p.paths, &p.labels, &p.probabilities));
        assert!(read.losses.iter().zip(&p.losses).all(|(a, b)| (a - b).abs() < 1e-12));
        assert_eq!(p.worst(9).iter().map(|s| &*s.path).collect::<Vec<_>>(), ["x/\"1\".png", "3", "2"]);
        // A tie goes to the first class, so the third image is a mistake too.
        assert_eq!(p.mistakes(9).len(), 2);
        assert_eq!(p.surest().iter().map(|s| &*s.path).collect::<Vec<_>>(), ["2"]);
        assert!(Predictions::parse("path,label,predicted,a\nx,b,a,1\n").unwrap_err().to_string().contains("line 2"));
        assert!(Predictions::parse("path,class\n").is_err());
    }
}
