//! `defrost evaluate`: how good a model is on a folder of class folders.

use super::device::on_device;
use super::evaluate_folder::Results;
use super::evaluate_text::text;
use super::model_args::{Clipped, ModelArgs, Ready, counter};
use super::output;
use crate::data::groups::Grouping;
use crate::data::listing::{Entry, Listing};
use crate::data::split_file::{self, Row};
use crate::data::stream::{Portion, Stream};
use crate::error::{Error, Result};
use crate::metrics::{Metrics, Predictions};
use crate::ops::Backend;
use crate::train::{Opened, Settings};
use crate::weights::{ModelFile, replace_file};
use clap::ValueEnum;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Measure a model on a folder of class folders
///
/// Prints loss, accuracy, balanced accuracy, Matthews correlation and AUROC, the measures of each class against the rest,
/// and the confusion matrix. DATA must have the model's classes. What is undefined (recall of a class without images) is
/// shown as `-`, in JSON null, and left out of means.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  defrost evaluate runs/polyps/best.safetensors data/polyps-test\n  \
                        defrost evaluate runs/polyps/best.safetensors data/polyps --subset val --json")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Folder of class folders
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// Which of the images: all, or one side of a run's split
    #[arg(long, value_enum, default_value_t = Subset::All)]
    subset: Subset,
    /// The split.csv of a run [default: the one beside the model]
    #[arg(long, value_name = "FILE")]
    split: Option<PathBuf>,
    /// Draw whole groups for the intervals: the group of an image is what this pattern captures in CLASS/FILE
    #[arg(long, value_name = "PATTERN", conflicts_with = "group_csv")]
    group_regex: Option<String>,
    /// Draw whole groups for the intervals, as a file with the columns path,group names them
    #[arg(long, value_name = "FILE")]
    group_csv: Option<PathBuf>,
    /// Print {loss, accuracy, balanced_accuracy, mcc, auroc_macro, brier, ece, images, classes, confusion, intervals, worst, ...};
    /// confusion[true][predicted]
    #[arg(long)]
    json: bool,
    /// Write path,label,predicted and the probability of each class for every image, in the order of DATA; `-`: to standard
    /// output, in the place of the text
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write report.html, metrics.json, predictions.csv, confusion.svg and reliability.svg to a folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Subset {
    All,
    Val,
    Train,
}

/// Evaluates; images that cannot be read make it an error, since a measure of the rest would mislead.
pub fn run(args: Args) -> Result<()> {
    let csv_to_stdout = args.csv.as_deref() == Some(Path::new("-"));
    if csv_to_stdout && args.json {
        return Err(Error::input("standard output takes either the table or the JSON record")
            .at("--csv -")
            .advise("name a file with --csv"));
    }
    let Ready { file, spec, images } = args.model.read()?;
    let mut listing = classes_agree(&args.data, &file)?;
    listing.warnings.iter().for_each(|w| output::warn(w));
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e).at("--out"))?;
    }
    if let Some(folder) = args.csv.as_deref().and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        return Err(Error::input("there is no such folder").at(folder.display()).at("--csv"));
    }
    let split = split_rows(&args)?;
    if args.subset != Subset::All {
        add_validation_folder(&mut listing, split.as_deref().unwrap_or_default());
    }
    let chosen = choose(&listing, args.subset, split.as_deref().unwrap_or_default())?;
    let files = chosen.iter().map(|&i| Ok(listing.full_path(i))).collect();
    let batch = args.model.batch(chosen.len());
    let mut found = Predictions {
        classes: listing.classes.clone(),
        paths: chosen.iter().map(|&i| listing.files[i].name()).collect(),
        labels: chosen.iter().map(|&i| listing.files[i].class).collect(),
        groups: args.groups(&listing, &chosen)?,
        ..Predictions::default()
    };
    let sha256 = on_device!(args.model.device.open()?, d => {
        let opened = Opened::new(&file, &spec, d, batch)?;
        evaluate(opened, Stream::new(files, images, batch)?, &mut found, &args.data)
    })?;
    let warnings = split_warnings(&found.paths, &sha256, args.subset, &split.unwrap_or_default());
    warnings.iter().for_each(|w| output::warn(w));
    let warnings = [&listing.warnings[..], &warnings].concat();
    let metrics = Metrics::new(&found)?;
    if let Some(path) = args.csv.as_ref().filter(|_| !csv_to_stdout) {
        replace_file(path, |file| file.write_all(found.to_csv().as_bytes()))?;
    }
    if let Some(folder) = &args.out {
        let (model, data) = (&args.model.model, &args.data);
        let results = Results { model, data, file: &file, spec: &spec, images, found: &found, metrics: &metrics, warnings };
        on_device!(args.model.device.open()?, d => results.write(d, folder))?;
    }
    match (args.json, csv_to_stdout) {
        (true, _) => output::json(&metrics),
        (_, true) => output::print(&found.to_csv()),
        _ => output::print(&text(&metrics)),
    }
}

