//! What `defrost evaluate` shows a person, and its table of predictions.

use super::evaluate::Evaluated;
use crate::data::csv;
use crate::report::{Align, Table};
use crate::train::Metrics;
use crate::train::metrics::argmax;

/// The measures, the classes, the confusion matrix.
pub fn text(m: &Metrics) -> String {
    let images = if m.images == 1 { "1 image".into() } else { format!("{} images", m.images) };
    let mut text = format!("{images} of {} classes\n\n", m.classes.len());
    let all = [
        ("loss", Some(m.loss)),
        ("accuracy", Some(m.accuracy)),
        ("balanced accuracy", m.balanced_accuracy),
        ("Matthews correlation", Some(m.mcc)),
        ("AUROC, mean of classes", m.auroc_macro),
    ];
    for (name, value) in all {
        text += &format!("{name:24}{:>8}\n", number(value));
    }
    let columns = ["precision", "recall", "specificity", "f1", "AUROC", "images"].map(|name| (name, Align::Right));
    let mut classes = Table::new(&[&[("class", Align::Left)], &columns[..]].concat());
    for c in &m.classes {
        let numbers = [c.precision, c.recall, c.specificity, c.f1, c.auroc].map(number);
        classes.row([c.name.clone()].into_iter().chain(numbers).chain([c.support.to_string()]));
    }
    let names: Vec<(&str, Align)> = m.classes.iter().map(|c| (c.name.as_str(), Align::Right)).collect();
    let mut confusion = Table::new(&[&[("true \\ predicted", Align::Left)], &names[..]].concat());
    for (c, row) in m.classes.iter().zip(&m.confusion) {
        confusion.row([c.name.clone()].into_iter().chain(row.iter().map(usize::to_string)));
    }
    text + &format!("\n{classes}\n{confusion}")
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".into(), |x| format!("{x:.4}"))
}

/// `path,label,predicted` and the probability of each class, one row per image, sorted by path.
pub fn predictions(found: &Evaluated) -> String {
    let mut rows: Vec<(usize, &[f64])> = found.probabilities.chunks_exact(found.classes.len()).enumerate().collect();
    rows.sort_by_key(|(i, _)| &found.paths[*i]);
    let header = csv::line(["path", "label", "predicted"].into_iter().chain(found.classes.iter().map(String::as_str)));
    let line = |(i, row): &(usize, &[f64])| {
        let texts = [&found.paths[*i], &found.classes[found.labels[*i]], &found.classes[argmax(row)]];
        let numbers: Vec<String> = row.iter().map(f64::to_string).collect();
        csv::line(texts.into_iter().chain(&numbers))
    };
    header + &rows.iter().map(line).collect::<String>()
}
