//! `defrost export`: a model in the form of another program.

use super::output;
use crate::error::{Error, Result};
use crate::models::export::{feeding, keras_h5};
use crate::train::opened::spec_of;
use crate::weights::ModelFile;
use clap::ValueEnum;
use std::path::PathBuf;

/// Write a model for Keras
///
/// The file is a whole model in Keras's legacy HDF5 layout: keras.models.load_model opens it, in Keras 2 and 3, and load_weights
/// takes its weights into a network of keras.applications with the same head. Predictions are the same to rounding. What
/// must be fed is printed, and is in the file's attribute `defrost_input`; classes and settings are in `defrost`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  defrost export runs/polyps/best.safetensors --to keras-h5 --out polyps.h5\n  \
                        defrost export m.safetensors --to keras-h5 --with-preprocessing --out raw.h5")]
pub struct Args {
    /// The model file to export
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The form
    #[arg(long, value_name = "FORM")]
    to: Form,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Put the preprocessing into the Keras model, which then takes raw RGB pixels from 0 to 255
    #[arg(long)]
    with_preprocessing: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// Keras's legacy HDF5 file with configuration and weights
    KerasH5,
}

/// Writes the file and says what it wants to be fed with.
///
/// # Errors
/// A file that is no model; an output that would replace the model; what the disk says.
pub fn run(args: Args) -> Result<()> {
    let file = ModelFile::open(&args.model)?;
    if args.out.canonicalize().is_ok_and(|out| args.model.canonicalize().is_ok_and(|model| model == out)) {
        return Err(Error::input("is the model itself, which would be replaced").at("--out"));
    }
    let model = spec_of(&file)?.build()?;
    match args.to {
        Form::KerasH5 => keras_h5(&file, &model, args.with_preprocessing, &args.out)?,
    }
    let (backbone, classes) = (model.spec.backbone, file.class_names());
    let head = match file.class_count() {
        None => "pooled features, without head".into(),
        Some(_) => format!("probabilities of {} classes in the order {}", classes.len(), shortened(&classes)),
    };
    let input = feeding(file.metadata(), &model.spec, args.with_preprocessing);
    output::print(&format!("{}: {backbone}\n  input   {input}\n  output  {head}\n", args.out.display()))
}

/// The first and last of many names.
fn shortened(names: &[String]) -> String {
    match names {
        [a, b, c, .., z] if names.len() > 12 => format!("{a}, {b}, {c}, ..., {z}"),
        _ => names.join(", "),
    }
}
