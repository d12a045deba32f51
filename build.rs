//! Puts the CUDA kernels into the program: their sources, from which the emulated driver is built when a test starts, and one
//! fat binary per `kernels/*.cu`, compiled by nvcc where there is one (in `CUDA_HOME`, on the `PATH`, or in `.cuda/`).
//!
//! `DEFROST_CUDA=require` makes a missing nvcc an error, `off` does without. `DEFROST_CUDA_ARCHS=all` compiles for every chip
//! that this nvcc knows of [`ALL`] instead of sm_90a and, as PTX for the rest, compute_80. No GPU is asked for or about.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

/// The chips of `DEFROST_CUDA_ARCHS=all`: A100, RTX 30, RTX 40, H100 and H200, B200, RTX 50.
const ALL: [&str; 6] = ["80", "86", "89", "90a", "100", "120"];

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    for path in ["build.rs", "kernels", "emulator"] {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["CUDA_HOME", "DEFROST_CUDA", "DEFROST_CUDA_ARCHS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let kernels = sources(&root.join("kernels"));
    let mut text =
        String::from("/// Sources of kernels and emulator, by their path in the tree.\npub const SOURCES: &[(&str, &str)] = &[\n");
    for file in kernels.iter().chain(&sources(&root.join("emulator"))) {
        let name = file.strip_prefix(&root).expect("below the root").to_str().expect("plain names").replace('\\', "/");
        writeln!(text, "    ({name:?}, include_str!({:?})),", file.display().to_string()).expect("a string takes text");
    }
    text += "];\n\n/// The kernels of each `.cu` file, compiled for GPUs.\npub const IMAGES: &[(&str, &[u8])] = &[\n";
    let compiler = nvcc(&root);
    if let Ok(nvcc) = &compiler {
        for (stem, image) in compile_all(nvcc, &kernels, &out) {
            writeln!(text, "    ({stem:?}, include_bytes!({:?})),", image.display().to_string()).expect("a string takes text");
        }
    }
    let (version, chips) = compiler.as_ref().map_or((None, Vec::new()), |nvcc| (Some(nvcc.version), nvcc.chips.clone()));
    writeln!(text, "];\n\n/// The nvcc that compiled them, as (major, minor); `None`: they were not compiled.")
        .expect("a string takes text");
    writeln!(text, "pub const NVCC: Option<(u32, u32)> = {version:?};").expect("a string takes text");
    writeln!(text, "\n/// The chips that they were compiled for.\npub const CHIPS: &[&str] = &{chips:?};").expect("a string takes text");
    fs::write(out.join("embedded.rs"), text).expect("OUT_DIR can be written");
}

/// The files of a folder, sorted.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).expect("the folder is in the tree").map(|e| e.expect("readable").path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files
}

/// A CUDA compiler and what it is asked for.
struct Nvcc {
    path: PathBuf,
    version: (u32, u32),
    /// What code is generated for: `arch=compute_90a,code=sm_90a`.
    targets: Vec<String>,
    /// The same for a person: `sm_90a`.
    chips: Vec<String>,
}

/// Finds nvcc, or says in one sentence why there is none.
fn nvcc(root: &Path) -> Result<Nvcc, String> {
    let wanted = env::var("DEFROST_CUDA").unwrap_or_default();
    let found = match wanted.as_str() {
        "off" => return Err("DEFROST_CUDA=off".into()),
        "" | "require" => find(root),
        other => panic!("DEFROST_CUDA is {other:?}; it may be require or off"),
    };
    if let Err(why) = &found {
        assert!(wanted != "require", "DEFROST_CUDA=require, and {why}");
        println!("cargo::warning=without CUDA: {why}; scripts/cuda-toolkit.sh brings nvcc (DEFROST_CUDA=off hides this line)");
    }
    found
}

