//! `compare.html`: the figure and the table of a comparison, with the way to each run's own report.

use super::compare::Outcome;
use crate::report::page::{document, drawing, wide};
use crate::report::{duration, grouped};
use maud::html;

/// The file's text.
pub fn page(title: &str, svg: &str, outcomes: &[Outcome]) -> String {
    let accuracy = |o: &Outcome| o.best().val_accuracy;
    let best = outcomes.iter().reduce(|best, o| if accuracy(o) > accuracy(best) { o } else { best });
    let number = |x: Option<f64>| x.map_or("–".into(), |x| format!("{x:.4}"));
    let title_of = |o: &Outcome| o.plan.settings.backbone().map_or(o.plan.settings.backbone.clone(), |b| b.title().into());
    let table = html! {
        table {
            thead { tr {
                th scope="col" class="name" { "Backbone" }
                th scope="col" class="name" { "Weights of the backbone" }
                th scope="col" { "Best validation accuracy" }
                th scope="col" { "Validation loss" }
                th scope="col" { "Epoch" }
                th scope="col" { "Time" }
                th scope="col" { "Images/s" }
                th scope="col" class="name" { "Report" }
            } }
            tbody { @for o in outcomes { tr {
                th scope="row" { (title_of(o)) }
                td class="text" { (o.plan.freeze) }
                td { (number(accuracy(o))) }
                td { (number(o.best().val_loss)) }
                td { (o.best().epoch) " of " (o.history.len()) }
                td { (duration(o.seconds())) }
                td { (format!("{:.1}", o.images_per_second())) }
                td class="text" { a href={ (o.plan.folder()) "/report.html" } { "open" } }
            } } }
        }
    };
    let body = html! {
        header {
            h1 { (title) }
            @if let Some(o) = best {
                p { "Best on the validation images: " (title_of(o)) ", " (o.plan.freeze) ", " (number(accuracy(o))) "." }
                p { (grouped(o.trained)) " images to train, " (grouped(o.validated)) " to validate, the same for every row." }
            }
        }
        main {
            (wide("Figure", &drawing(svg, "Bars of the best validation accuracy and curves of it by epoch, frozen and unfrozen")))
            (wide("Runs", &table))
            p class="soft" {
                "Whiskers are Wilson's 95% intervals for that many validation images. The epoch was chosen by the same images, so all of "
                "these numbers are a little too good; test images that took no part tell the rest. Time counts all epochs with validation, "
                "and the one pass in which a frozen backbone's features are computed."
            }
        }
        footer { p { "Made by Defrost " (env!("CARGO_PKG_VERSION")) ". This file holds all of its pictures; only the reports are files of their own." } }
    };
    document(title, &body)
}
