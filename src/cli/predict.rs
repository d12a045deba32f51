//! `defrost predict`: the classes of images, one line or record each, in the order of the arguments.

use super::device::on_device;
use super::gradcam::{Answer, Overlays, Source, Which, Written, check_layer};
use super::model_args::{Clipped, ModelArgs, Ready, counter};
use super::output;
use crate::data::csv;
use crate::data::listing::find_images;
use crate::data::stream::{Facts, Portion, Stream};
use crate::error::{Error, Result};
use crate::metrics::argmax;
use crate::ops::Backend;
use crate::report::columns;
use crate::train::{GradCam, Opened};
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
                        defrost predict best.safetensors images/ --csv > predictions.csv\n  \
                        defrost predict best.safetensors images/ --gradcam heat/ --gradcam-class all")]
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
    /// Write a heat map over each image to DIR, as IMAGE.CLASS.png: which places speak for the class
    #[arg(long, value_name = "DIR", help_heading = "Grad-CAM")]
    gradcam: Option<PathBuf>,
    /// The class to look for: predicted (each image's own), all (one heat map each), or a name
    #[arg(long, value_name = "CLASS", default_value = "predicted", requires = "gradcam", help_heading = "Grad-CAM")]
    gradcam_class: String,
    /// The layer to look at, by the name that `summary` prints [default: the last feature maps with 4 x 4 places]
    #[arg(long, value_name = "LAYER", requires = "gradcam", help_heading = "Grad-CAM")]
    gradcam_layer: Option<String>,
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
    let classes = file.class_names();
    let which = Which::read(&args.gradcam_class, &classes).map_err(|e| e.at("--gradcam-class"))?;
    check_layer(&spec, args.gradcam_layer.as_deref(), "--gradcam-layer")?;
    let (names, sources): (Vec<String>, Vec<Result<Source>>) = args.paths.iter().flat_map(|path| expand(path)).unzip();
    let batch = args.model.batch(sources.len());
    let printer = Printer::new(form, names, classes.clone());
    let files = sources.iter().map(|s| s.as_ref().map(|s| s.file.clone()).map_err(Error::clone)).collect();
    on_device!(device, d => {
        let model = match &args.gradcam {
            None => Model::Plain(Box::new(Opened::new(&file, &spec, d, batch)?)),
            Some(folder) => {
                let cam = GradCam::new(&file, &spec, args.gradcam_layer.as_deref(), d, batch)?;
                let known: Vec<Source> = sources.iter().filter_map(|s| s.as_ref().ok()).cloned().collect();
                Model::Explaining(Box::new(Overlays::new(cam, which, folder, classes, images.exif, &known)?))
            }
        };
        predict(model, Stream::new(files, images, batch)?, &sources, printer)
    })
}

/// The images at a path, each with its name; a path without any is one failure.
fn expand(path: &Path) -> Vec<(String, Result<Source>)> {
    match find_images(path) {
        Ok(images) => images.into_iter().map(|image| (image.display().to_string(), Ok(Source::below(path, image)))).collect(),
        Err(error) => vec![(path.display().to_string(), Err(error))],
    }
}

/// A model that answers, or one that also draws why.
enum Model<D: Backend> {
    Plain(Box<Opened<D>>),
    Explaining(Box<Overlays<D>>),
}

impl<D: Backend> Model<D> {
    /// One answer for each image of `pixels`.
    fn answer(&mut self, pixels: &[f32], sources: &[&Source], classes: usize) -> Result<Vec<Answer>> {
        match self {
            Model::Plain(model) => {
                let probabilities = model.outputs(pixels)?.probabilities;
                Ok(probabilities
                    .chunks_exact(classes)
                    .map(|row| Answer { probabilities: row.to_vec(), overlays: Ok(Vec::new()) })
                    .collect())
            }
            Model::Explaining(overlays) => overlays.explain(pixels, sources),
        }
    }
}