fn find(root: &Path) -> Result<Nvcc, String> {
    let home = env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin/nvcc"));
    let on_path =
        env::var_os("PATH").and_then(|path| env::split_paths(&path).map(|folder| folder.join("nvcc")).find(|nvcc| nvcc.is_file()));
    let places = [home, on_path, Some(root.join(".cuda/bin/nvcc"))];
    let path =
        places.into_iter().flatten().find(|nvcc| nvcc.is_file()).ok_or("no nvcc was found in CUDA_HOME, on the PATH or in .cuda/")?;
    println!("cargo::rerun-if-changed={}", path.display());
    let said = run(&path, &["--version"])?;
    let release = said.split("release ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
    let version = release.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let version = version.ok_or_else(|| format!("{} does not tell its version", path.display()))?;
    let (mut targets, mut chips) = (Vec::new(), Vec::new());
    let all = match env::var("DEFROST_CUDA_ARCHS").as_deref() {
        Ok("all") => true,
        Err(_) | Ok("") => false,
        Ok(other) => panic!("DEFROST_CUDA_ARCHS is {other:?}; it may be all"),
    };
    let known = run(&path, &["--list-gpu-arch"])?;
    for chip in ALL.into_iter().filter(|chip| *chip == "90a" || all) {
        // The list has plain names: compute_90 stands for compute_90a too.
        if known.lines().any(|line| line.trim() == format!("compute_{}", chip.trim_end_matches('a'))) {
            targets.push(format!("arch=compute_{chip},code=sm_{chip}"));
            chips.push(format!("sm_{chip}"));
        }
    }
    targets.push("arch=compute_80,code=compute_80".into());
    chips.push("compute_80 (PTX)".into());
    Ok(Nvcc { path, version, targets, chips })
}

fn run(nvcc: &Path, arguments: &[&str]) -> Result<String, String> {
    let run = Command::new(nvcc).args(arguments).output().map_err(|e| format!("{} cannot be run: {e}", nvcc.display()))?;
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

/// Compiles each `.cu` whose sources or flags have changed; returns the fat binaries by the files' stems.
fn compile_all(nvcc: &Nvcc, kernels: &[PathBuf], out: &Path) -> Vec<(String, PathBuf)> {
    let ends = |file: &PathBuf, ending: &str| file.extension().is_some_and(|e| e == ending);
    let headers: String = kernels.iter().filter(|f| ends(f, "cuh")).map(|f| fs::read_to_string(f).expect("readable")).collect();
    let units: Vec<&PathBuf> = kernels.iter().filter(|f| ends(f, "cu")).collect();
    let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1usize);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(units.len()) {
            scope.spawn(|| {
                while let Some(unit) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                    compile(nvcc, unit, &headers, out);
                }
            });
        }
    });
    units.iter().map(|unit| (stem(unit), image(unit, out))).collect()
}

fn stem(unit: &Path) -> String {
    unit.file_stem().and_then(|s| s.to_str()).expect("plain names").into()
}

fn image(unit: &Path, out: &Path) -> PathBuf {
    out.join(stem(unit)).with_extension("fatbin")
}

fn compile(nvcc: &Nvcc, unit: &Path, headers: &str, out: &Path) {
    let mut hasher = DefaultHasher::new();
    (fs::read_to_string(unit).expect("readable"), headers, nvcc.version, &nvcc.targets).hash(&mut hasher);
    let (image, stamp, key) = (image(unit, out), out.join(stem(unit)).with_extension("stamp"), hasher.finish().to_string());
    if image.is_file() && fs::read_to_string(&stamp).is_ok_and(|old| old == key) {
        return;
    }
    let mut command = Command::new(&nvcc.path);
    command.args(["-fatbin", "-O3", "-std=c++20", "--compress-mode=size", "-o"]).arg(&image).arg(unit);
    nvcc.targets.iter().for_each(|target| {
        command.args(["-gencode", target]);
    });
    let run = command.output().unwrap_or_else(|e| panic!("{} cannot be run: {e}", nvcc.path.display()));
    assert!(run.status.success(), "{} does not compile:\n{}", unit.display(), String::from_utf8_lossy(&run.stderr));
    fs::write(stamp, key).expect("OUT_DIR can be written");
}
