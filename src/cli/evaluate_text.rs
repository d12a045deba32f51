//! What `defrost evaluate` shows a person.

use crate::metrics::calibration::BINS;
use crate::metrics::predictions::Scored;
use crate::metrics::{Class, Interval, Intervals, Metrics};
use crate::report::{Align, Table, grouped};

/// A table wider than this numbers its columns instead of naming them.
const WIDE: usize = 110;
/// How many of the worst images are shown; all of them are in the JSON.
const SHOWN: usize = 10;

/// The measures with their intervals, the classes, the confusion matrix, the worst images.
pub fn text(m: &Metrics) -> String {
    [head(m), classes(&m.classes), confusion(m), worst(&m.worst)].join("\n")
}

fn head(m: &Metrics) -> String {
    let images = if m.images == 1 { "1 image".into() } else { format!("{} images", grouped(m.images as u64)) };
    let ends = m.intervals.as_ref().map(|i| i.scores);
    let (s, i) = (m.scores, |of: fn(crate::metrics::Scores<Option<Interval>>) -> Option<Interval>| ends.and_then(of));
    let rows = [
        ("accuracy", s.accuracy, i(|i| i.accuracy)),
        ("balanced accuracy", s.balanced_accuracy, i(|i| i.balanced_accuracy)),
        ("Matthews correlation", s.mcc, i(|i| i.mcc)),
        ("AUROC, mean of classes", s.auroc_macro, i(|i| i.auroc_macro)),
        ("average precision, mean of classes", s.average_precision_macro, i(|i| i.average_precision_macro)),
        ("loss", s.loss, i(|i| i.loss)),
        ("Brier score", s.brier, i(|i| i.brier)),
        ("expected calibration error", Some(m.calibration.ece), None),
    ];
    let mut table =
        Table::new(&[(&format!("{images}, {} classes", m.classes.len()), Align::Left), ("", Align::Right), ("95%", Align::Left)]);
    for (name, value, ends) in rows {
        table.row([name.to_string(), number(value), interval(ends, 4)]);
    }
    format!("{table}{}\n", m.intervals.as_ref().map_or_else(no_intervals, method))
}

fn method(i: &Intervals) -> String {
    let units = grouped(i.units as u64);
    format!("95%: the middle of {} bootstrap resamples of the {units} {}s; calibration in {BINS} bins", grouped(i.resamples as u64), i.unit)
}

fn no_intervals() -> String {
    format!("no intervals: they take at least two images, or groups of them; calibration in {BINS} bins")
}

fn classes(classes: &[Class]) -> String {
    use Align::{Left, Right};
    let columns = [
        ("class", Left),
        ("images", Right),
        ("sensitivity", Left),
        ("specificity", Left),
        ("AUROC", Left),
        ("precision", Right),
        ("F1", Right),
    ];
    let mut table = Table::new(&columns);
    for c in classes {
        let with = |value, ends| [number(value), interval(ends, 2)].join(" ").trim_end().to_string();
        let (s, i) = (c.scores, c.intervals.unwrap_or_default());
        let [sensitivity, specificity, auroc] =
            [(s.recall, i.recall), (s.specificity, i.specificity), (s.auroc, i.auroc)].map(|(value, ends)| with(value, ends));
        table.row([c.name.clone(), c.support.to_string(), sensitivity, specificity, auroc, number(s.precision), number(s.f1)]);
    }
    table.to_string()
}

fn confusion(m: &Metrics) -> String {
    let longest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let label = longest(&mut m.classes.iter().map(|c| c.name.chars().count())).max("true \\ predicted".len());
    let wide = label + m.classes.iter().map(|c| c.name.chars().count().max(4) + 2).sum::<usize>() > WIDE;
    let row_name = |(i, c): (usize, &Class)| if wide { format!("{:>2} {}", i + 1, c.name) } else { c.name.clone() };
    let column_name = |(i, c): (usize, &Class)| if wide { (i + 1).to_string() } else { c.name.clone() };
    let names: Vec<String> = m.classes.iter().enumerate().map(column_name).collect();
    let columns = names.iter().map(|name| (name.as_str(), Align::Right));
    let mut table = Table::new(&[("true \\ predicted", Align::Left)].into_iter().chain(columns).collect::<Vec<_>>());
    for (class, row) in m.classes.iter().enumerate().zip(&m.confusion) {
        table.row([row_name(class)].into_iter().chain(row.iter().map(usize::to_string)));
    }
    table.to_string()
}

fn worst(worst: &[Scored]) -> String {
    let columns =
        [("worst-scored images", Align::Left), ("true class", Align::Left), ("its probability", Align::Right), ("predicted", Align::Left)];
    let mut table = Table::new(&columns);
    for s in worst.iter().take(SHOWN) {
        let predicted = if s.predicted == s.class { "the same".into() } else { format!("{} {:.4}", s.predicted, s.probability) };
        table.row([s.path.clone(), s.class.clone(), small(s.true_probability), predicted]);
    }
    table.to_string()
}

/// A probability with four digits, whatever its size.
fn small(p: f64) -> String {
    if p > 0.0 && p < 0.000_05 { format!("{p:.0e}") } else { format!("{p:.4}") }
}

fn number(value: Option<f64>) -> String {
    value.map_or("-".into(), |x| format!("{x:.4}"))
}

/// `0.69 to 0.86`.
fn interval(ends: Option<Interval>, digits: usize) -> String {
    ends.map_or(String::new(), |[low, high]| format!("{low:.digits$} to {high:.digits$}"))
}
