//! Runs planned programs: a [`Session`] owns a device and its arenas, a [`Program`] is a plan ready to be replayed.
//!
//! Several programs (a batch size each, training and inference) share the arenas of one session, so that weights exist
//! once. Nothing is allocated and nothing is decided while a program runs: it walks its steps.

use crate::base::{DType, Ty, Val};
use crate::device::{Arena, Arenas, Call, Place};
use crate::error::{Error, Result};
use crate::ir::{Graph, Phase, Role, check};
use crate::ops::Backend;
use crate::pass::plan::{Options, Plan, Step, plan};
use crate::pass::{Fusions, fuse, precision};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A graph with its plan, compiled for a kind of device.
pub struct Program<D> {
    graph: Graph,
    plan: Plan,
    id: u64,
    /// The versions of the weights that this program's packed weights were made from.
    packed: (u64, u64),
    /// Whether a run changes parameters.
    trains: bool,
    /// The first of the steps at the end that only replace weights, statistics and slots.
    updates: usize,
    device: PhantomData<D>,
}

/// Which passes run on the way from a model's graph to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    pub fusions: Fusions,
    pub plan: Options,
}

impl Default for Passes {
    fn default() -> Self {
        Passes { fusions: Fusions::ALL, plan: Options::default() }
    }
}

impl<D: Backend> Program<D> {
    /// Compiles a graph: chooses the device's number type, fuses, plans, and checks after each pass.
    ///
    /// # Errors
    /// When the device cannot run the number type, or (a defect) a check fails.
    pub fn compile(graph: Graph, device: &D, passes: Passes) -> Result<Self> {
        check(&graph)?;
        let Fusions { pre, past, .. } = passes.fusions;
        let able = device.normalises_inputs();
        let fusions = Fusions { pre: pre && able, past: past && able, ..passes.fusions };
        let graph = fuse(precision(graph, device.float())?, fusions)?;
        let plan = plan(&graph, &|op, ins, outs| (device.scratch(op, ins, outs), device.derived(op, ins, outs)), passes.plan)?;
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let updates = |v: &crate::base::Val| matches!(graph.role(*v), Role::Update { of } if !graph.states.contains(&of));
        let trains = graph.nodes.iter().any(|n| n.phase == Phase::Update && n.outs.iter().any(updates));
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let updates = plan.steps.iter().rposition(|s| s.phase != Phase::Update).map_or(0, |last| last + 1);
        Ok(Program { graph, plan, id, packed: (0, 0), trains, updates, device: PhantomData })
    }

    /// The graph after all passes.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The steps, in the order in which they run.
    pub fn steps(&self) -> &[Step] {
        &self.plan.steps
    }

    fn place(&self, v: Val) -> Result<(Ty, Place)> {
        let place = self.plan.places[v.index()];
        Ok((self.graph.ty(v), place.ok_or_else(|| Error::internal(format!("{v} has no place")).at(self.graph.name(v)))?))
    }

    /// The type and place of a named input, parameter or state.
    fn named(&self, name: &str) -> Result<(Ty, Place)> {
        let v = self.graph.named(name).ok_or_else(|| Error::internal(format!("the program has no input or parameter {name:?}")))?;
        self.place(v)
    }
}

/// Numbers on their way to a device.
#[derive(Clone, Copy, Debug)]
pub enum Host<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

impl Host<'_> {
    fn len(&self) -> usize {
        match self {
            Host::F32(x) => x.len(),
            Host::F64(x) => x.len(),
        }
    }

    /// The bytes of these numbers as elements of `dtype`.
    fn bytes(&self, dtype: DType) -> Vec<u8> {
        match (self, dtype) {
            (Host::F32(x), DType::F32) => bytemuck::cast_slice(x).to_vec(),
            (Host::F64(x), DType::F64) => bytemuck::cast_slice(x).to_vec(),
            (Host::F32(x), DType::F64) => x.iter().flat_map(|&x| f64::from(x).to_ne_bytes()).collect(),
            (Host::F64(x), DType::F32) => x.iter().flat_map(|&x| (x as f32).to_ne_bytes()).collect(),
            (Host::F32(x), DType::Bf16) => x.iter().flat_map(|&x| half::bf16::from_f32(x).to_ne_bytes()).collect(),
            (Host::F64(x), DType::Bf16) => x.iter().flat_map(|&x| half::bf16::from_f64(x).to_ne_bytes()).collect(),
        }
    }
}

impl<'a> From<&'a [f32]> for Host<'a> {
    fn from(x: &'a [f32]) -> Self {
        Host::F32(x)
    }
}

impl<'a> From<&'a [f64]> for Host<'a> {
    fn from(x: &'a [f64]) -> Self {
        Host::F64(x)
    }
}

/// A device, its arenas, and the versions of what lies in them.
pub struct Session<D: Backend> {
    device: D,
    arenas: Arenas<D>,
    /// Counts the writes of parameters from the host.
    loaded: u64,
    /// Counts the runs that changed parameters.
    trained: u64,
    /// The program whose packed weights lie in [`Arena::Derived`].
    packed_for: u64,
}

