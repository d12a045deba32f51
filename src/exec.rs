//! Runs planned programs: a [`Session`] owns a device and its arenas, a [`Program`] is a plan ready to be replayed.
//!
//! Several programs (a batch size each, training and inference) share the arenas of one session, so that weights exist
//! once. Nothing is allocated and nothing is decided while a program runs: it walks its steps.

mod host;
mod inputs;
mod replay;

use crate::base::{DType, Precision, Ty, Val};
use crate::device::{Arena, Arenas, Device, Place};
use crate::error::{Error, Result};
use crate::ir::{Graph, Phase, Role, check};
use crate::ops::Backend;
use crate::pass::plan::{Options, Plan, Step, plan};
use crate::pass::{Fusions, fuse, precision};
pub use host::Host;
use host::numbers;
use inputs::Inputs;
pub use inputs::{Input, Sent};
use replay::Recorded;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A graph with its plan, compiled for a kind of device.
pub struct Program<D: Device> {
    graph: Graph,
    plan: Plan,
    precision: Precision,
    id: u64,
    /// The versions of the weights that this program's packed weights were made from.
    packed: (u64, u64),
    /// Whether a run changes parameters.
    trains: bool,
    /// The first of the steps at the end that only replace weights, statistics and slots.
    updates: usize,
    /// The steps before that one and those from it on, as a device that records them replays them.
    recorded: [Recorded<D::Recording>; 2],
}

/// Which passes run on the way from a model's graph to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    pub precision: Precision,
    pub fusions: Fusions,
    pub plan: Options,
}

impl Default for Passes {
    fn default() -> Self {
        Passes { precision: Precision::default(), fusions: Fusions::ALL, plan: Options::default() }
    }
}

impl<D: Backend> Program<D> {
    /// Compiles a graph: chooses the device's number type, fuses, plans, and checks after each pass.
    ///
    /// # Errors
    /// When the device cannot run the number type, or (a defect) a check fails.
    pub fn compile(graph: Graph, device: &D, passes: Passes) -> Result<Self> {
        check(&graph)?;
        let admitted = admitted(device, passes.precision)?;
        let graph = fuse(precision(graph, admitted, device.stores_half())?, passes.fusions.within(device.fuses()))?;
        let plan = plan(&graph, &|op, ins, outs| (device.scratch(op, ins, outs), device.derived(op, ins, outs)), passes.plan)?;
        let updates = |v: &crate::base::Val| matches!(graph.role(*v), Role::Update { of } if !graph.states.contains(&of));
        let trains = graph.nodes.iter().any(|n| n.phase == Phase::Update && n.outs.iter().any(updates));
        let id = number();
        let updates = plan.steps.iter().rposition(|s| s.phase != Phase::Update).map_or(0, |last| last + 1);
        Ok(Program { graph, plan, precision: admitted, id, packed: (0, 0), trains, updates, recorded: Default::default() })
    }

    /// The graph after all passes.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What it computes in.
    pub fn precision(&self) -> Precision {
        self.precision
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

    /// The type and place of a named output, input, parameter or state.
    fn result(&self, name: &str) -> Result<(Ty, Place)> {
        self.graph.output(name).map_or_else(|| self.named(name), |v| self.place(v))
    }

    /// The type and place of a named input, parameter or state.
    fn named(&self, name: &str) -> Result<(Ty, Place)> {
        let v = self.graph.named(name).ok_or_else(|| Error::internal(format!("the program has no input or parameter {name:?}")))?;
        self.place(v)
    }
}

/// A device, its arenas, and the versions of what lies in them.
pub struct Session<D: Backend> {
    device: D,
    arenas: Arenas<D>,
    /// Names the arenas' memory: another number after each change, and in each session.
    memory: u64,
    /// Counts the writes of parameters from the host.
    loaded: u64,
    /// Counts the runs that changed parameters.
    trained: u64,
    /// The program whose packed weights lie in [`Arena::Derived`].
    packed_for: u64,
    inputs: Inputs<D::Memory>,
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
        Ok(Session { device, arenas, memory: number(), loaded: 1, trained: 1, packed_for: 0, inputs: Inputs::default() })
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device again; the arenas, and what was sent or stayed there, are given back.
    pub fn into_device(self) -> D {
        self.device
    }

