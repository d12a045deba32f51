//! `report.html`: everything that a run found, in one file that opens without a network.
//!
//! Pictures and styles are inside the file, there is no script, and a content policy forbids the browser to load or run
//! anything. Names of classes and files are what strangers called their folders: every text goes through the escaping of the
//! template engine, every figure through [`Svg`](super::svg::Svg)'s.

mod classes;
mod gallery;
mod sections;

pub use gallery::{Explanation, Picture, Shot};

use super::Epoch;
use crate::metrics::Metrics;
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");

/// What a report shows; what is empty or `None` has no section.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What was trained on what.
    pub title: String,
    /// How it ended, in a sentence.
    pub summary: String,
    /// What a reader should know of data and split before believing a number.
    pub warnings: Vec<String>,
    pub history: Vec<Epoch>,
    /// The epoch whose model is kept.
    pub best: Option<usize>,
    pub metrics: Option<Metrics>,
    /// What was measured: `validation images`.
    pub measured: String,
    /// The worst mistakes, the worst first, and how many mistakes there are in all.
    pub mistakes: Vec<Shot>,
    pub mistaken: usize,
    /// Grad-CAMs, and the layer they look at.
    pub explanations: Vec<Explanation>,
    pub explained_at: String,
    /// Images of each class to train and to validate.
    pub data: Vec<(String, [usize; 2])>,
    /// Names and values.
    pub settings: Vec<(String, String)>,
    /// Where the model comes from.
    pub facts: Vec<(String, String)>,
}

impl Report {
    /// The file's text.
    pub fn to_html(&self) -> String {
        let sections = self.sections();
        let body = html! {
            header {
                h1 { (self.title) }
                p { (self.summary) }
                @if let Some(metrics) = &self.metrics { (sections::tiles(metrics)) }
                (sections::warnings(&self.warnings))
                nav aria-label="Sections" {
                    ul { @for (id, title, _) in &sections { li { a href={ "#" (id) } { (title) } } } }
                }
            }
            main { @for (id, title, content) in &sections { section id=(id) { h2 { (title) } (content) } } }
            footer { p { "Made by Defrost " (env!("CARGO_PKG_VERSION")) ". This file holds all of its pictures and loads nothing." } }
        };
        document(&self.title, &body)
    }

    /// Identifier, title and content of each section that has something to show.
    fn sections(&self) -> Vec<(&'static str, &'static str, Markup)> {
        let mut all = Vec::new();
        if !self.history.is_empty() {
            all.push(("curves", "Training", sections::curves(&self.history, self.best)));
        }
        if let Some(metrics) = &self.metrics {
            all.push(("classes", "Classes", classes::table(metrics, &self.measured)));
            all.push(("confusion", "Confusion matrix", classes::confusion(metrics)));
            all.push(("calibration", "Calibration", sections::calibration(&metrics.calibration)));
            all.push(("mistakes", "Worst mistakes", gallery::mistakes(&self.mistakes, self.mistaken)));
        }
        if !self.explanations.is_empty() {
            all.push(("gradcam", "Where the model looks", gallery::explanations(&self.explanations, &self.explained_at)));
        }
        if !self.data.is_empty() {
            all.push(("data", "Data and split", sections::data(&self.data)));
        }
        if !self.settings.is_empty() {
            all.push(("settings", "Settings", sections::columns(&self.settings)));
        }
        if !self.facts.is_empty() {
            all.push(("model", "Model", sections::pairs(&self.facts)));
        }
        all
    }
}

/// A page with this title and body, in the style of all reports.
pub fn document(title: &str, body: &Markup) -> String {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string() + "\n"
}

/// A figure that is drawn, with words for those who cannot see it.
pub fn drawing(svg: &str, label: &str) -> Markup {
    html! { figure.drawing { div role="img" aria-label=(label) { (PreEscaped(svg)) } } }
}

/// A table, or anything else that may be wider than a telephone: it scrolls by itself.
pub fn wide(label: &str, content: &Markup) -> Markup {
    html! { div.wide role="region" aria-label=(label) tabindex="0" { (content) } }
}

