//! Which of a file's layers is which of the network's.

use super::super::backbone::Backbone;
use super::super::layers::{Kind, Layer as Own};
use super::super::model::Model;
use super::super::spec::Spec;
use crate::base::{Shape, Val};
use crate::error::{Error, Result};
use crate::weights::keras::{Found, Layer, Layers};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A layer of the network that has weights: parameters, then moving statistics, as Keras lists them.
pub struct Slot<'m> {
    pub layer: &'m Own,
    pub weights: Vec<Val>,
    /// The weights' names without the layer's, and their shapes.
    pub parts: Vec<(&'m str, Shape)>,
}

/// The layers with weights of a model in Keras's order.
pub fn slots(model: &Model) -> Vec<Slot<'_>> {
    let part = |v: &Val| (model.graph.name(*v).rsplit('/').next().unwrap_or_default(), model.graph.ty(*v).shape);
    let mut slots = Vec::new();
    for layer in &model.layers {
        let weights: Vec<Val> = layer.params.iter().chain(&layer.states).copied().collect();
        if !weights.is_empty() {
            slots.push(Slot { layer, parts: weights.iter().map(part).collect(), weights });
        }
    }
    slots
}

/// The network whose layers the file's resemble most, without head.
///
/// # Errors
/// None resembles them by half; then the nearest is named with its first difference.
pub fn choose(found: &Found, wanted: Option<Backbone>) -> Result<Model> {
    let body = |b: Backbone| Spec { features_only: true, size: b.minimum_size(), ..Spec::new(b, 0) }.build();
    if let Some(backbone) = wanted {
        return body(backbone);
    }
    let mut models = Backbone::ALL.into_iter().map(body).collect::<Result<Vec<Model>>>()?;
    let shares: Vec<f64> = models.iter().map(|model| resemblance(found, model)).collect();
    let best = (0..models.len()).max_by(|&a, &b| shares[a].total_cmp(&shares[b])).unwrap_or(0);
    let model = models.swap_remove(best);
    if shares[best] >= 0.5 {
        return Ok(model);
    }
    let networks = Backbone::ALL.map(Backbone::name).join(", ");
    let count = all(&found.layers).count();
    let nearest = match arrange(found, &model) {
        Err(difference) if shares[best] > 0.0 => format!("; it is nearest to {}, and there: {difference}", model.spec.backbone),
        _ => all(&found.layers).next().map_or(String::new(), |l| format!("; the first of them is {} ({})", l.name, shapes(l))),
    };
    Err(Error::input(format!("holds another network: its {count} layers with weights are those of none of {networks}{nearest}")))
}

/// The share of layers that have a partner of the same shapes, wherever it stands.
fn resemblance(found: &Found, model: &Model) -> f64 {
    let slots = slots(model);
    let mut counts: HashMap<Vec<Vec<usize>>, usize> = HashMap::new();
    let mut theirs = 0;
    for layer in all(&found.layers).filter(|l| !is_dense(l)) {
        *counts.entry(layer.weights.iter().map(|w| w.shape()).collect()).or_default() += 1;
        theirs += 1;
    }
    let paired = slots.iter().filter(|slot| {
        let shapes: Vec<Vec<usize>> = slot.parts.iter().map(|(_, shape)| shape.dims().to_vec()).collect();
        counts.get_mut(&shapes).filter(|n| **n > 0).map(|n| *n -= 1).is_some()
    });
    paired.count() as f64 / theirs.max(slots.len()) as f64
}

fn all<'l, 'f, 'a>(layers: &'l Layers<'f, 'a>) -> Box<dyn Iterator<Item = &'l Layer<'f, 'a>> + 'l> {
    match layers {
        Layers::Ordered(layers) => Box::new(layers.iter()),
        Layers::ByKind(kinds) => Box::new(kinds.values().flatten()),
    }
}

/// Whether a layer looks like a dense one: a matrix, perhaps a bias.
pub fn is_dense(layer: &Layer) -> bool {
    layer.weights.first().is_some_and(|w| w.shape().len() == 2)
}

