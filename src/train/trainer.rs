//! One model in training on one device: its programs and its weights.

use super::inference::{Inference, Watch};
use super::state::Saved;
use super::step::{Clip, gradient_graph, with_update};
use super::{Optimizer, fill};
use crate::base::Precision;
use crate::data::dataset::Dataset;
use crate::device::Arena;
use crate::error::{Error, Result};
use crate::exec::{Input, Passes, Program, Session};
use crate::metrics::argmax;
use crate::models::{Freeze, Model, Spec};
use crate::ops::Backend;
use crate::ops::sgd::KNOBS;
use crate::pass::plan::Options;
use crate::weights::{ModelFile, Request};
use std::collections::HashMap;
use std::sync::Arc;

/// What a batch brought.
#[derive(Clone, Debug)]
pub struct StepResult {
    /// Its share of the step's loss: the mean over the step's images is the sum over its batches.
    pub loss: f64,
    /// The largest magnitude among the gradients of the step so far.
    pub gradient: f64,
    /// Images whose most probable class is the true one.
    pub correct: usize,
}

impl StepResult {
    /// Whether loss and gradients are; otherwise the step was refused.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.gradient.is_finite()
    }
}

/// A batch's part in a step. Mostly it is the whole step; where gradients are accumulated, a step has several batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Images of the whole step.
    pub of: usize,
    /// Gradients replace those of the step before; those of later batches are added.
    pub first: bool,
    /// The weights change.
    pub last: bool,
}

impl Part {
    /// A step of one batch of `images`.
    pub fn whole(images: usize) -> Self {
        Part { of: images, first: true, last: true }
    }

    fn kind(self, batch: usize) -> Kind {
        Kind { batch, adds: !self.first, updates: self.last }
    }
}

/// What tells training programs apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    batch: usize,
    adds: bool,
    updates: bool,
}

/// Programs for every kind of batch over one set of weights.
pub struct Trainer<D: Backend> {
    pub session: Session<D>,
    pub inference: Inference<D>,
    spec: Spec,
    optimizer: Optimizer,
    clip: Clip,
    /// What a class's images count for in the loss.
    pub class_weights: Vec<f64>,
    /// What steps compute in; inference computes in f32, so that a run's own numbers are those of `evaluate`.
    precision: Precision,
    programs: HashMap<Kind, Program<D>>,
    /// Whether steps start at the features of a backbone that is wholly frozen.
    keep_features: bool,
    steps: usize,
    /// The moving statistics before a step of several batches, which change after each.
    undo: Option<Vec<u8>>,
}

impl<D: Backend> Trainer<D> {
    /// Plans the training of a model; `keep_features` starts the graph at the features of a wholly frozen backbone.
    ///
    /// # Errors
    /// When the model cannot be built.
    pub fn new(device: D, spec: Spec, optimizer: Optimizer, clip: Clip, keep_features: bool) -> Result<Self> {
        let inference = Inference::new(&spec);
        let session = Session::new(device)?;
        let class_weights = vec![1.0; spec.classes];
        Ok(Trainer {
            session,
            inference,
            spec,
            optimizer,
            clip,
            class_weights,
            precision: Precision::default(),
            programs: HashMap::new(),
            keep_features,
            steps: 0,
            undo: None,
        })
    }

    /// The same, with steps that compute in another precision.
    pub fn with_precision(self, precision: Precision) -> Self {
        Trainer { precision, ..self }
    }

    /// What is trained.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Whether steps start at features that are computed once.
    pub fn keeps_features(&self) -> bool {
        self.keeps_features_of(&self.spec)
    }

    fn keeps_features_of(&self, spec: &Spec) -> bool {
        self.keep_features && spec.freeze == Freeze::All
    }