impl Args {
    /// The group of each chosen image, where a flag says how to know it.
    fn groups(&self, listing: &Listing, chosen: &[usize]) -> Result<Option<Vec<String>>> {
        let (grouping, flag) = match (&self.group_regex, &self.group_csv) {
            (Some(pattern), _) => (Grouping::Pattern(pattern.clone()), "--group-regex"),
            (None, Some(file)) => (Grouping::Csv(file.clone()), "--group-csv"),
            (None, None) => match self.grouping_of_run() {
                Some(grouping) => (grouping, ""),
                None => return Ok(None),
            },
        };
        let names: Vec<String> = chosen.iter().map(|&i| listing.files[i].name()).collect();
        let classes = chosen.iter().map(|&i| listing.classes[listing.files[i].class].as_str());
        match grouping.of(names.iter().map(String::as_str).zip(classes)) {
            Err(error) if flag.is_empty() => {
                output::warn(&format!("the run's groups are not known here, so intervals draw images: {error}"));
                Ok(None)
            }
            groups => groups.map_err(|e| e.at(flag)).map(Some),
        }
    }

    /// How the run beside the model knew groups, for a side of its own split.
    fn grouping_of_run(&self) -> Option<Grouping> {
        let run = self.model.model.parent().filter(|_| self.subset != Subset::All && self.split.is_none())?;
        Settings::of_run(run).ok()?.rule().grouping
    }
}

/// The images of DATA, labelled in the model's order of classes.
fn classes_agree(data: &Path, file: &ModelFile) -> Result<Listing> {
    let (known, count) = (&file.metadata().classes, file.class_count());
    let listing = Listing::read(data, None)?;
    if known.is_empty() {
        let Some(count) = count else {
            let what = "holds a backbone without head, which tells no classes apart";
            return Err(Error::input(what)
                .at(file.tensors().path().display())
                .advise("train one with `defrost train DATA --weights MODEL`"));
        };
        if count != listing.classes.len() {
            let what = format!("has {} classes ({}), the model {count}", listing.classes.len(), listing.classes.join(", "));
            return Err(Error::input(what).at(data.display()));
        }
        output::warn(&format!("the model does not name its classes; taken to be, in this order, {}", listing.classes.join(", ")));
        return Ok(listing);
    }
    let only = |ours: &[String], theirs: &[String]| -> String {
        let names: Vec<&str> = ours.iter().filter(|c| !theirs.contains(c)).map(String::as_str).collect();
        if names.is_empty() { "none".into() } else { names.join(", ") }
    };
    let (ours, theirs) = (only(&listing.classes, known), only(known, &listing.classes));
    if (&*ours, &*theirs) != ("none", "none") {
        let what = format!("its classes are not the model's; only here: {ours}; only in the model: {theirs}");
        return Err(Error::input(what).at(data.display()).advise("every class of the model needs a folder of its name, and no others"));
    }
    Listing::read(data, Some(known))
}

/// The rows of `--split`, or of the `split.csv` beside the model, if there is one.
fn split_rows(args: &Args) -> Result<Option<Vec<Row>>> {
    let beside = args.model.model.with_file_name("split.csv");
    match &args.split {
        Some(path) => split_file::read(path).map(Some),
        None if beside.is_file() => split_file::read(&beside).map(Some),
        None if args.subset == Subset::All => Ok(None),
        None => Err(Error::input(format!("needs a split, and there is no {}", beside.display()))
            .at("--subset")
            .advise("name the split.csv of a run with --split")),
    }
}