/// The file's layers in the order of the network's, and what is left, the head; with what the user should know.
type Arranged<'l, 'f, 'a> = (Vec<&'l Layer<'f, 'a>>, Vec<&'l Layer<'f, 'a>>, Vec<String>);

/// Finds the layers of the network `body` in the file.
///
/// # Errors
/// A layer that is missing, of another shape or one too many; with its name, what was found and what was expected.
pub fn arrange<'l, 'f, 'a>(found: &'l Found<'f, 'a>, body: &Model) -> Result<Arranged<'l, 'f, 'a>> {
    let slots = slots(body);
    let backbone = body.spec.backbone;
    let mut stray = None;
    let (layers, rest) = match &found.layers {
        Layers::Ordered(layers) => {
            let (layers, error) = in_order(layers, &slots);
            stray = error;
            let end = slots.len().min(layers.len());
            (layers[..end].to_vec(), layers[end..].to_vec())
        }
        Layers::ByKind(kinds) => by_kind(kinds, &slots),
    };
    if let Some(error) = first_difference(&layers, &rest, &slots, backbone).or(stray) {
        return Err(error);
    }
    for (layer, slot) in layers.iter().zip(&slots) {
        for (weight, (part, _)) in layer.weights.iter().zip(&slot.parts) {
            weight.data.check().map_err(|e| e.at(&weight.name).at(&layer.name))?;
            if let Some(role) = contradicts(&weight.name, part) {
                let what = format!("stands where {}/{part} is expected, and calls itself {role}", slot.layer.name);
                return Err(Error::input(what).at(&weight.name).at(&layer.name));
            }
        }
    }
    let notes = misplaced(&layers, &slots).into_iter().collect();
    Ok((layers, rest, notes))
}

/// Layers in file order. Those of a model within a model whose order the file does not tell come where their names belong;
/// where one's name belongs nowhere, the file's order stays, and the error says so.
fn in_order<'l, 'f, 'a>(layers: &'l [Layer<'f, 'a>], slots: &[Slot]) -> (Vec<&'l Layer<'f, 'a>>, Option<Error>) {
    let theirs = ranks(layers.iter().filter(|l| !l.ordered).map(|l| l.name.as_str()));
    let ours = ranks(slots.iter().map(|s| &*s.layer.name));
    let places: HashMap<&(String, usize), usize> = slots.iter().enumerate().map(|(i, s)| (&ours[&*s.layer.name], i)).collect();
    let mut sorted: Vec<&Layer> = layers.iter().collect();
    let place = |layer: &Layer| if layer.ordered { Some(slots.len()) } else { places.get(&theirs[layer.name.as_str()]).copied() };
    if let Some(stray) = layers.iter().find(|l| place(l).is_none()) {
        let what = "is a layer of a model within the model, and by its name none of the network's, so that its place is not known";
        let error = Error::input(what).at(&stray.name).advise("import the whole model (model.save) instead of its weights alone");
        return (sorted, Some(error));
    }
    if theirs.len() > 1 {
        sorted.sort_by_key(|layer| place(layer));
    }
    (sorted, None)
}

/// Names as (stem, rank): Keras numbers layers that nobody named through the whole process, so that only the order of the
/// numbers tells something: `conv2d_95, conv2d_97` are the first and the second. `conv1/bn` is DenseNet's old `conv1_bn`.
fn ranks<'n>(names: impl Iterator<Item = &'n str>) -> HashMap<&'n str, (String, usize)> {
    let mut stems: BTreeMap<String, Vec<(usize, &str)>> = BTreeMap::new();
    for name in names {
        let (stem, number) = match numbered(name) {
            Some((stem, number)) => (stem.to_string(), number),
            None => (name.replace('/', "_"), 0),
        };
        stems.entry(stem).or_default().push((number, name));
    }
    let mut ranks = HashMap::new();
    for (stem, mut names) in stems {
        names.sort_unstable();
        ranks.extend(names.into_iter().enumerate().map(|(rank, (_, name))| (name, (stem.clone(), rank))));
    }
    ranks
}

