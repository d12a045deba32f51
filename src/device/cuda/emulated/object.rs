//! The shared object of all kernels, built from source by the C++ compiler of this machine.
//!
//! Sources are those in the program, or in the tree that `DEFROST_KERNELS` names (for whoever writes kernels: no rebuild of
//! the program). Object files and results are kept in the user's cache folder under a hash of their sources and flags.

use crate::device::cuda::embedded::SOURCES;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Which of the two builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// Optimised, with guard zones only.
    Fast,
    /// Every access is reported to the emulator's hooks.
    Checked,
}

const COMMON: &[&str] =
    &["-std=c++20", "-fPIC", "-fno-extern-tls-init", "-Wno-unknown-pragmas", "-fvisibility=hidden", "-g1", "-Iemulator", "-Ikernels", "-c"];

/// How a kernel is compiled. The checked build uses the compiler's thread-sanitizer instrumentation without its runtime.
fn kernel_flags(build: Build) -> &'static [&'static str] {
    match build {
        Build::Fast => &["-O2", "-march=native", "-include", "emulator/cuda_emulated.h", "-x", "c++"],
        Build::Checked => &[
            "-O1",
            "-fsanitize=thread,alignment,bounds,shift,signed-integer-overflow",
            "--param",
            "tsan-instrument-func-entry-exit=0",
            "-include",
            "emulator/cuda_emulated.h",
            "-x",
            "c++",
        ],
    }
}

/// A source file by its path in the tree.
type Source = (String, Cow<'static, str>);

fn sources() -> Result<Vec<Source>> {
    let Some(tree) = env::var_os("DEFROST_KERNELS").filter(|v| !v.is_empty()).map(PathBuf::from) else {
        return Ok(SOURCES.iter().map(|&(name, text)| (name.into(), text.into())).collect());
    };
    let mut found = Vec::new();
    for folder in ["kernels", "emulator"] {
        let path = tree.join(folder);
        for entry in fs::read_dir(&path).map_err(|e| Error::io(&path, &e))? {
            let file = entry.map_err(|e| Error::io(&path, &e))?.path();
            if let (true, Some(name)) = (file.is_file(), file.file_name().and_then(|n| n.to_str())) {
                let text = fs::read_to_string(&file).map_err(|e| Error::io(&file, &e))?;
                found.push((format!("{folder}/{name}"), text.into()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The folder of built objects.
fn cache() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let user = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    user.map(|cache| cache.join("defrost/emulator")).ok_or_else(|| {
        Error::machine("no folder for the built kernels: HOME is not set").at("emulated").advise("set XDG_CACHE_HOME to a folder")
    })
}

fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut sum = Sha256::new();
    parts.into_iter().for_each(|part| {
        sum.update((part.len() as u64).to_le_bytes());
        sum.update(part);
    });
    sum.finalize().iter().take(12).map(|b| format!("{b:02x}")).collect()
}

fn compiler() -> String {
    env::var("CXX").ok().filter(|v| !v.is_empty()).unwrap_or_else(|| "g++".into())
}

/// The path of the shared object, built if it is not there yet.
///
/// # Errors
/// Without a C++ compiler, and when a kernel does not compile; the compiler's own message is in the error.
pub fn object(build: Build) -> Result<PathBuf> {
    if !cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))) {
        return Err(Error::machine("the emulated CUDA driver runs on Linux, on x86-64 and aarch64").at("emulated"));
    }
    let (sources, compiler) = (sources()?, compiler());
    let headers: Vec<&str> = sources.iter().filter(|s| s.0.ends_with("h")).map(|s| &*s.1).collect();
    let units: Vec<&Source> = sources.iter().filter(|s| s.0.ends_with(".cu") || s.0.ends_with(".cpp")).collect();
    let flags = |name: &str| if name.ends_with(".cu") { kernel_flags(build) } else { &["-O2"] };
    let machine = env::consts::ARCH;
    let key =
        |unit: &Source| hash(headers.iter().copied().chain([&*unit.1, &unit.0, &compiler, machine]).chain(flags(&unit.0).iter().copied()));
    let keys: Vec<String> = units.iter().map(|unit| key(unit)).collect();
    let folder = cache()?;
    let made = folder.join(format!("{}.so", hash(keys.iter().map(String::as_str))));
    if made.is_file() {
        return Ok(made);
    }
    let tree = Tree::write(&folder, &sources)?;
    let objects: Vec<PathBuf> = keys.iter().map(|key| folder.join(format!("{key}.o"))).collect();
    let jobs: Vec<(&Source, &PathBuf)> = units.into_iter().zip(&objects).filter(|(_, object)| !object.is_file()).collect();
    parallel(&jobs, |(unit, object)| {
        let arguments = COMMON.iter().chain(flags(&unit.0)).map(|s| s.to_string());
        compile(&compiler, &tree.0, arguments.chain([unit.0.clone(), "-o".into()]), object)
    })?;
    let linked = ["-shared", "-Wl,-z,defs"].iter().map(|s| s.to_string());
    compile(&compiler, &tree.0, linked.chain(objects.iter().map(|o| o.display().to_string())).chain(["-o".into()]), &made)?;
    Ok(made)
}

/// Runs jobs on all cores; the first failure is the result.
fn parallel<T: Sync>(jobs: &[T], run: impl Fn(&T) -> Result<()> + Sync + Send) -> Result<()> {
    use rayon::prelude::*;
    jobs.par_iter().map(run).collect()
}

/// Runs the compiler in a folder; what it makes appears under its name when it is whole.
fn compile(compiler: &str, folder: &Path, arguments: impl Iterator<Item = String>, made: &Path) -> Result<()> {
    let draft = made.with_extension(format!("{}.draft", std::process::id()));
    let missing = |e: std::io::Error| {
        let error = Error::machine(format!("the C++ compiler {compiler:?} cannot be run: {e}")).at("emulated");
        error.advise("the emulated CUDA device is built with g++: install it, or name another one in CXX")
    };
    let run = Command::new(compiler).args(arguments).arg(&draft).current_dir(folder).output().map_err(missing)?;
    if !run.status.success() {
        let text = String::from_utf8_lossy(&run.stderr);
        return Err(Error::machine(format!("a kernel does not compile:\n{}", text.trim_end())).at("emulated"));
    }
    fs::rename(&draft, made).map_err(|e| Error::io(made, &e))
}

/// The sources in a folder of their own for the time of a build.
struct Tree(PathBuf);

impl Tree {
    fn write(cache: &Path, sources: &[Source]) -> Result<Tree> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = cache.join(format!("tree-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let tree = Tree(folder);
        for (name, text) in sources {
            let file = tree.0.join(name);
            let parent = file.parent().unwrap_or(&tree.0);
            fs::create_dir_all(parent).map_err(|e| Error::io(parent, &e))?;
            fs::write(&file, &**text).map_err(|e| Error::io(&file, &e))?;
        }
        Ok(tree)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // A folder that cannot be removed is left in the cache.
        let _ = fs::remove_dir_all(&self.0);
    }
}
