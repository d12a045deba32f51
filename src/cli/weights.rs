//! `defrost weights`: the official ImageNet weights on this machine.

use super::output::{json, print, warn};
use crate::error::{Error, Kind, Result};
use crate::models::Backbone;
use crate::models::import::official::{Origin, check, fetch};
use crate::report::{Align, Table, bytes, grouped};
use crate::weights::download::{News, Patience};
use crate::weights::{ModelFile, Official, digest, folder, keras_folder, model_path, official};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Fetch and look after the official ImageNet weights
///
/// They are Keras's files without classifier, converted once and kept in the user's cache directory; `--weights imagenet`
/// finds them there. DEFROST_WEIGHTS or --dir name another folder.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  defrost weights fetch vgg16\n  defrost weights fetch all --dir /shared/weights\n  \
                        defrost weights list\n  defrost weights verify all")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Download, check and convert; Keras's own download (~/.keras/models) is used if it is there
    Fetch(Fetch),
    /// What is there and where
    List(Look),
    /// Read everything again: sums, tensors, shapes
    Verify(Look),
    /// What is inside
    Info(Look),
}

#[derive(clap::Args)]
struct Fetch {
    #[command(flatten)]
    which: Which,
    /// Another address of the same file, for example a mirror
    #[arg(long, value_name = "URL", value_parser = address)]
    url: Option<String>,
    /// The MD5 of the file at --url, where it is not the official one
    #[arg(long, value_name = "HEX", requires = "url", value_parser = hexadecimal)]
    md5: Option<String>,
    /// Seconds to wait for a connection, an answer, or the next byte
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    timeout: f64,
    /// Attempts after the first that bring nothing new
    #[arg(long, value_name = "N", default_value_t = 4)]
    retries: u32,
}

#[derive(clap::Args)]
struct Look {
    #[command(flatten)]
    which: Which,
    /// Print [{backbone, state, path, bytes, ...}]
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Which {
    /// vgg16, xception, inceptionv3, densenet121, or all
    #[arg(value_name = "BACKBONE|all", default_value = "all")]
    backbones: Backbones,
    /// The folder of converted weights
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// One backbone, or all four.
#[derive(Clone, Debug)]
struct Backbones(Vec<Backbone>);

impl std::str::FromStr for Backbones {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "all" { Ok(Backbones(Backbone::ALL.to_vec())) } else { text.parse().map(|b| Backbones(vec![b])) }
    }
}

fn hexadecimal(text: &str) -> Result<String, String> {
    let fits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if fits { Ok(text.to_lowercase()) } else { Err("expected 32 hexadecimal digits".into()) }
}

fn address(text: &str) -> Result<String, String> {
    let fits = text.starts_with("https://") || text.starts_with("http://");
    if fits { Ok(text.into()) } else { Err("expected an address that begins with https:// or http://".into()) }
}

fn seconds(text: &str) -> Result<f64, String> {
    let fits = |s: &f64| *s > 0.0 && *s <= 86_400.0;
    text.parse().ok().filter(fits).ok_or_else(|| "expected seconds above 0, at most a day".into())
}

/// Carries the command out.
///
/// # Errors
/// What could not be fetched or is damaged.
pub fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Fetch(args) => fetch_all(&args),
        Action::List(look) => list(&look),
        Action::Verify(look) => verify(&look),
        Action::Info(look) => info(&look),
    }
}

impl Which {
    fn folder(&self) -> Result<PathBuf> {
        self.dir.clone().map_or_else(folder, Ok)
    }
}