fn predict<D: Backend>(mut model: Model<D>, stream: Stream, sources: &[Result<Source>], mut printer: Printer) -> Result<()> {
    // Lines on a terminal show progress themselves.
    let bar = counter(printer.names.len(), !std::io::stdout().is_terminal());
    output::print(&printer.header())?;
    for Portion { pixels, files } in stream {
        let read = files.iter().zip(&sources[printer.done..]).filter(|(file, _)| file.is_ok());
        let read: Vec<&Source> = read.filter_map(|(_, source)| source.as_ref().ok()).collect();
        let mut answers = model.answer(&pixels, &read, printer.classes.len())?.into_iter();
        let mut next = |file: Result<Facts>| match file.map(|facts| (facts, answers.next())) {
            Ok((facts, Some(Answer { probabilities, overlays: Ok(written) }))) => printer.row(&probabilities, &facts, &written),
            Ok((_, Some(Answer { overlays: Err(error), .. }))) | Err(error) => printer.failure(&error),
            Ok((_, None)) => printer.failure(&Error::internal("the model gave no answer for it")),
        };
        let count = files.len() as u64;
        let text: String = bar.suspend(|| files.into_iter().map(&mut next).collect());
        output::print(&text)?;
        bar.inc(count);
    }
    bar.finish_and_clear();
    output::print(printer.footer())?;
    printer.clipped.warn();
    if let Model::Explaining(overlays) = &model {
        overlays.report(printer.overlays);
    }
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
    /// Heat maps that were written.
    overlays: usize,
    clipped: Clipped,
    /// The longest name of an image and of a class.
    widths: [usize; 2],
}

impl Printer {
    fn new(form: Form, names: Vec<String>, classes: Vec<String>) -> Self {
        let widths = [&names, &classes].map(|texts| texts.iter().map(|t| columns(t)).max().unwrap_or(0));
        Printer { form, names, classes, done: 0, failed: 0, overlays: 0, clipped: Clipped::default(), widths }
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
    fn row(&mut self, row: &[f64], facts: &Facts, written: &[Written]) -> String {
        if row.iter().any(|p| !p.is_finite()) {
            return self.failure(&Error::input("the model's numbers for it are not finite"));
        }
        let (path, best) = (&self.names[self.done], argmax(row));
        self.clipped.note(path, facts);
        let (class, probability) = (&self.classes[best], row[best]);
        let text = match self.form {
            Form::Text => {
                let [path, class] = [(path, 0), (class, 1)].map(|(text, i)| text.clone() + &" ".repeat(self.widths[i] - columns(text)));
                format!("{path}  {class}  {probability:.4}\n")
            }
            Form::Json => self.item(&Record { path, best, classes: &self.classes, row, written }),
            Form::Csv => {
                let numbers = [probability].iter().chain(row).map(f64::to_string).collect::<Vec<_>>();
                csv::line([path, class].into_iter().chain(&numbers))
            }
        };
        self.done += 1;
        self.overlays += written.len();
        text
    }

    /// The record of an image that failed; text and CSV leave it to stderr.
    fn failure(&mut self, error: &Error) -> String {
        let path = &self.names[self.done];
        let text = match self.form {
            Form::Json => self.item(&Failure { path, error: error.what() }),
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

/// The record of an image that failed.
#[derive(Serialize)]
struct Failure<'a> {
    path: &'a str,
    error: &'a str,
}

/// `{path, class, probability, probabilities}`, classes in the model's order, and the paths of heat maps as `gradcam`.
struct Record<'a> {
    path: &'a str,
    best: usize,
    classes: &'a [String],
    row: &'a [f64],
    written: &'a [Written],
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("path", self.path)?;
        map.serialize_entry("class", &self.classes[self.best])?;
        map.serialize_entry("probability", &self.row[self.best])?;
        map.serialize_entry("probabilities", &Pairs(self.classes, self.row))?;
        if !self.written.is_empty() {
            let paths: Vec<String> = self.written.iter().map(|w| w.path.display().to_string()).collect();
            map.serialize_entry("gradcam", &paths)?;
        }
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
