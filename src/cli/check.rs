//! `defrost check`: what is wrong with a collection of images, without training on it.

use super::augment_flags::AugmentFlags;
use super::model_args::counter;
use super::{check_text, output};
use crate::data::augment::{Augmentation, sheet, spread};
use crate::data::check::Report;
use crate::data::dataset::{Dataset, Options};
use crate::data::groups::Grouping;
use crate::data::listing::Listing;
use crate::data::load::look;
use crate::data::rule::Rule;
use crate::data::source::Source;
use crate::data::split::Split;
use crate::error::{Error, Result};
use crate::train::settings::SplitName;
use crate::weights::replace_file;
use std::path::PathBuf;

/// Check a folder of class folders for files and labels that spoil a result
///
/// Reads every file on all cores: damaged, empty and oversized files, the same picture under two classes or on both sides
/// of the split, near duplicates, tiny images, class counts. Nothing is changed. The exit code is 1 if files cannot be read.
#[derive(clap::Args)]
#[command(allow_negative_numbers = true)]
#[command(after_help = "Examples:\n  defrost check photos\n  defrost check photos --split group --group-regex 'patient_(\\d+)' --json\n  \
                        defrost check photos --augment-preview seen.png --rotate 20")]
pub struct Args {
    /// Folder of class folders
    #[arg(value_name = "DATA")]
    data: PathBuf,
    #[command(flatten)]
    side: Side,
    /// Apply the EXIF orientation
    #[arg(long)]
    exif: bool,
    /// Print {images, classes, formats, sizes, bad, misnamed, duplicates, near_duplicates, tiny, blank, turned, clipped, groups, groups_across_split, warnings}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    preview: Preview,
}

/// The split that is looked at.
#[derive(clap::Args)]
#[command(next_help_heading = "Split")]
struct Side {
    /// How validation images are chosen
    #[arg(long, value_name = "NAME", default_value = "keras")]
    split: SplitName,
    /// Seed of the split
    #[arg(long, value_name = "N", default_value_t = 42)]
    split_seed: u32,
    /// Share of images that validate; 0 for none
    #[arg(long, value_name = "X", default_value_t = 0.2)]
    val_split: f64,
    /// A folder of the same class folders to validate on
    #[arg(long, value_name = "DIR")]
    val_dir: Option<PathBuf>,
    /// The class names, one a line, in the order of their labels
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// The group of an image by its path, as 'patient_(\d+)'
    #[arg(long, value_name = "REGEX", conflicts_with = "group_csv")]
    group_regex: Option<String>,
    /// The group of an image by a table with the columns path,group
    #[arg(long, value_name = "FILE")]
    group_csv: Option<PathBuf>,
}

/// A picture of augmented images.
#[derive(clap::Args)]
#[command(next_help_heading = "Augmentation")]
struct Preview {
    /// Write a picture of some images as augmentation changes them
    #[arg(long, value_name = "PNG")]
    augment_preview: Option<PathBuf>,
    /// Side of the images in it
    #[arg(long, value_name = "N", default_value_t = 224, value_parser = super::positive)]
    input_size: usize,
    /// Seed of its changes
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u32,
    #[command(flatten)]
    flags: AugmentFlags,
}

pub fn run(args: Args) -> Result<()> {
    let Side { split, split_seed: seed, val_split: share, .. } = args.side;
    let grouping = args.side.group_regex.map(Grouping::Pattern).or(args.side.group_csv.map(Grouping::Csv));
    let rule = Rule { way: split.way(), grouping, share, seed };
    let source = Source { data: args.data, val_dir: args.side.val_dir, classes: args.side.classes };
    rule.check(source.val_dir.is_some())?;
    let listing = source.listing()?;
    let bar = counter(listing.files.len(), true);
    let catalog = look(&listing, args.exif, &|_, _, _| bar.inc(1));
    bar.finish_and_clear();
    let readable = listing.without(&catalog.bad);
    let groups = rule.groups(&readable)?;
    let mut warnings = listing.warnings.clone();
    // A collection that cannot be split can be looked at all the same.
    let (split, _) = rule.split(&readable).unwrap_or_else(|e| {
        warnings.push(format!("no split: {}", e.what()));
        (Split::default(), None)
    });
    let report = Report::new(&catalog, &split, groups.as_deref(), warnings);
    if let Some(path) = &args.preview.augment_preview {
        let png = args.preview.draw(&readable, &split, args.exif)?;
        replace_file(path, |file| file.write_all(&png))?;
    }
    if args.json {
        output::json(&report)?
    } else {
        output::print(&check_text::text(&report))?
    }
    match report.bad.len() {
        0 => Ok(()),
        bad => Err(Error::partial(format!("{bad} of {} images cannot be read", listing.files.len())).at(source.data.display())),
    }
}

impl Preview {
    /// A PNG of some training images.
    fn draw(&self, listing: &Listing, split: &Split, exif: bool) -> Result<Vec<u8>> {
        let augment = self.flags.resolved();
        augment.check()?;
        let all: Vec<usize> = (0..listing.files.len()).collect();
        let some = spread(if split.train.is_empty() { &all } else { &split.train });
        let data = Dataset::load(listing, Some(&some), &Options { exif, ..Options::keras(self.input_size) }, &|_, _| ())?;
        sheet(&data, &(0..data.len()).collect::<Vec<_>>(), &Augmentation { augment, seed: self.seed, epoch: 1 })
    }
}
