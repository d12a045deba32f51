//! `defrost import`: weights and models of other programs become model files.

use super::output::{print, warn};
use crate::error::{Error, Result};
use crate::models::import::{Imported, Options, import};
use crate::models::{Backbone, Hidden};
use crate::report::grouped;
use crate::weights::Preprocess;
use std::path::{Path, PathBuf};

/// Make a model file of a file of Keras, torchvision or timm
///
/// Reads weights and whole models of Keras 1 to 3 (legacy HDF5, .weights.h5, .keras), and safetensors of torchvision and timm;
/// told apart by content. The head is kept. The result is what train --weights, evaluate, predict and summary take.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  defrost import my_model.h5 --classes classes.txt --out my_model.safetensors
  defrost import article.h5 --preprocess none --out article.safetensors
  defrost import vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 \\
      --out vgg16.safetensors")]
pub struct Args {
    /// The file to read
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The model file to write
    #[arg(long, value_name = "MODEL")]
    out: PathBuf,
    /// Names of the classes, one a line, in the order of the head's outputs
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// vgg16, xception, inceptionv3 or densenet121, instead of what the layers look like
    #[arg(long, value_name = "B")]
    backbone: Option<Backbone>,
    /// What the model was trained on: backbone, none (raw pixels), rescale, caffe, tf or torch [default: what the model says,
    /// else backbone]
    #[arg(long, value_name = "P")]
    preprocess: Option<Preprocess>,
    /// Side of the images in pixels [default: what the model says, else the backbone's own]
    #[arg(long, value_name = "N", value_parser = super::positive)]
    input_size: Option<usize>,
    /// A hidden layer of the head, as 1024:sigmoid, where the file has weights alone; may be given more than once
    #[arg(long, value_name = "UNITS:ACT")]
    hidden: Vec<Hidden>,
}

/// Imports the file and says what it was.
///
/// # Errors
/// See [`import`]; also a file of classes that cannot be read.
pub fn run(args: Args) -> Result<()> {
    let classes = args.classes.as_deref().map(class_names).transpose()?.unwrap_or_default();
    let Args { backbone, preprocess, input_size, hidden, .. } = args;
    let imported = import(&args.file, &args.out, &Options { classes, backbone, preprocess, input_size, hidden, ..Options::default() })?;
    imported.notes.iter().for_each(|note| warn(note));
    print(&format!("{}\n{}\n", sentence(&imported), args.out.display()))
}

/// Class names, one a line; empty lines are passed over.
fn class_names(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    let twice = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name));
    match twice {
        Some((_, name)) => Err(Error::input(format!("names class {name:?} twice")).at(path.display())),
        None if names.is_empty() => Err(Error::input("names no class").at(path.display())),
        None => Ok(names),
    }
}

/// What was imported: `whole model in legacy HDF5: vgg16 with a head for 4 classes, ...`.
fn sentence(imported: &Imported) -> String {
    let m = &imported.metadata;
    let head = match (imported.classes, m.classes.is_empty()) {
        (None, _) => "without head".to_string(),
        (Some(n), true) => format!("with a head for {n} classes without names"),
        (Some(n), false) => format!("with a head for {n} classes ({})", m.classes.join(", ")),
    };
    let hidden = if m.hidden.is_empty() { String::new() } else { format!(", hidden layers {}", m.hidden.join(" ")) };
    let (layout, backbone, parameters) = (&imported.layout, &m.backbone, grouped(imported.parameters));
    format!("{layout}: {backbone} {head}{hidden}, {parameters} numbers, {} px, preprocess {}", m.input_size, m.preprocess)
}
