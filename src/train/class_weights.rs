//! What a class's images count for in the loss.
//!
//! As in Keras, `class_weight` is a weight per image: a batch's loss is `sum_i w_i l_i / n` over its n images (divided by n, not by
//! the sum of weights; `keras/src/losses/loss.py`, `sum_over_batch_size`). It concerns training alone: accuracies and the
//! validation loss are plain means. `balanced` is scikit-learn's `n / (k count)`, which leaves the mean weight over images at 1.

use crate::data::csv::records;
use crate::error::{Error, Result};
use crate::models::did_you_mean;
use std::path::Path;

/// Weights per class, in the order of `classes`, for `--class-weight none|balanced|FILE`; `labels` are those of the training
/// images.
///
/// # Errors
/// A class without training images (balanced), a file that cannot be read, or that leaves out a class, names one that is not
/// there, names one twice, or gives a weight that is no number of at least zero.
pub fn class_weights(choice: &str, classes: &[String], labels: impl Iterator<Item = usize>) -> Result<Vec<f64>> {
    match choice {
        "none" => Ok(vec![1.0; classes.len()]),
        "balanced" => balanced(classes, labels),
        path => from_file(Path::new(path), classes),
    }
    .map_err(|e| e.at("--class-weight"))
}

fn balanced(classes: &[String], labels: impl Iterator<Item = usize>) -> Result<Vec<f64>> {
    let mut counts = vec![0usize; classes.len()];
    labels.for_each(|label| counts[label] += 1);
    if let Some(empty) = counts.iter().position(|&count| count == 0) {
        let error = Error::input(format!("class {:?} has no training images, so nothing balances it", classes[empty]));
        return Err(error.advise("use --split stratified, or give weights in a file"));
    }
    let n: usize = counts.iter().sum();
    Ok(counts.into_iter().map(|count| n as f64 / (classes.len() * count) as f64).collect())
}

fn from_file(path: &Path, classes: &[String]) -> Result<Vec<f64>> {
    let advice = "expected none, balanced, or a file with lines `class,weight`";
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e).advise(advice))?;
    let mut weights: Vec<Option<f64>> = vec![None; classes.len()];
    for (i, (line, record)) in records(&text).into_iter().enumerate() {
        let wrong = |what: String| Err(Error::input(what).at(format!("line {line}")).at(path.display()));
        let [name, weight] = record.iter().map(|field| field.trim()).collect::<Vec<_>>()[..] else {
            return wrong(format!("{} fields, expected `class,weight`", record.len()));
        };
        if i == 0 && (name, weight) == ("class", "weight") && !classes.iter().any(|c| c == "class") {
            continue;
        }
        let Some(class) = classes.iter().position(|c| c == name) else {
            let error = Error::input(format!("no class is called {name:?}")).at(format!("line {line}")).at(path.display());
            let known = || format!("the classes are {}", classes.join(", "));
            return Err(error.advise(did_you_mean(name, classes.iter().map(String::as_str)).unwrap_or_else(known)));
        };
        let number = weight.parse().ok().filter(|w: &f64| w.is_finite() && *w >= 0.0);
        let Some(number) = number else {
            return wrong(format!("the weight of class {name:?} is {weight:?}, expected a number of at least 0"));
        };
        if weights[class].replace(number).is_some() {
            return wrong(format!("class {name:?} was given a weight before"));
        }
    }
    if let Some(missing) = weights.iter().position(Option::is_none) {
        return Err(Error::input(format!("class {:?} has no weight", classes[missing])).at(path.display()));
    }
    let weights: Vec<f64> = weights.into_iter().flatten().collect();
    if weights.iter().all(|&w| w == 0.0) {
        return Err(Error::input("every weight is 0, so there is nothing to learn").at(path.display()));
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["cecum", "polyp", "z-line"].map(String::from).to_vec()
    }

    #[test]
    fn balanced_weights_are_those_of_scikit_learn() {
        // sklearn.utils.class_weight.compute_class_weight("balanced", classes=[0, 1, 2], y=[0] * 7 + [1] * 2 + [2] * 3)
        let labels = [[0].repeat(7), [1].repeat(2), [2].repeat(3)].concat();
        assert_eq!(
            class_weights("balanced", &names(), labels.into_iter()).unwrap(),
            [0.571_428_571_428_571_4, 2.0, 1.333_333_333_333_333_3]
        );
        let error = class_weights("balanced", &names(), [0, 2].into_iter()).unwrap_err().to_string();
        assert!(error.contains("polyp") && error.starts_with("--class-weight"), "{error}");
        assert_eq!(class_weights("none", &names(), [0, 2].into_iter()).unwrap(), [1.0; 3]);
    }

    #[test]
    fn a_file_gives_weights_by_name_and_its_faults_are_named() {
        let path = std::env::temp_dir().join(format!("defrost-weights-{}.csv", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            class_weights(path.to_str().unwrap(), &names(), [].into_iter()).map_err(|e| e.to_string())
        };
        assert_eq!(read("class,weight\nz-line,3\n\npolyp, 2.5\ncecum,0\n").unwrap(), [0.0, 2.5, 3.0]);
        for (text, says) in [
            ("cecum,1\npolyp,1\n", "class \"z-line\" has no weight"),
            ("cecum,1\npolip,1\n", "line 2: no class is called \"polip\"\n  did you mean polyp?"),
            ("cecum,1\ncecum,1\n", "line 2: class \"cecum\" was given a weight before"),
            ("cecum,-1\n", "line 1: the weight of class \"cecum\" is \"-1\""),
            ("cecum,nan\n", "expected a number"),
            ("cecum\n", "1 fields"),
            ("cecum,0\npolyp,0\nz-line,0\n", "every weight is 0"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = class_weights("balancd", &names(), [].into_iter()).unwrap_err().to_string();
        assert!(error.contains("none, balanced, or a file"), "{error}");
    }
}
