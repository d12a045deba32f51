//! A run taken up again: is it the same run, on the same images?

use super::folder::Folder;
use super::settings::Settings;
use super::state::Saved;
use crate::data::dataset::Dataset;
use crate::data::split::Split;
use crate::data::split_file;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Settings that may change between two parts of a run: they say how long it is and where things lie, not what a step does.
const FREE: [&str; 11] = [
    "data",
    "weights",
    "epochs",
    "steps",
    "early-stop",
    "time-limit",
    "save-every",
    "pixel-cache",
    "cache-dir",
    "cache-limit",
    "tensorboard",
];

/// The state that a run's folder holds; `None` if it was stopped before the first was written.
///
/// # Errors
/// A damaged state, one that is gone although epochs were trained, or settings that have changed since.
pub fn saved(folder: &Folder, settings: &Settings) -> Result<Option<Saved>> {
    let path = folder.file("state.safetensors");
    if !path.exists() {
        // The first epoch's files are written before its state; a second row in the history means that there was one.
        let epochs = std::fs::read_to_string(folder.file("history.csv")).map_or(0, |text| text.lines().count().saturating_sub(1));
        return match epochs {
            0 | 1 => Ok(None),
            _ => Err(Error::input(format!("is gone, although {epochs} epochs were trained")).at(path.display())),
        };
    }
    let saved = Saved::open(&path)?;
    let table = |s: &Settings| toml::Table::try_from(s).map_err(|e| Error::internal(e.to_string()));
    let (then, now) = (table(&saved.state.settings)?, table(settings)?);
    let keys: BTreeSet<&String> = then.keys().chain(now.keys()).filter(|key| !FREE.contains(&key.as_str())).collect();
    for key in keys {
        let (then, now) = (then.get(key), now.get(key));
        if then != now {
            let text = |value: Option<&toml::Value>| value.map_or("absent".into(), ToString::to_string);
            return Err(Error::input(format!("{key} is {}, the run was begun with {}", text(now), text(then)))
                .at(folder.file("config.toml").display())
                .advise("a run goes on as it was begun; put it back, or begin another with `defrost train --config`"));
        }
    }
    if saved.state.position.best > 0 && !folder.file("best.safetensors").exists() {
        let what = format!("is gone, although epoch {} was the best so far", saved.state.position.best);
        return Err(Error::input(what).at(folder.file("best.safetensors").display()).advise("put it back"));
    }
    Ok(Some(saved))
}

/// Checks that images, classes and split are those that a run was begun with.
///
/// # Errors
/// When not; images that are gone, new, changed or on the other side are named.
pub fn same_data(folder: &Folder, saved: &Saved, data: &Dataset, split: &Split) -> Result<()> {
    let (then, now) = (&saved.state.classes, &data.classes);
    if then != now {
        let what = format!("the classes are {}, the run was begun with {}", now.join(", "), then.join(", "));
        return Err(Error::input(what).at(folder.path().display()));
    }
    same_images(folder, data, split)
}

/// Checks that the images and their split are those of `split.csv`.
///
/// # Errors
/// As [`same_data`].
pub fn same_images(folder: &Folder, data: &Dataset, split: &Split) -> Result<()> {
    let path = folder.file("split.csv");
    let rows = split_file::read(&path)?;
    let then: BTreeMap<&str, (&str, &str)> = rows.iter().map(|r| (&r.path[..], (&r.sha256[..], &r.subset[..]))).collect();
    let subset = |(indices, subset): (&'_ [usize], &'static str)| {
        indices.iter().map(|&i| (&data.paths[i][..], (&data.sha256[i][..], subset))).collect::<Vec<_>>()
    };
    let now: BTreeMap<&str, (&str, &str)> = [(&split.train[..], "train"), (&split.val[..], "val")].into_iter().flat_map(subset).collect();
    let gone: Vec<&str> = then.keys().filter(|path| !now.contains_key(*path)).copied().collect();
    let new: Vec<&str> = now.keys().filter(|path| !then.contains_key(*path)).copied().collect();
    let differs = |what: fn(&(&str, &str)) -> String| {
        let other = |(path, facts): (&&str, _)| now.get(*path).is_some_and(|now| what(now) != what(facts));
        then.iter().filter(|(path, facts)| other((path, facts))).map(|(path, _)| *path).collect::<Vec<&str>>()
    };
    let (changed, moved) = (differs(|f| f.0.into()), differs(|f| f.1.into()));
    let lists = [("gone", gone), ("new", new), ("changed", changed), ("on the other side of the split", moved)];
    let told: Vec<String> = lists.iter().filter(|(_, paths)| !paths.is_empty()).map(|(what, paths)| tell(what, paths)).collect();
    if told.is_empty() {
        return Ok(());
    }
    Err(Error::input(format!("the images are not those that the run was begun with: {}", told.join("; ")))
        .at(path.display())
        .advise("put them back, or begin another run with `defrost train --config`"))
}

/// `2 are gone (a/1.png, b/7.png)`, with the first five names.
fn tell(what: &str, paths: &[&str]) -> String {
    let names = paths[..paths.len().min(5)].join(", ");
    let more = if paths.len() > 5 { ", ..." } else { "" };
    format!("{} {} {what} ({names}{more})", paths.len(), if paths.len() == 1 { "is" } else { "are" })
}
