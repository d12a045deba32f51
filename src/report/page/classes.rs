//! The classes: each against the rest, and which is taken for which.

use super::{interval, number, percent, wide};
use crate::metrics::{Class, Interval, Metrics};
use crate::report::grouped;
use maud::{Markup, html};

/// Names that are longer than this together stand upright above the confusion matrix.
const SHORT: usize = 56;

/// Every class against the rest, with intervals.
pub fn table(m: &Metrics, measured: &str) -> Markup {
    let columns = ["sensitivity", "specificity", "precision", "NPV", "F1", "AUROC", "average precision"];
    let table = html! {
        table {
            thead { tr { th.name scope="col" { "class" } th scope="col" { "images" } @for name in columns { th scope="col" { (name) } } } }
            tbody {
                @for class in &m.classes {
                    tr {
                        th scope="row" { (class.name) }
                        td { (grouped(class.support as u64)) }
                        @for (value, ends) in measures(class) { td { (number(value)) @if ends.is_some() { small { (interval(ends)) } } } }
                    }
                }
            }
        }
    };
    html! {
        p {
            (grouped(m.images as u64)) " " (measured) ", each class against the rest"
            @if m.intervals.is_some() { "; below each number its 95% interval" } "."
        }
        (wide("Measures of each class", &table))
        p.soft {
            small {
                "Sensitivity is also called recall, precision also positive predictive value; NPV is the negative predictive value. "
                "A dash stands where there is nothing to divide by."
            }
        }
    }
}

/// In the order of the columns.
fn measures(class: &Class) -> [(Option<f64>, Option<Interval>); 7] {
    let (s, i) = (class.scores, class.intervals.unwrap_or_default());
    [
        (s.recall, i.recall),
        (s.specificity, i.specificity),
        (s.precision, i.precision),
        (s.npv, i.npv),
        (s.f1, i.f1),
        (s.auroc, i.auroc),
        (s.average_precision, i.average_precision),
    ]
}

/// Counts and, below each, its share of the row, which is also its colour.
pub fn confusion(m: &Metrics) -> Markup {
    let upright = m.classes.iter().map(|c| c.name.chars().count().max(5)).sum::<usize>() > SHORT;
    let table = html! {
        table.confusion.many[upright] {
            thead {
                tr {
                    th.name scope="col" { "true ↓ predicted →" }
                    @for class in &m.classes { th scope="col" title=(class.name) { span { (class.name) } } }
                    th scope="col" { span { "images" } }
                }
            }
            tbody {
                @for (t, (class, row)) in m.classes.iter().zip(&m.confusion).enumerate() {
                    tr {
                        th scope="row" { (class.name) }
                        @for (p, &count) in row.iter().enumerate() { (cell(count, class.support, t == p)) }
                        td.sum { (grouped(class.support as u64)) }
                    }
                }
            }
        }
    };
    html! {
        p { "Rows are true classes, columns predicted ones: images, and their share of the row." }
        (wide("Confusion matrix", &table))
    }
}

fn cell(count: usize, support: usize, diagonal: bool) -> Markup {
    let share = if support == 0 { 0.0 } else { count as f64 / support as f64 };
    let style = format!("--share:{:.1}", 100.0 * share);
    html! {
        td.dark[share > 0.5].none[count == 0].diagonal[diagonal] style=(style) {
            (grouped(count as u64))
            @if count > 0 { small { (short(share)) } }
        }
    }
}

/// A share in whole percent, never rounded to none or all.
fn short(share: f64) -> String {
    match (100.0 * share).round() {
        p if (p == 0.0 && share > 0.0) || (p == 100.0 && share < 1.0) => percent(share),
        p => format!("{p}%"),
    }
}