/// The number of a name that Keras made up; none of a name that somebody chose.
fn numbered(name: &str) -> Option<(&str, usize)> {
    let (stem, number) = match name.rsplit_once('_').map(|(stem, number)| (stem, number.parse())) {
        Some((stem, Ok(number))) => (stem, number),
        _ => (name, 0),
    };
    ["conv2d", "batch_normalization", "separable_conv2d", "dense"].contains(&stem).then_some((stem, number))
}

/// Layers by kind: the network's k-th of a kind is the file's k-th.
fn by_kind<'l, 'f, 'a>(
    kinds: &'l BTreeMap<String, Vec<Layer<'f, 'a>>>,
    slots: &[Slot],
) -> (Vec<&'l Layer<'f, 'a>>, Vec<&'l Layer<'f, 'a>>) {
    let mut queues: BTreeMap<&str, std::slice::Iter<Layer>> = kinds.iter().map(|(kind, layers)| (kind.as_str(), layers.iter())).collect();
    // Where a kind runs out, the next kind's layers move up, and the difference is found there.
    let layers = slots.iter().filter_map(|slot| queues.get_mut(slot.layer.kind.stem())?.next()).collect();
    (layers, queues.into_values().flatten().collect())
}

/// The first thing that keeps the layers from being the network's.
fn first_difference(layers: &[&Layer], rest: &[&Layer], slots: &[Slot], backbone: Backbone) -> Option<Error> {
    let place = (0..slots.len()).find(|&k| layers.get(k).is_none_or(|layer| !fits(layer, &slots[k])));
    let extra = rest.iter().find(|l| !is_dense(l));
    let Some(k) = place else {
        return extra.map(|l| {
            let what =
                format!("is a layer with weights ({}) after the {} of {backbone}, where only dense layers may be", shapes(l), slots.len());
            Error::input(what).at(&l.name)
        });
    };
    let slot = &slots[k];
    let expected = format!("{} ({})", slot.layer.name, wanted(slot));
    let Some(layer) = layers.get(k).filter(|l| !is_dense(l)) else {
        let what = format!(
            "the file has no such layer; {backbone} expects {} as its layer {} of {} with weights",
            wanted(slot),
            k + 1,
            slots.len()
        );
        return Some(Error::input(what).at(&slot.layer.name));
    };
    // The rest of the file fits one place further on: here one is missing or one is too many.
    let fit = |from: usize, to: usize| {
        (0..3).all(|i| match (layers.get(from + i), slots.get(to + i)) {
            (Some(layer), Some(slot)) => fits(layer, slot),
            _ => i > 0,
        })
    };
    match by_names(layers, rest, slots) {
        Some(Named::Missing(name)) => {
            let what = format!("the file has no such layer; in its place stands {} ({})", layer.name, shapes(layer));
            return Some(Error::input(what).at(name));
        }
        Some(Named::Foreign(layer)) => {
            let (ours, theirs) = (slots.len(), layers.iter().chain(rest).filter(|l| !is_dense(l)).count());
            let what = format!(
                "is a layer with weights ({}) too many: {backbone} has {ours} and none of this name, the file has {theirs}",
                shapes(layer)
            );
            return Some(Error::input(what).at(&layer.name).advise("the file holds another network, or one that was changed"));
        }
        None => {}
    }
    if fit(k, k + 1) {
        let what =
            format!("the file has no such layer; where {backbone} expects {} stands {} ({})", wanted(slot), layer.name, shapes(layer));
        return Some(Error::input(what).at(&slot.layer.name));
    }
    if fit(k + 1, k) {
        let what = format!("is a layer with weights ({}) too many: {backbone} has {expected} here", shapes(layer));
        return Some(Error::input(what).at(&layer.name));
    }
    let what = if layer.weights.len() != slot.parts.len() {
        format!("has {} weights ({}), expected {expected} of {backbone}", layer.weights.len(), shapes(layer))
    } else {
        format!("has shape {}, expected {expected} of {backbone}", shapes(layer))
    };
    Some(Error::input(what).at(&layer.name))
}

