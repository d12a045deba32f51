//! `state.safetensors`: everything that a run needs to go on, of one moment, in one file.
//!
//! Weights, moving statistics and optimizer slots are tensors, as are the losses of all steps; counters, history and what the
//! weights expect of the network are a TOML text in the metadata (TOML, unlike JSON, keeps every f64 exactly, and infinities).
//! Because the weights are part of it, no kill between two files can pair a state with the weights of another moment. A digest
//! over all of it tells a damaged file from a good one. Nothing random is kept: every draw is a function of seed, epoch and image.

use super::position::Position;
use super::settings::Settings;
use super::trainer::Trainer;
use crate::base::DType;
use crate::device::Arena;
use crate::error::{Error, Result};
use crate::ir::Graph;
use crate::ops::Backend;
use crate::weights::{Entry, Profile, TensorFile, save_tensors};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// The version of [`State`] that this program writes and reads.
const VERSION: u32 = 1;

/// The tensor of all steps' losses.
const LOSSES: &str = "losses";

/// A run's state besides its tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// See [`VERSION`].
    pub version: u32,
    /// The device with what was found out about the machine.
    pub device: String,
    /// Steps that the optimizer has counted.
    pub optimizer_steps: usize,
    pub settings: Settings,
    pub profile: Profile,
    /// What stands still; the slots are those of the rest.
    pub freeze: String,
    /// In the order of their labels.
    pub classes: Vec<String>,
    pub class_weights: Vec<f64>,
    pub position: Position,
}

/// A state that was read, with the file that holds its tensors.
pub struct Saved {
    pub state: State,
    file: TensorFile,
}

/// One tensor of a state: name, elements per axis, bytes in its arena.
struct Part {
    arena: Arena,
    name: String,
    shape: Vec<usize>,
    bytes: usize,
}

/// All tensors of a training graph that change: the arenas of weights, statistics and slots, from their beginnings and without
/// gaps.
fn parts(graph: &Graph, slots: usize) -> Vec<Part> {
    let part = |arena, prefix: &str, v| {
        let ty = graph.ty(v);
        Part { arena, name: format!("{prefix}{}", graph.name(v)), shape: ty.shape.dims().to_vec(), bytes: ty.bytes() }
    };
    let mut parts: Vec<Part> = graph.params.iter().map(|&v| part(Arena::Params, "", v)).collect();
    parts.extend(graph.states.iter().map(|&v| part(Arena::State, "", v)));
    for slot in 0..slots {
        let prefix = format!("slot{slot}/");
        parts.extend(graph.trainables().map(|v| part(Arena::Slots, &prefix, v)));
    }
    parts
}

impl State {
    /// The state of a run at `position`.
    pub fn of<D: Backend>(settings: &Settings, classes: &[String], trainer: &Trainer<D>, position: &Position) -> Self {
        State {
            version: VERSION,
            device: trainer.session.device().describe(),
            optimizer_steps: trainer.steps(),
            settings: settings.clone(),
            profile: trainer.spec().profile,
            freeze: trainer.spec().freeze.to_string(),
            classes: classes.to_vec(),
            class_weights: trainer.class_weights.clone(),
            position: position.clone(),
        }
    }

    /// Writes the state with the trainer's weights.
    ///
    /// # Errors
    /// A number that is not finite, or what the disk says; the file before it then stays.
    pub fn save<D: Backend>(&self, path: &Path, trainer: &Trainer<D>) -> Result<()> {
        let (session, program) = trainer.weights()?;
        let read = |arena| Ok((arena, session.bytes(program, arena)?));
        let arenas = [read(Arena::Params)?, read(Arena::State)?, read(Arena::Slots)?];
        let parts = parts(program.graph(), trainer.slots());
        let count = [self.position.losses.len()];
        let losses: Vec<u8> = self.position.losses.iter().flat_map(|x| x.to_le_bytes()).collect();
        let (mut rest, dtype) = (arenas.each_ref().map(|(arena, bytes)| (*arena, &bytes[..])), program.graph().dtype());
        let mut entries = Vec::new();
        for part in &parts {
            let (_, left) = rest.iter_mut().find(|(arena, _)| *arena == part.arena).expect("one of the three");
            let (bytes, after) = left.split_at(part.bytes);
            *left = after;
            entries.push((Entry { name: &part.name, shape: &part.shape, bytes }, dtype));
        }
        entries.push((Entry { name: LOSSES, shape: &count, bytes: &losses }, DType::F64));
        let text = toml::to_string(self).map_err(|e| Error::internal(e.to_string()))?;
        let sha256 = digest(&text, entries.iter().map(|(entry, _)| entry.bytes));
        save_tensors(path, &[("state", &text), ("sha256", &sha256)], entries)
    }
}

impl Saved {
    /// Reads a state and proves it whole.
    ///
    /// # Errors
    /// A file that is damaged, is no state, or was written by a newer program.
    pub fn open(path: &Path) -> Result<Self> {
        let lost = "the state is lost; best.safetensors and last.safetensors may still be good: `defrost train --weights` starts from them";
        let wrong = |what: String| Error::input(what).at(path.display()).advise(lost);
        let file = TensorFile::open(path).map_err(|e| e.advise(lost))?;
        let (Some(text), Some(sha256)) = (file.metadata("state"), file.metadata("sha256")) else {
            return Err(wrong("is not the state of a run".into()));
        };
        let tensors = file.names().iter().map(|name| file.tensor(name)).collect::<Result<Vec<_>>>()?;
        if digest(text, tensors.iter().map(|t| t.bytes)) != sha256 {
            return Err(wrong("is damaged: its contents do not have the digest that was written with them".into()));
        }
        let mut state: State = toml::from_str(text).map_err(|e| wrong(format!("was written by another version of defrost: {e}")))?;
        if state.version > VERSION {
            return Err(wrong(format!("was written by a newer defrost (format {}, this program knows {VERSION})", state.version)));
        }
        let losses = file.tensor(LOSSES)?;
        state.position.losses = losses.bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        Ok(Saved { state, file })
    }

    /// The contents of the arenas of weights, statistics and slots for a program with this graph.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape or number type than the graph's.
    pub fn arenas(&self, graph: &Graph, slots: usize) -> Result<[(Arena, Vec<u8>); 3]> {
        let mut arenas = [Arena::Params, Arena::State, Arena::Slots].map(|arena| (arena, Vec::new()));
        for part in parts(graph, slots) {
            let tensor = self.file.tensor(&part.name)?;
            if tensor.shape != part.shape || tensor.dtype != graph.dtype() {
                let what = format!("is {:?} of {}, the run's model has {:?} of {}", tensor.shape, tensor.dtype, part.shape, graph.dtype());
                return Err(self.file.error(&part.name, what));
            }
            let (_, bytes) = arenas.iter_mut().find(|(arena, _)| *arena == part.arena).expect("one of the three");
            bytes.extend_from_slice(tensor.bytes);
        }
        Ok(arenas)
    }
}

/// SHA-256 of a text and all tensors' bytes, in hex.
fn digest<'a>(text: &str, tensors: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    hash.update(text);
    tensors.for_each(|bytes| hash.update(bytes));
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
