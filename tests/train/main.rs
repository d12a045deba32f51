//! Training through the program, on small images drawn here.

mod data;
#[path = "../fixture/mod.rs"]
mod fixture;
mod refusals;
mod runs;
mod schedules;

use fixture::Data;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Ten images of each class.
fn data(name: &str) -> Data {
    Data::new(&format!("train-{name}"), 10)
}

impl Data {
    fn train(&self, out: &str, more: &[&str]) -> Output {
        let (photos, out) = (self.path("photos"), self.path(out));
        let fixed = ["train", photos.to_str().unwrap(), "--out", out.to_str().unwrap()];
        defrost(&[&fixed[..], more].concat())
    }
}

fn defrost(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_defrost")).args(args).output().unwrap()
}

fn ok(output: Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn refused(output: Output, with: &str) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(with), "{text}");
}

const VGG: [&str; 8] = ["--backbone", "vgg16", "--weights", "random", "--input-size", "32", "--epochs", "2"];

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

const HEAD: [&str; 10] = ["--backbone", "vgg16", "--weights", "random", "--input-size", "32", "--freeze", "all", "--batch-size", "8"];

/// A column of `history.csv`.
fn column(run: &Path, name: &str) -> Vec<f64> {
    let text = fs::read_to_string(run.join("history.csv")).unwrap();
    let at = text.lines().next().unwrap().split(',').position(|c| c == name).unwrap();
    text.lines().skip(1).map(|l| l.split(',').nth(at).unwrap().parse().unwrap()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The tensors of a model file, without what it says about itself.
fn tensors(path: &Path) -> Vec<(String, Vec<u8>)> {
    let file = defrost::weights::ModelFile::open(path).unwrap();
    file.tensors().names().iter().map(|n| (n.clone(), file.tensor(n).unwrap().bytes.to_vec())).collect()
}

const ONE: [&str; 4] = ["--epochs", "1", "--lr", "0.1"];