/// Called after each step of a timed run.
pub type Hook<'a> = dyn FnMut(&Step, Duration) + 'a;

impl<D: Backend> Session<D> {
    /// A session with empty arenas.
    ///
    /// # Errors
    /// When the device has no memory at all.
    pub fn new(device: D) -> Result<Self> {
        let arenas = Arenas::new(&device)?;
        Ok(Session { device, arenas, loaded: 1, trained: 1, packed_for: 0 })
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device again; the arenas are given back.
    pub fn into_device(self) -> D {
        self.device
    }

    /// Makes the arenas large enough for a program. Weights keep what they hold: all programs of a session have the same.
    ///
    /// # Errors
    /// When the machine does not have the memory.
    pub fn reserve(&mut self, program: &Program<D>) -> Result<()> {
        for arena in Arena::ALL {
            let bytes = program.plan.bytes[arena.index()];
            let held = self.device.size(self.arenas.get(arena));
            if held >= bytes {
                continue;
            }
            if held > 0 && matches!(arena, Arena::Params | Arena::State | Arena::Slots) {
                return Err(Error::internal(format!("a program wants {bytes} bytes of {arena:?}, the session has {held}")));
            }
            self.arenas.ensure(&self.device, arena, bytes)?;
            if arena == Arena::Derived {
                self.packed_for = 0;
            }
        }
        Ok(())
    }

    /// Puts memory in the place of an arena: a private map of a weight file as [`Arena::Params`].
    pub fn install(&mut self, arena: Arena, memory: D::Memory) {
        self.arenas.install(arena, memory);
        self.loaded += 1;
    }

    /// Empties an arena; what it held is lost, and [`Session::reserve`] makes it anew, all zeros.
    ///
    /// # Errors
    /// When the device has no memory at all.
    pub fn clear(&mut self, arena: Arena) -> Result<()> {
        self.arenas.install(arena, self.device.alloc(0)?);
        Ok(())
    }

    /// Writes a named input, parameter or state of a program, in row-major order.
    ///
    /// # Errors
    /// When the program has no such value, or another number of elements.
    pub fn set<'a>(&mut self, program: &Program<D>, name: &str, data: impl Into<Host<'a>>) -> Result<()> {
        let (ty, place) = program.named(name)?;
        let data = data.into();
        if data.len() != ty.shape.len() {
            return Err(Error::internal(format!("has {} elements, {} were given", ty.shape, data.len())).at(name));
        }
        if matches!(place.arena, Arena::Params) {
            self.loaded += 1;
        }
        let bytes = data.bytes(ty.dtype);
        let row = ty.shape.cols() * ty.dtype.size();
        for (r, row) in bytes.chunks(row).enumerate() {
            self.device.write(self.arenas.get_mut(place.arena), place.offset + r * place.pitch * ty.dtype.size(), row);
        }
        Ok(())
    }

    /// Reads a named output, input, parameter or state of a program, in row-major order.
    ///
    /// # Errors
    /// When the program has no such value.
    pub fn get(&self, program: &Program<D>, name: &str) -> Result<Vec<f64>> {
        let (ty, place) = match program.graph.output(name) {
            Some(v) => program.place(v)?,
            None => program.named(name)?,
        };
        Ok(self.fetch(ty, place))
    }

    /// Reads any value of a program that has a place, as it stands now; a temporary may have been overwritten since.
    ///
    /// # Errors
    /// When the plan gave it no place.
    pub fn value(&self, program: &Program<D>, v: Val) -> Result<Vec<f64>> {
        let (ty, place) = program.place(v)?;
        Ok(self.fetch(ty, place))
    }

    fn fetch(&self, ty: Ty, place: Place) -> Vec<f64> {
        let size = ty.dtype.size();
        let mut row = vec![0u8; ty.shape.cols() * size];
        let mut out = Vec::with_capacity(ty.shape.len());
        for r in 0..ty.shape.rows() {
            self.device.read(self.arenas.get(place.arena), place.offset + r * place.pitch * size, &mut row);
            out.extend(numbers(&row, ty.dtype));
        }
        out
    }

    /// The bytes of an arena from the start, as far as a program knows it.
    pub fn bytes(&self, program: &Program<D>, arena: Arena) -> Vec<u8> {
        let mut bytes = vec![0; program.plan.bytes[arena.index()]];
        self.device.read(self.arenas.get(arena), 0, &mut bytes);
        bytes
    }

    /// Overwrites an arena from the start: the state of an optimizer, all parameters at once.
    ///
    /// # Errors
    /// When there are more bytes than the arena has.
    pub fn set_bytes(&mut self, arena: Arena, bytes: &[u8]) -> Result<()> {
        let held = self.device.size(self.arenas.get(arena));
        if bytes.len() > held {
            return Err(Error::internal(format!("{} bytes do not fit {arena:?} of {held}", bytes.len())));
        }
        self.device.write(self.arenas.get_mut(arena), 0, bytes);
        self.loaded += 1;
        Ok(())
    }

