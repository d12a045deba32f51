//! Puts the CUDA kernels into the program: their sources, from which the emulated driver is built when a test starts, and one
//! fat binary per `kernels/*.cu`, compiled by nvcc where there is one.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    println!("cargo::rerun-if-changed=kernels");
    println!("cargo::rerun-if-changed=emulator");
    let mut text = String::from("/// Sources of kernels and emulator, by their path in the tree.\npub const SOURCES: &[(&str, &str)] = &[\n");
    for file in ["kernels", "emulator"].iter().flat_map(|folder| sources(&root.join(folder))) {
        let name = file.strip_prefix(&root).expect("below the root").to_str().expect("plain names").replace('\\', "/");
        writeln!(text, "    ({name:?}, include_str!({:?})),", file.display().to_string()).expect("a string takes text");
    }
    text += "];\n";
    fs::write(out.join("embedded.rs"), text).expect("OUT_DIR can be written");
}

/// The files of a folder, sorted.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).expect("the folder is in the tree").map(|e| e.expect("readable").path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files
}
