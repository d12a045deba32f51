//! `defrost demo`: the whole job on two drawn tasks, by the very commands that a user would type.

use super::device::DeviceArgs;
use super::output::{print, tell};
use crate::error::{Error, Result};
use crate::experiment::draw::{CELLS, FABRICS};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Show everything on drawn images: no data, no weights, no network needed
///
/// Draws two small tasks, pretrains a small DenseNet121 on the first, fine-tunes it frozen and unfrozen on the second, evaluates it
/// and explains one prediction. Takes a minute or two.
#[derive(clap::Args)]
pub struct Args {
    /// The folder to write; one that an earlier demo wrote is replaced
    #[arg(long, value_name = "DIR", default_value = "demo")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Marks a folder as a demo's, which may be replaced.
const MARK: &str = "DEMO.txt";
/// Images of each class: enough to learn from, few enough to be quick.
const IMAGES: [usize; 2] = [60, 40];

pub fn run(args: &Args) -> Result<()> {
    let began = Instant::now();
    clear(&args.out)?;
    let at = |name: &str| args.out.join(name).display().to_string();
    let (fabrics, cells, pretrained, compared) = (at("fabrics"), at("cells"), at("pretrained"), at("compare"));
    let (best, split) = (at("compare/densenet121-unfrozen/best.safetensors"), at("compare/densenet121-unfrozen/split.csv"));

    say("Two tasks of four classes each are drawn: textures to learn from first, shapes to transfer to.");
    FABRICS.write(Path::new(&fabrics), IMAGES[0], 1)?;
    CELLS.write(Path::new(&cells), IMAGES[1], 2)?;
    say("A DenseNet121 learns the textures from random weights. This stands for ImageNet.");
    let small = "--input-size 64 --momentum 0.9 --bn-momentum 0.9";
    args.defrost(&format!("train {fabrics} --backbone densenet121 --weights random --epochs 12 --lr 0.05 {small} --out {pretrained}"))?;
    say("Its backbone goes on to the shapes: once frozen, so that only the last layer learns, and once not.");
    let from = format!("--backbones densenet121 --weights {pretrained}/best.safetensors --epochs 16 --lr 0.02 {small}");
    args.defrost(&format!("compare {cells} {from} --out {compared}"))?;
    say("How good is the unfrozen one on images that it did not learn from?");
    args.defrost(&format!("evaluate {best} {cells} --subset val --split {split}"))?;
    say("And where does it look?");
    let image = validation_image(Path::new(&split), Path::new(&cells))?;
    args.defrost(&format!("predict {best} {} --gradcam {}", image.display(), at("gradcam")))?;

    let results = std::fs::read_to_string(args.out.join("compare/results.csv")).map_err(|e| Error::io(&args.out, &e))?;
    crate::weights::replace_file(&args.out.join("results.csv"), |file| file.write_all(results.as_bytes()))?;
    say(&format!("Done in {:.0} s.", began.elapsed().as_secs_f64()));
    print(&format!("{}\n", super::compare::table(&results)))?;
    for (what, file) in [
        ("frozen against unfrozen", "compare/compare.html"),
        ("the unfrozen run", "compare/densenet121-unfrozen/report.html"),
        ("where it looked", "gradcam"),
        ("the numbers", "results.csv"),
    ] {
        print(&format!("{what:24} {}\n", at(file)))?;
    }
    print("\nYour own folder of class folders is next:\n  defrost train FOLDER --backbone densenet121 --out runs/first\n")
}

impl Args {
    /// Prints a command and carries it out in this process. Paths have no spaces but those of `--out`, so words are split by hand.
    fn defrost(&self, command: &str) -> Result<()> {
        let out = self.out.display().to_string();
        let mut words: Vec<String> = command.replace(&out, "\0").split(' ').map(|word| word.replace('\0', &out)).collect();
        let quote = |w: &String| if w.contains(' ') { format!("'{w}'") } else { w.clone() };
        say(&format!("$ defrost {}", words.iter().map(quote).collect::<Vec<_>>().join(" ")));
        words.insert(0, "defrost".into());
        words.extend(self.device.words());
        super::execute(super::Cli::try_parse_from(&words).map_err(|e| Error::internal(e.to_string()))?)
    }
}

fn say(text: &str) {
    tell(&format!("\n{text}"));
}

/// Makes room: removes what an earlier demo wrote, and nothing else.
fn clear(out: &Path) -> Result<()> {
    let io = |e: std::io::Error| Error::io(out, &e);
    let held = out.exists() && std::fs::read_dir(out).map_err(io)?.next().is_some();
    if held && !out.join(MARK).exists() {
        return Err(Error::input("holds something that no demo wrote").at(out.display()).advise("name another folder with --out"));
    }
    if held {
        std::fs::remove_dir_all(out).map_err(io)?;
    }
    std::fs::create_dir_all(out).map_err(io)?;
    std::fs::write(out.join(MARK), "Written by `defrost demo`, which replaces this folder when it runs again.\n").map_err(io)
}

/// The first validation image of the last class.
fn validation_image(split: &Path, data: &Path) -> Result<PathBuf> {
    let rows = crate::data::split_file::read(split)?;
    let row = rows.iter().rev().find(|row| row.subset == "val").ok_or_else(|| Error::internal("a split without validation"))?;
    Ok(data.join(&row.path))
}