    /// Feeds inputs and runs.
    ///
    /// # Errors
    /// When an input is unknown or of the wrong size, or memory is short.
    pub fn run(&mut self, program: &mut Program<D>, inputs: &[(&str, &[f32])]) -> Result<()> {
        self.reserve(program)?;
        for &(name, data) in inputs {
            self.set(program, name, data)?;
        }
        self.replay(program, None);
        Ok(())
    }

    /// Runs the steps on what lies in the arenas; `hook` sees each step with its time.
    ///
    /// # Panics
    /// If the program was never reserved for.
    pub fn replay(&mut self, program: &mut Program<D>, mut hook: Option<&mut Hook>) {
        let stale = self.stale(program);
        for step in &program.plan.steps {
            let start = hook.is_some().then(Instant::now);
            self.step(step, stale);
            if let (Some(start), Some(hook)) = (start, hook.as_deref_mut()) {
                hook(step, start.elapsed());
            }
        }
        self.ran(program);
    }

    /// Runs a training step that can be refused until it changes something: `go_on` is asked before each row, and between the last
    /// row that computes and the first that replaces weights, statistics or slots, `accept` looks at the results. Returns whether they
    /// were accepted; if not, all of these are as they were, and only temporaries and gradients are not.
    ///
    /// # Errors
    /// An interruption if `go_on` says no, or the error of `accept`; either is a refusal.
    pub fn attempt(
        &mut self,
        program: &mut Program<D>,
        go_on: &dyn Fn() -> bool,
        accept: impl FnOnce(&Self, &Program<D>) -> Result<bool>,
    ) -> Result<bool> {
        let stale = self.stale(program);
        let (compute, update) = program.plan.steps.split_at(program.updates);
        if let Some(early) = compute.iter().find(|s| s.phase == Phase::Update) {
            return Err(Error::internal("replaces something before the last row that computes").at(&early.layer));
        }
        // Whatever becomes of the attempt: the packed weights of another program may be gone.
        self.packed_for = 0;
        for step in compute {
            if !go_on() {
                return Err(Error::interrupted("in the middle of a step, which is undone"));
            }
            self.step(step, stale);
        }
        if !accept(self, program)? {
            return Ok(false);
        }
        update.iter().for_each(|step| self.step(step, stale));
        self.ran(program);
        Ok(true)
    }

    /// Runs the rows that compute, one by one, up to the first with a result that is not finite, and returns that row.
    pub fn first_not_finite<'a>(&mut self, program: &'a Program<D>) -> Option<&'a Step> {
        self.packed_for = 0;
        program.plan.steps[..program.updates].iter().find(|step| {
            self.step(step, true);
            step.outs.iter().any(|out| !self.is_finite(out.ty, out.place))
        })
    }

    /// The first parameter or moving statistic that holds a number that is not finite.
    pub fn weights_not_finite<'a>(&self, program: &'a Program<D>) -> Option<&'a str> {
        let graph = &program.graph;
        let spoilt = |v: &&Val| program.place(**v).is_ok_and(|(ty, place)| !self.is_finite(ty, place));
        graph.params.iter().chain(&graph.states).find(spoilt).map(|v| graph.name(*v))
    }

    fn is_finite(&self, ty: Ty, place: Place) -> bool {
        let size = ty.dtype.size();
        let mut row = vec![0u8; ty.shape.cols() * size];
        (0..ty.shape.rows()).all(|r| {
            self.device.read(self.arenas.get(place.arena), place.offset + r * place.pitch * size, &mut row);
            numbers(&row, ty.dtype).all(f64::is_finite)
        })
    }

    /// Whether the packed weights that a program keeps must be rebuilt.
    fn stale(&self, program: &Program<D>) -> bool {
        self.packed_for != program.id || program.packed != (self.loaded, self.trained)
    }

    /// Runs one step, its packed weights rebuilt before if they are stale, or not kept from one run to the next.
    fn step(&self, step: &Step, stale: bool) {
        let Step { op, ins, outs, scratch, derived, .. } = step;
        let call = Call { device: &self.device, arenas: &self.arenas, ins, outs, scratch: *scratch, derived: *derived };
        if derived.is_some_and(|(arena, ..)| stale || arena == Arena::Temps) {
            D::prepare(op, &call);
        }
        D::run(op, &call);
    }

    /// Notes that all steps of a program ran.
    fn ran(&mut self, program: &mut Program<D>) {
        // What a program trains, it packs anew for every run; what it keeps is packed from weights that it leaves as they are.
        self.trained += u64::from(program.trains);
        program.packed = (self.loaded, self.trained);
        self.packed_for = program.id;
    }
}

/// The numbers that bytes of the device hold.
fn numbers(bytes: &[u8], dtype: DType) -> impl Iterator<Item = f64> + '_ {
    bytes.chunks(dtype.size()).map(move |b| match dtype {
        DType::F64 => f64::from_ne_bytes(b.try_into().expect("eight bytes")),
        DType::F32 => f64::from(f32::from_ne_bytes(b.try_into().expect("four bytes"))),
        DType::Bf16 => half::bf16::from_ne_bytes(b.try_into().expect("two bytes")).to_f64(),
    })
}