    /// Makes the arenas large enough for a program. Weights keep what they hold: all programs of a session have the same.
    ///
    /// # Errors
    /// When the machine does not have the memory.
    pub fn reserve(&mut self, program: &Program<D>) -> Result<()> {
        self.check_room(program)?;
        for arena in Arena::ALL {
            let bytes = program.plan.bytes[arena.index()];
            let held = self.device.size(self.arenas.get(arena));
            if held >= bytes {
                continue;
            }
            if held > 0 && matches!(arena, Arena::Params | Arena::State | Arena::Slots) {
                return Err(Error::internal(format!("a program wants {bytes} bytes of {arena:?}, the session has {held}")));
            }
            self.memory = number();
            self.arenas.ensure(&self.device, arena, bytes)?;
            if arena == Arena::Derived {
                self.packed_for = 0;
            }
        }
        Ok(())
    }

    /// Refuses a program that a device with memory of its own has no room for, before anything is allocated.
    fn check_room(&self, program: &Program<D>) -> Result<()> {
        let bytes = |arena: &Arena| program.plan.bytes[arena.index()];
        let held = |arena: &Arena| self.device.size(self.arenas.get(*arena));
        // An arena that grows gives its old memory back first.
        let more: usize = Arena::ALL.iter().filter(|a| bytes(a) > held(a)).map(|a| bytes(a) - held(a)).sum();
        let Some(free) = self.device.free_memory().filter(|&free| more as u64 > free) else { return Ok(()) };
        let planned = Arena::ALL.iter().map(bytes).sum::<usize>() >> 20;
        let what = format!("the plan needs {planned} MiB, {} MiB more than are held, and {} MiB are free", more >> 20, free >> 20);
        Err(Error::machine(what).at(self.device.describe()).advise("a smaller batch needs less"))
    }

    /// Puts memory in the place of an arena: a private map of a weight file as [`Arena::Params`].
    pub fn install(&mut self, arena: Arena, memory: D::Memory) {
        self.arenas.install(arena, memory);
        self.memory = number();
        self.loaded += 1;
    }

    /// Empties an arena; what it held is lost, and [`Session::reserve`] makes it anew, all zeros.
    ///
    /// # Errors
    /// When the device has no memory at all.
    pub fn clear(&mut self, arena: Arena) -> Result<()> {
        self.arenas.install(arena, self.device.alloc(0)?);
        self.memory = number();
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
        let dense = place.pitch == ty.shape.cols();
        let row = if dense { bytes.len().max(1) } else { ty.shape.cols() * ty.dtype.size() };
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
        let (ty, place) = program.result(name)?;
        self.fetch(ty, place)
    }

    /// As [`Session::get`], several at once: the device is waited for once.
    ///
    /// # Errors
    /// When the program has no such value.
    pub fn get_all<const N: usize>(&self, program: &Program<D>, names: [&str; N]) -> Result<[Vec<f64>; N]> {
        let places = names.iter().map(|name| program.result(name)).collect::<Result<Vec<(Ty, Place)>>>()?;
        let mut found: Vec<Vec<u8>> = places.iter().map(|(ty, _)| vec![0; ty.bytes()]).collect();
        let mut pieces = Vec::new();
        for ((ty, place), bytes) in places.iter().zip(&mut found) {
            let row = if place.pitch == ty.shape.cols() { ty.bytes() } else { ty.shape.cols() * ty.dtype.size() };
            for (r, piece) in bytes.chunks_mut(row.max(1)).enumerate() {
                pieces.push((self.arenas.get(place.arena), place.offset + r * place.pitch * ty.dtype.size(), piece));
            }
        }
        self.device.read_all(&mut pieces);
        self.device.sync()?;
        Ok(std::array::from_fn(|i| numbers(&found[i], places[i].0.dtype).collect()))
    }

    /// Reads any value of a program that has a place, as it stands now; a temporary may have been overwritten since.
    ///
    /// # Errors
    /// When the plan gave it no place.
    pub fn value(&self, program: &Program<D>, v: Val) -> Result<Vec<f64>> {
        let (ty, place) = program.place(v)?;
        self.fetch(ty, place)
    }

    fn fetch(&self, ty: Ty, place: Place) -> Result<Vec<f64>> {
        let mut out = Vec::with_capacity(ty.shape.len());
        self.each_row(ty, place, &mut |row| {
            out.extend(numbers(row, ty.dtype));
            true
        });
        self.device.sync()?;
        Ok(out)
    }