/// Adds the images that a split names beside DATA: those of the run's `--val-dir`.
fn add_validation_folder(listing: &mut Listing, split: &[Row]) {
    let beside = |row: &&Row| row.path.starts_with("../") || Path::new(&row.path).is_absolute();
    let entry = |row: &Row| Some(Entry { path: PathBuf::from(&row.path), class: listing.classes.iter().position(|c| *c == row.class)? });
    let found: Vec<Entry> = split.iter().filter(beside).filter_map(entry).collect();
    listing.files.extend(found);
}

/// Positions of the images to be evaluated.
fn choose(listing: &Listing, subset: Subset, split: &[Row]) -> Result<Vec<usize>> {
    let name = match subset {
        Subset::All => return Ok((0..listing.files.len()).collect()),
        Subset::Val => "val",
        Subset::Train => "train",
    };
    let positions: HashMap<String, usize> = listing.files.iter().enumerate().map(|(i, f)| (f.name(), i)).collect();
    let wanted = || split.iter().filter(|row| row.subset == name);
    let missing: Vec<&str> = wanted().filter(|row| !positions.contains_key(&row.path)).map(|row| row.path.as_str()).collect();
    if let Some(first) = missing.first() {
        let what = format!("lacks {} of the {} images of the split's subset {name} (first: {first})", missing.len(), wanted().count());
        return Err(Error::input(what).at(listing.root.display()).advise("give the DATA that the run was trained on"));
    }
    let mut chosen: Vec<usize> = wanted().map(|row| positions[&row.path]).collect();
    chosen.sort_unstable();
    chosen.dedup();
    if chosen.is_empty() {
        return Err(Error::input(format!("the split has no images of the subset {name}")).at("--subset"));
    }
    Ok(chosen)
}

/// Runs all images and returns the hashes of their bytes. From the first one that cannot be read on nothing is computed, only the others that are bad are named.
fn evaluate<D: Backend>(mut model: Opened<D>, stream: Stream, found: &mut Predictions, data: &Path) -> Result<Vec<String>> {
    let bar = counter(found.paths.len(), true);
    let (mut bad, mut sha256, mut clipped, mut position) = (Vec::new(), Vec::new(), Clipped::default(), 0);
    for Portion { pixels, files } in stream {
        bar.inc(files.len() as u64);
        for file in files {
            match file {
                Ok(facts) => {
                    clipped.note(&found.paths[position], &facts);
                    sha256.push(facts.sha256);
                }
                Err(error) => bad.push(format!("{}: {}", found.paths[position], error.what())),
            }
            position += 1;
        }
        if bad.is_empty() {
            found.push(&model.outputs(&pixels)?.logits);
        }
    }
    bar.finish_and_clear();
    clipped.warn();
    if !bad.is_empty() {
        return Err(Error::input(format!("{} of {position} images cannot be read\n  {}", bad.len(), bad.join("\n  ")))
            .at(data.display())
            .advise("mend or remove them"));
    }
    match found.losses.iter().chain(&found.probabilities).all(|x| x.is_finite()) {
        true => Ok(sha256),
        false => Err(Error::input("the model's outputs are not finite numbers").advise("the model is damaged, or its training diverged")),
    }
}

/// Tells of images that the model was trained on, and of images that are no longer what they were in the run.
fn split_warnings(paths: &[String], sha256: &[String], subset: Subset, split: &[Row]) -> Vec<String> {
    let mut warnings = Vec::new();
    let trained: HashSet<&str> = split.iter().filter(|row| row.subset == "train").map(|row| row.sha256.as_str()).collect();
    let count = sha256.iter().filter(|hash| trained.contains(hash.as_str())).count();
    if count > 0 && subset != Subset::Train {
        let (total, out) =
            (sha256.len(), if subset == Subset::Val { "`defrost check` names the copies" } else { "--subset val leaves them out" });
        warnings.push(format!("the model was trained on {count} of these {total} images, so the numbers flatter it; {out}"));
    }
    if subset != Subset::All {
        let before: HashMap<&str, &str> = split.iter().map(|row| (row.path.as_str(), row.sha256.as_str())).collect();
        let same = |(path, hash): &(&String, &String)| before.get(path.as_str()).is_none_or(|old| *old == hash.as_str());
        let changed: Vec<_> = paths.iter().zip(sha256).filter(|pair| !same(pair)).collect();
        if let Some((first, _)) = changed.first() {
            warnings.push(format!("{} images have changed since the run (first: {first})", changed.len()));
        }
    }
    warnings
}