    /// The model at a batch size.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn model(&self, batch: usize) -> Result<Model> {
        Spec { batch, ..self.spec.clone() }.build()
    }

    /// The training program for a batch of so many images, compiled when first needed.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn program(&mut self, batch: usize, part: Part) -> Result<&mut Program<D>> {
        let kind = part.kind(batch);
        if !self.programs.contains_key(&kind) {
            let program = self.compile(&self.spec, kind)?;
            self.programs.insert(kind, program);
        }
        Ok(self.programs.get_mut(&kind).expect("inserted above"))
    }

    /// Bytes of each arena for steps on batches of so many images, of which a step has one or several, with `freeze` standing still.
    ///
    /// # Errors
    /// When a program cannot be built.
    pub fn planned(&self, freeze: &Freeze, batch: usize, several: bool) -> Result<[usize; Arena::ALL.len()]> {
        let spec = Spec { freeze: freeze.clone(), ..self.spec.clone() };
        let kind = |adds, updates| Kind { batch, adds, updates };
        let kinds = if several { vec![kind(false, false), kind(true, true)] } else { vec![kind(false, true)] };
        let mut most = [0; Arena::ALL.len()];
        for kind in kinds {
            let known = self.programs.get(&kind).filter(|_| spec == self.spec);
            let bytes = known.map_or_else(|| Ok(self.compile(&spec, kind)?.plan().bytes), |program| Ok(program.plan().bytes))?;
            most.iter_mut().zip(bytes).for_each(|(most, bytes)| *most = bytes.max(*most));
        }
        Ok(most)
    }

    fn compile(&self, spec: &Spec, kind: Kind) -> Result<Program<D>> {
        let mut model = Spec { batch: kind.batch, ..spec.clone() }.build()?;
        if self.keeps_features_of(spec) {
            model.graph.cut("features")?;
        }
        let mut graph = gradient_graph(&model)?;
        if kind.updates {
            graph = with_update(graph, &self.optimizer, self.clip)?;
        }
        let plan = Options { accumulate: kind.adds, ..Options::default() };
        Program::compile(graph, self.session.device(), Passes { plan, precision: self.precision, ..Passes::default() })
    }

    /// Gives every weight its first value; returns what was kept of the file, as a sentence.
    ///
    /// # Errors
    /// When the file does not fit the model.
    pub fn start(&mut self, batch: usize, file: Option<&ModelFile>, classes: &[String], seed: u32) -> Result<String> {
        self.program(batch, Part::whole(batch))?;
        let hidden: Vec<String> = self.spec.hidden.iter().map(ToString::to_string).collect();
        let (program, backbone) = (&self.programs[&Part::whole(batch).kind(batch)], self.spec.backbone.name());
        let request = Request { backbone, graph: program.graph(), hidden: &hidden, classes };
        fill(&mut self.session, program, file.map(|f| (f, request)), u64::from(seed)).map(|filled| filled.sentence)
    }

    /// Goes on with the same weights and statistics, but another part of them standing still. The optimizer begins anew, as Keras's
    /// does when a model is compiled again.
    ///
    /// # Errors
    /// When the model cannot be built, or memory is short.
    pub fn thaw(&mut self, freeze: Freeze, batch: usize) -> Result<()> {
        self.spec.freeze = freeze;
        self.steps = 0;
        self.programs.clear();
        self.session.clear(Arena::Slots)?;
        let whole = Part::whole(batch);
        self.program(batch, whole)?;
        self.session.reserve(&self.programs[&whole.kind(batch)])
    }

    /// Takes weights, statistics and slots from a saved state.
    ///
    /// # Errors
    /// When the state is that of another model.
    pub fn restore(&mut self, batch: usize, saved: &Saved) -> Result<()> {
        let whole = Part::whole(batch);
        self.program(batch, whole)?;
        let program = &self.programs[&whole.kind(batch)];
        self.session.reserve(program)?;
        for (arena, bytes) in saved.arenas(program.graph(), self.optimizer.slots())? {
            self.session.set_bytes(arena, &bytes)?;
        }
        self.steps = saved.state.optimizer_steps;
        Ok(())
    }

    /// Steps that the optimizer has counted.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Copies of the trainable range that the optimizer keeps.
    pub fn slots(&self) -> usize {
        self.optimizer.slots()
    }

    /// A batch's part of a step: `x` is pixels `[n, s, s, 3]` or features `[n, c]`. The gradient of a step is that of the mean loss
    /// over all its images, whatever the sizes of its batches: an image's weight in the mean over its batch is `n / of` times its
    /// class's. Batch norm's statistics are those of each batch.
    ///
    /// A step whose loss or gradient is not finite, or that `go_on` (asked before each row) puts an end to, changes nothing: weights,
    /// statistics, slots and the count of steps are as before its first batch.
    ///
    /// # Errors
    /// When memory is short, or the step was put an end to.
    pub fn step(&mut self, x: Input<'_>, labels: &[usize], part: Part, lr: f64, go_on: &dyn Fn() -> bool) -> Result<StepResult> {
        self.step_while(x, labels, part, lr, go_on, |_| Ok(()))
    }

    /// As [`Trainer::step`]; `meanwhile` is called once the device has been told to compute.
    ///
    /// # Errors
    /// As [`Trainer::step`], and those of `meanwhile`, after which nothing has changed either.
    pub fn step_while(
        &mut self,
        x: Input<'_>,
        labels: &[usize],
        part: Part,
        lr: f64,
        go_on: &dyn Fn() -> bool,
        meanwhile: impl FnOnce(&mut Session<D>) -> Result<()>,
    ) -> Result<StepResult> {
        if part.first && !part.last {
            let (session, program) = self.weights()?;
            self.undo = Some(session.bytes(program, Arena::State)?);
        }
        let (session, program) = self.feed(x, labels, part, lr)?;
        let mut found = StepResult { loss: f64::NAN, gradient: f64::NAN, correct: 0 };
        let accepted = session.attempt(program, go_on, |session, program| {
            meanwhile(session)?;
            let [loss, largest, probabilities] = session.get_all(program, ["loss", "largest", "probabilities"])?;
            (found.loss, found.gradient) = (loss[0], largest[0]);
            let rows = probabilities.chunks(probabilities.len() / labels.len()).zip(labels);
            found.correct = rows.filter(|(p, label)| argmax(p) == **label).count();
            Ok(found.is_finite())
        });
        match (&accepted, self.undo.take_if(|_| part.last || !matches!(accepted, Ok(true)))) {
            (Ok(true), _) => self.steps += usize::from(part.last),
            (_, Some(statistics)) => self.session.set_bytes(Arena::State, &statistics)?,
            _ => {}
        }
        accepted.map(|_| found)
    }

    /// Puts a batch where the program for it reads it.
    pub(super) fn feed(&mut self, x: Input<'_>, labels: &[usize], part: Part, lr: f64) -> Result<(&mut Session<D>, &mut Program<D>)> {
        let (n, classes) = (labels.len(), self.spec.classes);
        let input = if self.keeps_features() { "features" } else { "pixels" };
        let mut targets = vec![0f32; n * classes];
        labels.iter().enumerate().for_each(|(i, &label)| targets[i * classes + label] = 1.0);
        let share = n as f64 / part.of as f64;
        let weights: Vec<f64> = labels.iter().map(|&label| share * self.class_weights[label]).collect();
        // In f64, so that the specification's step is not the f32 learning rate's.
        let mut knobs = [0f64; KNOBS];
        (knobs[0], knobs[1]) = (lr, (self.steps + 1) as f64);
        self.program(n, part)?;
        let (session, program) = (&mut self.session, self.programs.get_mut(&part.kind(n)).expect("compiled above"));
        session.reserve(program)?;
        if part.last {
            session.set(program, "knobs", &knobs[..])?;
        }
        session.feed(program, input, x)?;
        session.set(program, "weights", &weights[..])?;
        session.set(program, "targets", &targets[..])?;
        Ok((session, program))
    }

    /// Logits of images, in inference mode, row by row.
    ///
    /// # Errors
    /// When memory is short.
    pub fn logits(&mut self, data: &Arc<Dataset>, indices: &[usize], batch: usize, watch: Watch) -> Result<Vec<f64>> {
        self.inference.images(&mut self.session, "logits", data, indices, batch, watch)
    }

    /// Logits of features that were kept.
    ///
    /// # Errors
    /// When memory is short.
    pub fn head(&mut self, features: &[f64]) -> Result<Vec<f64>> {
        self.inference.head(&mut self.session, features)
    }

    /// The session with a program that knows where every weight and every slot lies.
    ///
    /// # Errors
    /// When no step was ever planned.
    pub fn weights(&self) -> Result<(&Session<D>, &Program<D>)> {
        let program = self.programs.iter().find(|(kind, _)| kind.updates).ok_or_else(|| Error::internal("nothing was planned"))?.1;
        Ok((&self.session, program))
    }
}
