//! `defrost predict`: the classes of images, one line or record each, in the order of the arguments.

use super::device::on_device;
use super::model_args::{Clipped, ModelArgs, Ready, counter};
use super::output;
use crate::data::csv;
use crate::data::listing::find_images;
use crate::data::stream::{Facts, Portion, Stream};
use crate::error::{Error, Result};
use crate::metrics::argmax;
use crate::ops::Backend;
use crate::train::Opened;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Predict the classes of images
///
/// Images are read exactly as in training: size, resize, preprocessing and EXIF orientation come from the model. A file that
/// cannot be read is named, the others are done, and the exit code is 1.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  defrost predict runs/polyps/best.safetensors scan.png\n  \
                        defrost predict best.safetensors images/ --csv > predictions.csv")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Images, or folders to be searched for images
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Print [{path, class, probability, probabilities: {CLASS: NUMBER, ...}}]; a file that fails is {path, error}
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print path,class,probability and one column per class; a file that fails has no row
    #[arg(long)]
    csv: bool,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Text,
    Json,
    Csv,
}

/// Predicts; files that fail make the exit code 1.
pub fn run(args: Args) -> Result<()> {
    let Ready { file, spec, images } = args.model.read()?;
    let device = args.model.device.open()?;
    let form = if args.json { Form::Json } else { [Form::Text, Form::Csv][usize::from(args.csv)] };
    let (names, files): (Vec<String>, Vec<Result<PathBuf>>) = args.paths.iter().flat_map(|path| expand(path)).unzip();
    let batch = args.model.batch(files.len());
    let printer = Printer::new(form, names, file.class_names());
    on_device!(device, d => {
        let opened = Opened::new(&file, &spec, d, batch)?;
        predict(opened, Stream::new(files, images, batch)?, printer)
    })
}

/// The images at a path, each with its name; a path without any is one failure.
fn expand(path: &Path) -> Vec<(String, Result<PathBuf>)> {
    match find_images(path) {
        Ok(images) => images.into_iter().map(|image| (image.display().to_string(), Ok(image))).collect(),
        Err(error) => vec![(path.display().to_string(), Err(error))],
    }
}

fn predict<D: Backend>(mut model: Opened<D>, stream: Stream, mut printer: Printer) -> Result<()> {
    // Lines on a terminal show progress themselves.
    let bar = counter(printer.names.len(), !std::io::stdout().is_terminal());
    output::print(&printer.header())?;
    for Portion { pixels, files } in stream {
        let probabilities = model.outputs(&pixels)?.probabilities;
        let mut rows = probabilities.chunks_exact(printer.classes.len());
        let mut next = |file: Result<Facts>| match file {
            Ok(facts) => printer.row(rows.next().unwrap_or_default(), &facts),
            Err(error) => printer.failure(&error),
        };
        let count = files.len() as u64;
        let text: String = bar.suspend(|| files.into_iter().map(&mut next).collect());
        output::print(&text)?;
        bar.inc(count);
    }
    bar.finish_and_clear();
    output::print(printer.footer())?;
    printer.clipped.warn();
    match printer.failed {
        0 => Ok(()),
        failed => Err(Error::partial(format!("{failed} of {} images could not be predicted", printer.names.len()))),
    }
}

/// Results as text, image by image, in the order of the names.
struct Printer {
    form: Form,
    names: Vec<String>,
    classes: Vec<String>,
    /// Images that were printed or failed.
    done: usize,
    failed: usize,
    clipped: Clipped,
    /// The longest name of an image and of a class.
    widths: [usize; 2],
}

impl Printer {
    fn new(form: Form, names: Vec<String>, classes: Vec<String>) -> Self {
        let widths = [&names, &classes].map(|texts| texts.iter().map(|t| t.chars().count()).max().unwrap_or(0));
        Printer { form, names, classes, done: 0, failed: 0, clipped: Clipped::default(), widths }
    }

    fn header(&self) -> String {
        match self.form {
            Form::Text => String::new(),
            Form::Json => "[".into(),
            Form::Csv => csv::line(["path", "class", "probability"].into_iter().chain(self.classes.iter().map(String::as_str))),
        }
    }

    fn footer(&self) -> &'static str {
        if self.form == Form::Json { "\n]\n" } else { "" }
    }

    /// The line of an image with these probabilities of the classes.
    fn row(&mut self, row: &[f64], facts: &Facts) -> String {
        if row.iter().any(|p| !p.is_finite()) {
            return self.failure(&Error::input("the model's numbers for it are not finite"));
        }
        let (path, best) = (&self.names[self.done], argmax(row));
        self.clipped.note(path, facts);
        let (class, probability) = (&self.classes[best], row[best]);
        let text = match self.form {
            Form::Text => format!("{path:0$}  {class:1$}  {probability:.4}\n", self.widths[0], self.widths[1]),
            Form::Json => self.item(&Record { path, best, classes: &self.classes, row }),
            Form::Csv => {
                let numbers = [probability].iter().chain(row).map(f64::to_string).collect::<Vec<_>>();
                csv::line([path, class].into_iter().chain(&numbers))
            }
        };
        self.done += 1;
        text
    }

    /// The record of an image that failed; text and CSV leave it to stderr.
    fn failure(&mut self, error: &Error) -> String {
        let path = &self.names[self.done];
        let text = match self.form {
            Form::Json => self.item(&serde_json::json!({"path": path, "error": error.what()})),
            _ => {
                output::warn(&format!("{path}: {}", error.what()));
                String::new()
            }
        };
        self.done += 1;
        self.failed += 1;
        text
    }

    /// An element of the JSON array, on a line of its own.
    fn item(&self, record: &impl Serialize) -> String {
        let comma = if self.done == 0 { "" } else { "," };
        format!("{comma}\n  {}", serde_json::to_string(record).expect("texts and finite numbers are JSON"))
    }
}

/// `{path, class, probability, probabilities}`, classes in the model's order.
struct Record<'a> {
    path: &'a str,
    best: usize,
    classes: &'a [String],
    row: &'a [f64],
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("path", self.path)?;
        map.serialize_entry("class", &self.classes[self.best])?;
        map.serialize_entry("probability", &self.row[self.best])?;
        map.serialize_entry("probabilities", &Pairs(self.classes, self.row))?;
        map.end()
    }
}

/// Names with numbers, in this order.
struct Pairs<'a>(&'a [String], &'a [f64]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1))
    }
}