    /// Reads a value row by row (one without gaps between rows at once), for as long as `go_on` says yes.
    fn each_row(&self, ty: Ty, place: Place, go_on: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let (size, dense) = (ty.dtype.size(), place.pitch == ty.shape.cols());
        let (rows, cols) = if dense { (1, ty.shape.len()) } else { (ty.shape.rows(), ty.shape.cols()) };
        let mut row = vec![0u8; cols * size];
        (0..rows).all(|r| {
            self.device.read(self.arenas.get(place.arena), place.offset + r * place.pitch * size, &mut row);
            go_on(&row)
        })
    }

    /// The bytes of an arena from the start, as far as a program knows it.
    ///
    /// # Errors
    /// When the device has failed.
    pub fn bytes(&self, program: &Program<D>, arena: Arena) -> Result<Vec<u8>> {
        self.bytes_from(program, arena, 0)
    }

    /// As [`Session::bytes`], from an offset on.
    ///
    /// # Errors
    /// When the device has failed.
    pub fn bytes_from(&self, program: &Program<D>, arena: Arena, first: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; program.plan.bytes[arena.index()] - first];
        self.device.read(self.arenas.get(arena), first, &mut bytes);
        self.device.sync()?;
        Ok(bytes)
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
        self.replay(program, None)
    }

    /// Runs the steps on what lies in the arenas; `hook` sees each step with its time.
    ///
    /// # Errors
    /// When the device has failed.
    ///
    /// # Panics
    /// If the program was never reserved for.
    pub fn replay(&mut self, program: &mut Program<D>, hook: Option<&mut Hook>) -> Result<()> {
        let stale = self.stale(program);
        match hook {
            Some(hook) => {
                for step in &program.plan.steps {
                    hook(step, self.device.time(&mut || self.step(step, stale)));
                }
            }
            None => {
                let _ran = [0, 1].map(|half| self.half(program, half, stale, &|| true));
            }
        }
        self.ran(program);
        self.device.sync()
    }

    /// Runs a training step that can be refused until it changes something: `go_on` is asked before each row, and between the last
    /// row that computes and the first that replaces weights, statistics or slots, `accept` looks at the results: it is called as soon as
    /// the device has been told to compute, so that what it does before it reads a result happens meanwhile. Returns whether they
    /// were accepted; if not, all of these are as they were, and only temporaries and gradients are not.
    ///
    /// # Errors
    /// An interruption if `go_on` says no, or the error of `accept`; either is a refusal.
    pub fn attempt(
        &mut self,
        program: &mut Program<D>,
        go_on: &dyn Fn() -> bool,
        accept: impl FnOnce(&mut Self, &Program<D>) -> Result<bool>,
    ) -> Result<bool> {
        let stale = self.stale(program);
        let (compute, _) = program.plan.steps.split_at(program.updates);
        if let Some(early) = compute.iter().find(|s| s.phase == Phase::Update) {
            return Err(Error::internal("replaces something before the last row that computes").at(&early.layer));
        }
        // Whatever becomes of the attempt: the packed weights of another program may be gone.
        self.packed_for = 0;
        if !self.half(program, 0, stale, go_on) {
            return Err(Error::interrupted("in the middle of a step, which is undone"));
        }
        if !accept(self, program)? {
            return Ok(false);
        }
        self.half(program, 1, stale, &|| true);
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
        self.each_row(ty, place, &mut |row| numbers(row, ty.dtype).all(f64::is_finite))
    }
}

/// What a program computes in on a device: what was asked for, except that the specification has f64 alone, in the place of f32.
///
/// # Errors
/// When the device cannot.
fn admitted<D: Device>(device: &D, asked: Precision) -> Result<Precision> {
    if device.float() == DType::F64 && asked == Precision::F32 {
        return Ok(Precision::F64);
    }
    if device.precisions().contains(&asked) {
        return Ok(asked);
    }
    let words: Vec<String> = device.precisions().iter().map(Precision::to_string).collect();
    Err(Error::input(device.refusal(asked)).at(device.describe()).advise(format!("use --precision {}", words.join(" or "))))
}

/// A number that nothing else has.
fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
