//! The layout of Keras 3's `.weights.h5`: `layers/conv2d_3/vars/0`, where the number counts the layers of a class in model
//! order, whatever their names are. An attribute `name` tells the real one in recent files. A model within the model
//! repeats the pattern: `layers/functional/layers/conv2d/vars/0`.

use super::super::hdf5::Group;
use super::{Layer, Weight};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// What a model's list of layers is called; the second is TensorFlow 2.12's to 2.15's.
const CONTAINERS: [&str; 2] = ["layers", "_layer_checkpoint_dependencies"];

/// Models within models that are followed.
const DEPTH: usize = 4;

type ByKind<'f, 'a> = BTreeMap<String, Vec<Layer<'f, 'a>>>;

/// The layers with weights by kind; `None` if this is no such file.
///
/// # Errors
/// What the HDF5 reader refuses, numbers that are missing.
pub fn layers<'f, 'a>(root: &Group<'f, 'a>) -> Result<Option<ByKind<'f, 'a>>> {
    let mut found = BTreeMap::new();
    Ok(collect(root, DEPTH, &mut found)?.then_some(found))
}

/// Adds the layers below a model; whether it has a list of layers.
fn collect<'f, 'a>(model: &Group<'f, 'a>, depth: usize, found: &mut ByKind<'f, 'a>) -> Result<bool> {
    let Some(container) = CONTAINERS.iter().find(|name| model.has(name)) else { return Ok(false) };
    let Some(list) = model.group(container)? else { return Ok(false) };
    let mut names: Vec<(&str, usize)> = list.names().map(kind_and_number).collect();
    names.sort_unstable();
    for (kind, number) in names {
        let name = if number == 0 { kind.to_string() } else { format!("{kind}_{number}") };
        let Some(layer) = list.group(&name)? else { continue };
        if CONTAINERS.iter().any(|name| layer.has(name)) {
            if depth == 0 {
                return Err(Error::input("models within models too deep to follow").at(layer.path()));
            }
            collect(&layer, depth - 1, found)?;
            continue;
        }
        let Some(vars) = layer.group("vars")? else { continue };
        let real = vars.texts("name")?.and_then(|texts| texts.into_iter().next()).unwrap_or(name);
        let mut weights = Vec::new();
        while let Some(data) = vars.dataset(&weights.len().to_string())? {
            weights.push(Weight { name: weights.len().to_string(), data });
        }
        if weights.len() != vars.names().count() {
            return Err(
                Error::input(format!("its variables are not numbered from 0: {:?}", vars.names().take(8).collect::<Vec<_>>())).at(real)
            );
        }
        if !weights.is_empty() {
            found.entry(kind.to_string()).or_default().push(Layer { name: real, weights, ordered: true });
        }
    }
    Ok(true)
}

/// `conv2d_3` is the fourth of kind `conv2d`, `conv2d` the first.
fn kind_and_number(name: &str) -> (&str, usize) {
    let split = name.rsplit_once('_').and_then(|(kind, number)| Some((kind, number.parse().ok()?)));
    split.filter(|&(_, number)| number > 0).unwrap_or((name, 0))
}