/// What the names tell.
enum Named<'s, 'l, 'f, 'a> {
    /// A layer of the network that the file has not.
    Missing(&'s str),
    /// A layer of the file that the network has not.
    Foreign(&'l Layer<'f, 'a>),
}

/// The first difference in names, where the file's names are mostly the network's: for VGG19 taken for VGG16, `block3_conv4`.
fn by_names<'s, 'l, 'f, 'a>(layers: &[&'l Layer<'f, 'a>], rest: &[&'l Layer<'f, 'a>], slots: &[Slot<'s>]) -> Option<Named<'s, 'l, 'f, 'a>> {
    let plain = |layer: &Layer| layer.name.replace('/', "_");
    let theirs: HashSet<String> = layers.iter().chain(rest).map(|l| plain(l)).collect();
    let ours: Vec<&'s str> = slots.iter().map(|s| &*s.layer.name).filter(|name| numbered(name).is_none()).collect();
    let known = ours.iter().filter(|name| theirs.contains(**name)).count();
    if known * 10 < ours.len() * 8 || known == 0 {
        return None;
    }
    if let Some(name) = ours.iter().find(|name| !theirs.contains(**name)) {
        return Some(Named::Missing(name));
    }
    let foreign = |l: &&&Layer| !is_dense(l) && numbered(&l.name).is_none() && !ours.contains(&&*plain(l));
    layers.iter().chain(rest).find(foreign).map(|l| Named::Foreign(l))
}

fn fits(layer: &Layer, slot: &Slot) -> bool {
    layer.weights.len() == slot.parts.len() && layer.weights.iter().zip(&slot.parts).all(|(w, (_, shape))| w.shape() == shape.dims())
}

/// The shapes of a layer's weights, for an error.
pub fn shapes(layer: &Layer) -> String {
    layer.weights.iter().take(5).map(|w| format!("{:?}", w.shape())).collect::<Vec<_>>().join(", ")
}

fn wanted(slot: &Slot) -> String {
    slot.parts.iter().map(|(name, shape)| format!("{name} {:?}", shape.dims())).collect::<Vec<_>>().join(", ")
}

/// What a weight calls itself, if that is something else than what it would become.
fn contradicts<'n>(name: &'n str, part: &str) -> Option<&'n str> {
    const ROLES: [&str; 8] = ["kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "depthwise_kernel", "pointwise_kernel"];
    let role = name.rsplit('/').next()?;
    (ROLES.contains(&role) && role != part).then_some(role)
}

/// Layers whose names are the network's in another order, which would exchange layers of one shape without notice. Those that
/// nobody named carry the number of their creation, whose order is known.
fn misplaced(layers: &[&Layer], slots: &[Slot]) -> Option<String> {
    let theirs = ranks(layers.iter().map(|l| l.name.as_str()));
    let ours = ranks(slots.iter().map(|s| &*s.layer.name));
    let names: HashSet<&(String, usize)> = ours.values().collect();
    let differ = |(layer, slot): &(&&Layer, &Slot)| {
        let (found, expected) = (&theirs[layer.name.as_str()], &ours[&*slot.layer.name]);
        let both = |are: fn(Option<(&str, usize)>) -> bool| are(numbered(&layer.name)) && are(numbered(&slot.layer.name));
        found != expected && (both(|n| n.is_some()) || (both(|n| n.is_none()) && names.contains(found)))
    };
    let (layer, slot) = layers.iter().zip(slots).find(differ)?;
    Some(format!(
        "the file's layers stand in another order than the network's ({} where {} belongs); they are taken in file order, as Keras does",
        layer.name, slot.layer.name
    ))
}

impl Kind {
    /// The stem of automatic names.
    fn stem(self) -> &'static str {
        self.names().1
    }
}
