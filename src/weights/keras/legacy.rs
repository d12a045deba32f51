//! The legacy HDF5 layout: an attribute `layer_names` with all layers in graph order, a group for each with an attribute
//! `weight_names`, each a path below that group. Attributes above 64 KiB are split into `layer_names0`, `layer_names1`, ...
//!
//! A model within the model is one layer there, with all its weights, the trainable ones first. It is taken apart by the
//! names of its weights and put into graph order by the configuration; without one, that is left to whoever knows the network.

use super::super::hdf5::Group;
use super::config::Config;
use super::{Layer, Weight};
use crate::error::{Error, Result};

/// Whether a group has the attribute that makes it one.
pub fn is_legacy(group: &Group) -> bool {
    group.has_attribute("layer_names") || group.has_attribute("layer_names0")
}

/// The layers with weights in graph order.
///
/// # Errors
/// A list that is missing, a name that leads nowhere, or what the HDF5 reader refuses.
pub fn layers<'f, 'a>(group: &Group<'f, 'a>, config: Option<&Config>) -> Result<Vec<Layer<'f, 'a>>> {
    let mut layers = Vec::new();
    let names = list(group, "layer_names")?.unwrap_or_default();
    if names.is_empty() {
        return Err(Error::input("has no layer_names, so it is no Keras weight file").at(group.path()));
    }
    for name in names {
        let absent = || Error::input("layer_names lists this layer, but its group is not there").at(&name);
        let layer = group.group(&name)?.ok_or_else(absent)?;
        let mut weights = Vec::new();
        for path in weight_names(&layer, &name)? {
            let absent = || Error::input(format!("weight_names lists {path}, but it is not there")).at(&name);
            let data = layer.dataset(&path)?.ok_or_else(absent)?;
            weights.push(Weight { name: path.strip_suffix(":0").unwrap_or(&path).to_string(), data });
        }
        match owners(&weights) {
            0 => (),
            1 => layers.push(Layer { name, weights, ordered: true }),
            _ => layers.extend(apart(&name, weights, config)?),
        }
    }
    Ok(layers)
}

/// The paths of a layer's weights. A group without any needs no list; of others nothing else tells what is in them, and in which order.
fn weight_names(layer: &Group, name: &str) -> Result<Vec<String>> {
    let listed = list(layer, "weight_names")?;
    let what = match &listed {
        None if !layer.is_empty() => "is missing",
        Some(paths) if paths.is_empty() && !layer.is_empty() => "is empty",
        _ => return Ok(listed.unwrap_or_default()),
    };
    let expected = format!("expected the paths of the layer's weights in order, such as {name}/kernel:0");
    Err(Error::input(format!("its attribute weight_names {what}; {expected}")).at(name))
}

/// An attribute that is a list of texts, whole or in parts; `None` if there is none of this name.
fn list(group: &Group, name: &str) -> Result<Option<Vec<String>>> {
    if let Some(texts) = group.texts(name)? {
        return Ok(Some(texts));
    }
    let mut parts = Vec::new();
    while let Some(texts) = group.texts(&format!("{name}{}", parts.len()))? {
        parts.push(texts);
    }
    Ok((!parts.is_empty()).then(|| parts.concat()))
}

/// The layer that a weight belongs to by its name: `conv1/bn` of `conv1/bn/gamma`.
fn owner<'w>(weight: &'w Weight) -> &'w str {
    weight.name.rsplit_once('/').map_or("", |(layer, _)| layer)
}

/// How many layers weights belong to. A separable convolution's or any other layer's own weights have one owner.
fn owners(weights: &[Weight]) -> usize {
    let mut owners: Vec<&str> = weights.iter().map(owner).collect();
    owners.sort_unstable();
    owners.dedup();
    owners.len()
}

/// The layers of a model within the model.
fn apart<'f, 'a>(nested: &str, weights: Vec<Weight<'f, 'a>>, config: Option<&Config>) -> Result<Vec<Layer<'f, 'a>>> {
    let mut layers: Vec<Layer> = Vec::new();
    let mut positions = std::collections::HashMap::new();
    for weight in weights {
        let own = owner(&weight);
        let own = own.strip_prefix(nested).and_then(|rest| rest.strip_prefix('/')).unwrap_or(own).to_string();
        let at = *positions.entry(own.clone()).or_insert(layers.len());
        if at == layers.len() {
            layers.push(Layer { name: own, weights: Vec::new(), ordered: false });
        }
        layers[at].weights.push(weight);
    }
    if let Some(order) = config.map(|c| c.order_within(nested)).filter(|order| !order.is_empty()) {
        let unknown = |l: &&Layer| !order.contains_key(l.name.as_str());
        if let Some(layer) = layers.iter().find(unknown) {
            return Err(Error::input(format!("the configuration of {nested} has no layer of this name")).at(&layer.name));
        }
        layers.sort_by_key(|l| order[l.name.as_str()]);
        layers.iter_mut().for_each(|l| l.ordered = true);
    }
    Ok(layers)
}
