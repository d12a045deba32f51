//! Room in the folder of pixel caches: those that were used longest ago go first.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A finished cache file.
struct Cached {
    path: PathBuf,
    bytes: u64,
    /// When it was written or last opened.
    used: SystemTime,
}

/// Removes finished files until `needed` more bytes fit within `limit`, and says so in a sentence.
///
/// A run that has such a file mapped reads on to its end, for the system keeps the bytes as long; where it does not, it does not
/// let the file go either.
pub fn make_room(folder: &Path, needed: u64, limit: u64) -> Option<String> {
    let mut all: Vec<Cached> = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| cached(&entry)).collect();
    all.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let mut held: u64 = all.iter().map(|file| file.bytes).sum();
    let (mut removed, mut freed) = (0, 0);
    for file in all {
        if held.saturating_add(needed) <= limit {
            break;
        }
        if fs::remove_file(&file.path).is_ok() {
            (held, freed, removed) = (held - file.bytes, freed + file.bytes, removed + 1);
        }
    }
    let files = if removed == 1 { "1 pixel cache" } else { &format!("{removed} pixel caches") };
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    let (freed, limit) = (gib(freed), gib(limit));
    (removed > 0).then(|| format!("pixels: {files} ({freed}), used longest ago, removed to stay within {limit} (--cache-limit)"))
}

fn cached(entry: &fs::DirEntry) -> Option<Cached> {
    let (path, facts) = (entry.path(), entry.metadata().ok()?);
    let finished = facts.is_file() && path.extension().is_some_and(|end| end == "pixels");
    finished.then_some(())?;
    Some(Cached { path, bytes: facts.len(), used: facts.modified().ok()? })
}