/// Fetches one after the other; those that fail do not keep the others from being fetched.
fn fetch_all(args: &Fetch) -> Result<()> {
    let (folder, backbones) = (args.which.folder()?, &args.which.backbones.0);
    if args.url.is_some() && backbones.len() > 1 {
        return Err(Error::input("names one file; which backbone's is it?").at("--url"));
    }
    let patience = Patience { timeout: Duration::from_secs_f64(args.timeout), retries: args.retries };
    let mut failures: Vec<Error> = Vec::new();
    for &backbone in backbones {
        let mut file = official_file(backbone)?;
        file.url = args.url.clone().unwrap_or(file.url);
        if let Some(md5) = &args.md5 {
            // Another file: of its own size.
            (file.md5, file.size) = (md5.clone(), 0);
        }
        match fetch_one(backbone, &file, &folder, patience) {
            Ok(line) => print(&line)?,
            Err(error) => failures.push(error.at(backbone)),
        }
    }
    match failures.len() {
        0 => Ok(()),
        1 if backbones.len() == 1 => Err(failures.remove(0)),
        failed => {
            failures.iter().for_each(|e| warn(&e.to_string()));
            let what = format!("{failed} of {} weights could not be fetched", backbones.len());
            Err(match failures[0].kind() {
                _ if failed < backbones.len() => Error::partial(what),
                Kind::Machine => Error::machine(what),
                _ => Error::input(what),
            })
        }
    }
}

fn fetch_one(backbone: Backbone, file: &Official, folder: &Path, patience: Patience) -> Result<String> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix:12} {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(backbone.name());
    let mut tell = |news: News| match news {
        News::At(done, whole) => {
            bar.set_length(whole.unwrap_or(done));
            bar.set_position(done);
        }
        News::Note(text) => bar.suspend(|| warn(&format!("{backbone}: {text}"))),
    };
    let origin = fetch(backbone, file, folder, patience, &mut tell);
    bar.finish_and_clear();
    let path = model_path(folder, backbone.name());
    Ok(match origin? {
        Origin::Ready => format!("{backbone}: ready at {}\n", path.display()),
        Origin::Local(from) => format!("{backbone}: {} (converted from {})\n", path.display(), from.display()),
        Origin::Downloaded(url) => format!("{backbone}: {} (downloaded from {url}, MD5 {})\n", path.display(), file.md5),
    })
}

fn official_file(backbone: Backbone) -> Result<Official> {
    official().remove(backbone.name()).ok_or_else(|| Error::internal("is not in the manifest").at(backbone))
}

/// What is known of a backbone's weights without reading them.
#[derive(Serialize)]
struct Entry {
    backbone: &'static str,
    /// `ready`, `damaged`, `local` (Keras's own file is there), `part` (a download broke off), `absent`.
    state: &'static str,
    path: PathBuf,
    bytes: u64,
    /// SHA-256 of the converted file when it was made.
    sha256: Option<String>,
    url: String,
    md5: String,
}

impl Entry {
    fn of(backbone: Backbone, folder: &Path) -> Result<Self> {
        let official = official_file(backbone)?;
        let model = model_path(folder, backbone.name());
        let part = folder.join(format!("{}.part", official.file));
        let local =
            [Some(folder.to_path_buf()), keras_folder()].into_iter().flatten().map(|f| f.join(&official.file)).find(|p| p.is_file());
        let (state, path) = match local {
            _ if model.exists() => (if ModelFile::open(&model).is_ok() { "ready" } else { "damaged" }, model.clone()),
            Some(local) => ("local", local),
            None if part.exists() => ("part", part),
            None => ("absent", model.clone()),
        };
        let bytes = std::fs::metadata(&path).map_or(0, |m| m.len());
        let sha256 = digest::recorded(&model).unwrap_or_default();
        Ok(Entry { backbone: backbone.name(), state, path, bytes, sha256, url: official.url, md5: official.md5 })
    }
}

fn entries(look: &Look) -> Result<Vec<Entry>> {
    let folder = look.which.folder()?;
    look.which.backbones.0.iter().map(|&b| Entry::of(b, &folder)).collect()
}

fn list(look: &Look) -> Result<()> {
    let entries = entries(look)?;
    if look.json {
        return json(&entries);
    }
    let mut table = Table::new(&[("weights", Align::Left), ("state", Align::Left), ("size", Align::Right), ("where", Align::Left)]);
    for e in &entries {
        let state = match e.state {
            "local" => "Keras's file, fetch checks and converts it",
            "part" => "partly downloaded, fetch goes on",
            "absent" => "not fetched",
            "damaged" => "damaged, fetch makes it anew",
            state => state,
        };
        let size = if e.bytes > 0 { bytes(e.bytes) } else { String::new() };
        table.row([e.backbone, state, &size, &e.path.display().to_string()]);
    }
    print(&table.to_string())
}

