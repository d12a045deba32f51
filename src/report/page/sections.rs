//! The sections that hold numbers, tables of pairs and figures.

use super::{drawing, interval, number, wide};
use crate::metrics::{Calibration, Metrics};
use crate::report::{Epoch, grouped, panels, reliability};
use maud::{Markup, html};

/// The measures of all classes together, large.
pub fn tiles(m: &Metrics) -> Markup {
    let (s, i) = (m.scores, m.intervals.as_ref().map(|i| i.scores).unwrap_or_default());
    let tiles = [
        ("Accuracy", s.accuracy, i.accuracy),
        ("Balanced accuracy", s.balanced_accuracy, i.balanced_accuracy),
        ("Matthews correlation", s.mcc, i.mcc),
        ("AUROC, mean of classes", s.auroc_macro, i.auroc_macro),
        ("Average precision, mean of classes", s.average_precision_macro, i.average_precision_macro),
        ("Loss", s.loss, i.loss),
        ("Brier score", s.brier, i.brier),
        ("Expected calibration error", Some(m.calibration.ece), None),
    ];
    html! {
        dl.tiles {
            @for (name, value, ends) in tiles {
                div { dt { (name) } dd { (number(value)) @if ends.is_some() { " " small { (interval(ends)) } } } }
            }
        }
        @if let Some(i) = &m.intervals {
            p.soft {
                small {
                    "Ranges are 95% intervals: the middle of " (grouped(i.resamples as u64)) " bootstrap resamples of the "
                    (grouped(i.units as u64)) " " (i.unit) "s."
                }
            }
        } @else {
            p.soft { small { "No intervals: they take at least two images, or groups of them." } }
        }
    }
}

/// What to know before believing a number.
pub fn warnings(warnings: &[String]) -> Markup {
    html! {
        @if !warnings.is_empty() {
            aside.warnings aria-labelledby="warnings" {
                h2 #warnings { (warnings.len()) @if warnings.len() == 1 { " warning" } @else { " warnings" } }
                ul { @for warning in warnings { li { (warning) } } }
            }
        }
    }
}

/// Loss and accuracy over the epochs.
pub fn curves(history: &[Epoch], best: Option<usize>) -> Markup {
    let [loss, accuracy] = panels(history, best);
    let last = history.iter().max_by_key(|e| e.epoch);
    let label = |what: &str, train: Option<f64>, val: Option<f64>| {
        let part = |name: &str, x: Option<f64>| x.map_or(String::new(), |x| format!(", {name} {x:.4}"));
        let epochs = last.map_or(0, |e| e.epoch);
        format!("{what} over {epochs} epochs; in the last one{}{}", part("training", train), part("validation", val))
    };
    html! {
        ul.legend {
            li.training { "training" }
            @if history.iter().any(|e| e.val_loss.is_some()) { li.validation { "validation" } }
        }
        div.drawings {
            (drawing(&loss, &label("Loss", last.map(|e| e.loss), last.and_then(|e| e.val_loss))))
            (drawing(&accuracy, &label("Accuracy", last.map(|e| e.accuracy), last.and_then(|e| e.val_accuracy))))
        }
    }
}

/// The reliability diagram and how to read it.
pub fn calibration(calibration: &Calibration) -> Markup {
    let bins = calibration.reliability.len();
    let label = format!("Reliability diagram; expected calibration error {:.4}", calibration.ece);
    html! {
        div.drawings {
            (drawing(&reliability("", calibration), &label))
            p {
                "Each bar holds the images of which the model is about equally sure; it is as high as the share of them that is right. "
                "Bars that end below the dashed line mean too much confidence, above it too little; orange is the distance. The expected "
                "calibration error, " (number(Some(calibration.ece))) ", is the mean distance over " (bins)
                " bins of equal width, weighted by images."
            }
        }
    }
}

/// Images per class and side of the split.
pub fn data(counts: &[(String, [usize; 2])]) -> Markup {
    let sum = |side: usize| counts.iter().map(|(_, n)| n[side]).sum::<usize>() as u64;
    let table = html! {
        table {
            thead { tr { th.name scope="col" { "class" } th scope="col" { "training" } th scope="col" { "validation" } } }
            tbody {
                @for (name, [train, val]) in counts {
                    tr { th scope="row" { (name) } td { (grouped(*train as u64)) } td { (grouped(*val as u64)) } }
                }
                @if counts.len() > 1 { tr { th scope="row" { "all" } td { (grouped(sum(0))) } td { (grouped(sum(1))) } } }
            }
        }
    };
    wide("Images per class", &table)
}

/// Names and values.
pub fn pairs(pairs: &[(String, String)]) -> Markup {
    let table = html! {
        table.plain { tbody { @for (name, value) in pairs { tr { th scope="row" { (name) } td { code { (value) } } } } } }
    };
    wide("Names and values", &table)
}

/// Many short names and values, in columns.
pub fn columns(pairs: &[(String, String)]) -> Markup {
    html! { dl.columns { @for (name, value) in pairs { div { dt { (name) } dd { code { (value) } } } } } }
}