/// `0.8123`, or a dash.
fn number(value: Option<f64>) -> String {
    value.map_or("–".into(), |x| format!("{x:.3}"))
}

/// `0.75 to 0.86`, or nothing.
fn interval(ends: Option<crate::metrics::Interval>) -> String {
    ends.map_or(String::new(), |[low, high]| format!("{low:.3}–{high:.3}"))
}

/// A share between 0 and 1 in percent, never rounded to certainty.
fn percent(share: f64) -> String {
    match 100.0 * share {
        0.0 => "0%".into(),
        100.0 => "100%".into(),
        p if p < 0.1 => "<0.1%".into(),
        p if p > 99.9 => ">99.9%".into(),
        p => format!("{p:.1}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::decode::Rgb;
    use crate::metrics::Predictions;

    const HOSTILE: &str = "<script>alert(1)</script>\"'&</style>";

    /// Two classes with hostile names; of three images one is a mistake.
    fn report() -> Report {
        let mut p = Predictions {
            classes: vec![HOSTILE.into(), "polyp".into()],
            paths: vec![format!("{HOSTILE}/1.png"), "polyp/2.png".into(), "polyp/3.png".into()],
            labels: vec![0, 1, 1],
            ..Predictions::default()
        };
        p.push(&[0.0, 1.0, 0.0, 2.0, 0.0, 0.5]);
        let picture = Picture::new(&Rgb { width: 600, height: 3, pixels: vec![90; 5400], orientation: 1, clipped: false }).unwrap();
        let shots: Vec<Shot> = p.mistakes(9).into_iter().map(|scored| Shot { picture: picture.clone(), scored }).collect();
        let maps = vec![(HOSTILE.to_string(), Picture::lost())];
        Report {
            title: format!("VGG16 on {HOSTILE}"),
            summary: HOSTILE.into(),
            warnings: vec![HOSTILE.into()],
            history: vec![Epoch { epoch: 1, loss: 0.7, accuracy: 0.5, val_loss: None, val_accuracy: None }],
            best: Some(1),
            metrics: Some(Metrics::new(&p).unwrap()),
            measured: "images".into(),
            explanations: vec![Explanation { shot: shots[0].clone(), maps }],
            mistakes: shots,
            mistaken: 1,
            explained_at: HOSTILE.into(),
            data: vec![(HOSTILE.into(), [3, 1])],
            settings: vec![(HOSTILE.into(), HOSTILE.into())],
            facts: vec![("weights".into(), HOSTILE.into())],
        }
    }

    #[test]
    fn hostile_names_are_text_and_nothing_is_loaded() {
        let html = report().to_html();
        assert!(html.contains("&lt;script&gt;alert(1)"));
        for part in ["<script", "alert(1)</", "=\"<", "\"'&<", "http://", "https://", "src=\"/", "url(", "@import", "javascript:"] {
            let text = html.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(part), "{part}: {}", &text[text.find(part).unwrap().saturating_sub(200)..]);
        }
        // One style sheet, which no name ends early.
        assert_eq!((html.matches("<style>").count(), html.matches("</style>").count()), (1, 1));
        assert_eq!(html.matches("<img ").count(), html.matches("src=\"data:image/jpeg;base64,").count());
        assert_eq!(html.matches("<img ").count(), html.matches(" alt=\"").count());
    }

    #[test]
    fn every_section_that_has_something_to_show_is_there() {
        let html = report().to_html();
        for id in ["curves", "classes", "confusion", "calibration", "mistakes", "gradcam", "data", "settings", "model"] {
            assert!(html.contains(&format!("<section id=\"{id}\">")) && html.contains(&format!("href=\"#{id}\"")), "{id}");
        }
        let empty = Report::default().to_html();
        assert!(!empty.contains("<section") && empty.starts_with("<!DOCTYPE html><html lang=\"en\">"));
    }

    #[test]
    fn shares_are_never_rounded_to_certainty() {
        assert_eq!([0.0, 0.000_01, 0.5, 0.999_99, 1.0].map(percent), ["0%", "<0.1%", "50.0%", ">99.9%", "100%"]);
    }
}
