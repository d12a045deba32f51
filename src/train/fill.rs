//! The first weights of a session: a file's own pages where they can be, copies where they cannot, new ones where the file has none.

use crate::base::{DType, Val};
use crate::device::Arena;
use crate::error::Result;
use crate::exec::{Program, Session};
use crate::ir::{Graph, Role};
use crate::ops::Backend;
use crate::weights::{Draw, Matched, ModelFile, Request, Source, Tensor};

/// How a session got its weights.
#[derive(Clone, Debug)]
pub struct Filled {
    /// What was kept of the file, as a sentence.
    pub sentence: String,
    /// Whether weights of a file are its own pages, of which only those are copied that change.
    pub mapped: bool,
}

/// Fills a session with the weights of a program: from a file, or all new.
///
/// # Errors
/// When the file holds another network, or a tensor of it is missing or has the wrong shape; too little memory.
pub fn fill<D: Backend>(session: &mut Session<D>, program: &Program<D>, file: Option<(&ModelFile, Request)>, seed: u64) -> Result<Filled> {
    let graph: &Graph = program.graph();
    let fresh = graph.params.iter().chain(&graph.states).map(|&v| match graph.role(v) {
        Role::Param { init, .. } | Role::State { init } => (v, Source::New(init)),
        _ => unreachable!("parameters and states have these roles"),
    });
    let (sources, sentence, mapped) = match file {
        None => (fresh.collect(), "all weights are new".to_string(), false),
        Some((file, request)) => {
            let matched = file.match_graph(request)?;
            let mapped = map(session, program, file, &matched);
            (matched.sources, matched.sentence, mapped)
        }
    };
    session.reserve(program)?;
    for (v, source) in sources {
        let name = graph.name(v);
        match source {
            Source::File(_) if mapped => {}
            Source::File(tensor) => {
                let wide: Vec<f64> = bytemuck::pod_collect_to_vec(&tensor.bytes_as(DType::F64));
                session.set(program, name, &wide[..])?;
            }
            Source::New(init) => {
                let draw = Draw::new(seed, name, init);
                let values: Vec<f32> = (0..graph.ty(v).shape.len()).map(|i| draw.at(i)).collect();
                session.set(program, name, &values[..])?;
            }
        }
    }
    Ok(Filled { sentence, mapped })
}

/// Makes the file's pages the arenas of parameters and moving statistics, with zeros where new ones go. That works where the file
/// is the arenas' image up to there: tensors in graph order without gaps, in the number type that the program runs in, the first
/// at a multiple of 64 bytes.
fn map<D: Backend>(session: &mut Session<D>, program: &Program<D>, file: &ModelFile, matched: &Matched) -> bool {
    let (params, states) = matched.sources.split_at(program.graph().params.len());
    let mut maps = Vec::new();
    for (arena, sources) in [(Arena::Params, params), (Arena::State, states)] {
        if sources.is_empty() {
            continue;
        }
        let size = program.plan().bytes[arena.index()];
        let Some((offset, bytes)) = image(program, sources).filter(|(_, bytes)| *bytes <= size) else { return false };
        if arena == Arena::Params && !offset.is_multiple_of(64) {
            return false;
        }
        let Some(memory) = session.device().map(file.tensors().file(), offset, bytes, size) else { return false };
        maps.push((arena, memory));
    }
    maps.into_iter().for_each(|(arena, memory)| session.install(arena, memory));
    true
}

/// The part of the file, as offset and bytes, that is the arena's image as far as the file goes; what is new must come after it.
fn image<D: Backend>(program: &Program<D>, sources: &[(Val, Source)]) -> Option<(usize, usize)> {
    let tensor = |source: &Source| -> Option<(usize, usize, DType)> {
        let Source::File(Tensor { offset, bytes, dtype, .. }) = source else { return None };
        Some((*offset, bytes.len(), *dtype))
    };
    let (first, ..) = tensor(&sources.first()?.1)?;
    let mut end = first;
    for (v, source) in sources {
        let Some((offset, bytes, dtype)) = tensor(source) else { continue };
        let place = program.plan().places[v.index()]?;
        if offset != end || offset - first != place.offset || dtype != program.graph().ty(*v).dtype {
            return None;
        }
        end += bytes;
    }
    Some((first, end - first))
}
