//! Forward passes over many images: validation, `evaluate`, `predict`, cached features.

use crate::base::DType;
use crate::data::batches::Batches;
use crate::data::dataset::Dataset;
use crate::device::Arena;
use crate::error::Result;
use crate::exec::{Passes, Program, Session};
use crate::ir::{Graph, Role};
use crate::models::{Purpose, Spec};
use crate::ops::Backend;
use crate::weights::{Draw, ModelFile, Request, Source};
use std::collections::HashMap;
use std::sync::Arc;

/// The inference programs of one model, one per batch size, compiled when first needed.
pub struct Inference<D: Backend> {
    spec: Spec,
    passes: Passes,
    programs: HashMap<usize, Program<D>>,
    /// The head alone, by the number of feature rows.
    heads: HashMap<usize, Program<D>>,
}

impl<D: Backend> Inference<D> {
    /// Inference of the model that `spec` describes, whatever its purpose and batch size.
    pub fn new(spec: &Spec) -> Self {
        let spec = Spec { purpose: Purpose::Infer, ..spec.clone() };
        Inference { spec, passes: Passes::default(), programs: HashMap::new(), heads: HashMap::new() }
    }

    /// The program for batches of `batch` images.
    ///
    /// # Errors
    /// When the model cannot be built at this size.
    pub fn program(&mut self, device: &D, batch: usize) -> Result<&mut Program<D>> {
        if !self.programs.contains_key(&batch) {
            let program = self.compile(device, batch)?;
            self.programs.insert(batch, program);
        }
        Ok(self.programs.get_mut(&batch).expect("inserted above"))
    }

    /// Bytes of each arena for batches of `batch` images.
    ///
    /// # Errors
    /// When the model cannot be built at this size.
    pub fn planned(&self, device: &D, batch: usize) -> Result<[usize; Arena::ALL.len()]> {
        match self.programs.get(&batch) {
            Some(program) => Ok(program.plan().bytes),
            None => Ok(self.compile(device, batch)?.plan().bytes),
        }
    }

    fn compile(&self, device: &D, batch: usize) -> Result<Program<D>> {
        let graph = Spec { batch, ..self.spec.clone() }.build()?.graph;
        Program::compile(graph, device, self.passes)
    }

    /// The output `name` (`features`, `logits`, `probabilities`) of one batch of pixels `[n, s, s, 3]`, row by row.
    ///
    /// # Errors
    /// When memory is short.
    pub fn batch(&mut self, session: &mut Session<D>, name: &str, pixels: &[f32]) -> Result<Vec<f64>> {
        let image = self.spec.size * self.spec.size * 3;
        let program = self.program(session.device(), pixels.len() / image)?;
        session.run(program, &[("pixels", pixels)])?;
        session.get(program, name)
    }

    /// The logits of features `[n, c]` that were computed before.
    ///
    /// # Errors
    /// When the model cannot be built, or memory is short.
    pub fn head(&mut self, session: &mut Session<D>, features: &[f64]) -> Result<Vec<f64>> {
        let batch = features.len() / self.spec.backbone.channels();
        if !self.heads.contains_key(&batch) {
            let mut graph = Spec { batch, ..self.spec.clone() }.build()?.graph;
            graph.cut("features")?;
            self.heads.insert(batch, Program::compile(graph, session.device(), self.passes)?);
        }
        let program = self.heads.get_mut(&batch).expect("inserted above");
        session.reserve(program)?;
        session.set(program, "features", features)?;
        session.replay(program, None)?;
        session.get(program, "logits")
    }

    /// The output `name` of the images `indices` of a data set, in their order, in batches of `batch`; `progress(done)`
    /// counts images, and ends the pass with its error.
    ///
    /// # Errors
    /// When memory is short.
    pub fn images(
        &mut self,
        session: &mut Session<D>,
        name: &str,
        data: &Arc<Dataset>,
        indices: &[usize],
        batch: usize,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<f64>> {
        let (mut rows, mut done) = (Vec::new(), 0);
        let mut batches = Batches::new(data.clone(), indices.to_vec(), batch)?;
        while let Some(batch) = batches.next() {
            rows.extend(self.batch(session, name, &batch.pixels)?);
            done += batch.len();
            progress(done)?;
            batches.reuse(batch);
        }
        Ok(rows)
    }
}

/// Fills a session with the weights of a program: from a file, or all new. Returns what was kept, as a sentence.
///
/// # Errors
/// When the file holds another network, or a tensor of it is missing or has the wrong shape.
pub fn fill<D: Backend>(session: &mut Session<D>, program: &Program<D>, file: Option<(&ModelFile, Request)>, seed: u64) -> Result<String> {
    session.reserve(program)?;
    let graph: &Graph = program.graph();
    let fresh = graph.params.iter().chain(&graph.states).map(|&v| match graph.role(v) {
        Role::Param { init, .. } | Role::State { init } => (v, Source::New(init)),
        _ => unreachable!("parameters and states have these roles"),
    });
    let (sources, sentence) = match file {
        None => (fresh.collect(), "all weights are new".to_string()),
        Some((file, request)) => {
            let matched = file.match_graph(request)?;
            (matched.sources, matched.sentence)
        }
    };
    for (v, source) in sources {
        let name = graph.name(v);
        match source {
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
    Ok(sentence)
}