/// Reads everything again. Weights that were never fetched are no failure, unless they are asked for by name.
fn verify(look: &Look) -> Result<()> {
    let folder = look.which.folder()?;
    let (mut records, mut failed, mut checked) = (Vec::new(), Vec::new(), 0);
    for &backbone in &look.which.backbones.0 {
        let path = model_path(&folder, backbone.name());
        if !path.exists() {
            let error = Error::input("is not there").at(path.display()).advise(format!("`defrost weights fetch {backbone}` brings it"));
            if look.which.backbones.0.len() == 1 {
                return Err(error);
            }
            records.push(serde_json::json!({"backbone": backbone.name(), "path": path, "state": "absent"}));
            continue;
        }
        checked += 1;
        let sum = digest::sha256(&path)?;
        let (state, error) = match check(backbone, &path) {
            Ok(()) if digest::recorded(&path)?.is_none() => ("unrecorded", None),
            Ok(()) => ("intact", None),
            Err(e) => ("damaged", Some(e)),
        };
        records.push(serde_json::json!({"backbone": backbone.name(), "path": path, "state": state, "sha256": sum}));
        failed.extend(error);
    }
    match look.json {
        true => json(&records)?,
        false => records.iter().try_for_each(|r| {
            let text = |key: &str| r[key].as_str().unwrap_or_default();
            print(&format!("{:12} {:10} {}  {}\n", text("backbone"), text("state"), text("path"), text("sha256")))
        })?,
    }
    match failed.len() {
        0 => Ok(()),
        1 if checked == 1 => Err(failed.remove(0)),
        n => {
            failed.iter().for_each(|e| warn(&e.to_string()));
            Err(Error::partial(format!("{n} of {checked} weights are damaged")).advise("`defrost weights fetch all` makes them anew"))
        }
    }
}

/// What is inside of the converted files.
fn info(look: &Look) -> Result<()> {
    let folder = look.which.folder()?;
    let mut records = Vec::new();
    for &backbone in &look.which.backbones.0 {
        let path = model_path(&folder, backbone.name());
        if !path.exists() && look.which.backbones.0.len() > 1 {
            continue;
        }
        let file = ModelFile::open(&path).map_err(|e| e.advise(format!("`defrost weights fetch {backbone}` brings it")))?;
        let names = file.tensors().names();
        let numbers = names.iter().map(|n| file.tensor(n).map(|t| t.shape.iter().product::<usize>())).sum::<Result<usize>>()?;
        records.push(serde_json::json!({
            "backbone": backbone.name(), "path": path, "bytes": std::fs::metadata(&path).map_or(0, |m| m.len()), "tensors": names.len(),
            "numbers": numbers, "classes": file.class_count(), "input_size": file.metadata().input_size,
            "preprocess": file.metadata().preprocess, "profile": file.metadata().profile, "sha256": digest::recorded(&path)?,
            "imported": file.metadata().training["imported"],
        }));
    }
    if look.json {
        return json(&records);
    }
    if records.is_empty() {
        return print(&format!("no weights at {}\n", folder.display()));
    }
    records.iter().try_for_each(|r| print(&described(r)))
}

fn described(r: &serde_json::Value) -> String {
    let (text, number) = (|key: &str| r[key].as_str().unwrap_or("unknown"), |key: &str| r[key].as_u64().unwrap_or_default());
    let profile = &r["profile"];
    format!(
        "{}: {}\n  {} tensors, {} numbers, {}; {} px, preprocess {}\n  batch norm epsilon {:e}{}{}{}\n  source  {} (MD5 {})\n  SHA-256 {}\n",
        text("backbone"),
        text("path"),
        grouped(number("tensors")),
        grouped(number("numbers")),
        bytes(number("bytes")),
        number("input_size"),
        text("preprocess"),
        profile["epsilon"].as_f64().unwrap_or_default(),
        if profile["gamma"] == true { "" } else { ", no gamma" },
        if profile["count_padding"] == true { ", average pools count padding" } else { "" },
        if profile["symmetric_pools"] == true { ", max pools pad alike" } else { "" },
        r["imported"]["file"].as_str().unwrap_or("unknown"),
        r["imported"]["md5"].as_str().unwrap_or("unknown"),
        text("sha256"),
    )
}
