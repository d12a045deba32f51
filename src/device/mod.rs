//! Where a program runs: `naive` (f64, the specification), `cpu` (the embedded default) and `cuda` (NVIDIA GPUs).
//!
//! A device allocates flat arenas of memory and copies to and from them. It knows nothing of graphs: a step reaches it
//! as a [`Call`], a list of operands whose places in the arenas were settled by the memory plan.

pub mod apart;
pub mod cpu;
pub mod cuda;
pub mod naive;

use crate::base::{DType, Precision, Ty};
use crate::error::Result;
use std::fmt;
use std::time::{Duration, Instant};

/// The flat memories of a session, by the fate of what lies in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arena {
    /// Weights in file order.
    Params,
    /// Moving statistics in file order.
    State,
    /// Gradients of the trainable suffix of `Params`, in the same order.
    Grads,
    /// Optimizer state: one or two copies of the trainable suffix (velocity; Adam's two moments).
    Slots,
    /// Packed weights, rebuilt when their source changes.
    Derived,
    /// Everything else: inputs, activations, gradients of activations, outputs, scratch.
    Temps,
}

impl Arena {
    /// All arenas, in the order of their indices.
    pub const ALL: [Arena; 6] = [Arena::Params, Arena::State, Arena::Grads, Arena::Slots, Arena::Derived, Arena::Temps];

    /// The arena's index in [`Arena::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Where a value lies: an arena, the offset of its first element in bytes, and the distance between rows in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub arena: Arena,
    pub offset: usize,
    pub pitch: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}+{:#x}", self.arena, self.offset)
    }
}

/// Whether a result replaces what lies at its destination or is added to it. The planner puts it on each destination:
/// the first contribution to a gradient sets, later ones add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Set,
    Add,
}

/// One operand of a call: what it is, where it lies, and (for results) how it is written.
#[derive(Clone, Copy, Debug)]
pub struct Operand {
    pub ty: Ty,
    pub place: Place,
    pub write: Write,
}

/// Fields of convolutions that a device has to know: what a row needs, or what a device can. None by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fusible {
    /// The batch norm before a convolution, in the convolution and its gradients: `pre` and `past`.
    pub inputs: bool,
    /// The statistics of a convolution's results: `Conv2d.stats`.
    pub stats: bool,
    /// What an input gradient goes on through on its way out: `Conv2dDx.mask` and `Conv2dDx.sums`.
    pub gradients: bool,
}

impl Fusible {
    /// Every field.
    pub const ALL: Fusible = Fusible { inputs: true, stats: true, gradients: true };

    /// Whether a device that can do this much runs a row that needs `other`.
    pub fn covers(self, other: Fusible) -> bool {
        (self.inputs || !other.inputs) && (self.stats || !other.stats) && (self.gradients || !other.gradients)
    }
}

/// A machine that holds memory. What it can compute is the list of ops that implement [`crate::ops::Run`] for it.
pub trait Device: Sized {
    /// One arena's memory.
    type Memory;
    /// A list of launches that can be carried out again at once; `()` on a device that does not record.
    type Recording;

    /// What a person calls it, with what was found out about the machine: `cpu (avx512, 2 threads)`.
    fn describe(&self) -> String;

    /// The fields that fusion may fill for this device, of those that not every device runs.
    fn fuses(&self) -> Fusible {
        Fusible::default()
    }

    /// The number type that `f32` models run in on this device.
    fn float(&self) -> DType;

    /// Whether values may lie in its memory in half precision. On a device where they may not, a policy of bf16 rounds what
    /// convolutions multiply, on its way to the product, and nothing else.
    fn stores_half(&self) -> bool;

    /// What programs on this device may compute in.
    fn precisions(&self) -> &'static [Precision];

    /// What is said to one who asks for a precision that is not among them.
    fn refusal(&self, asked: Precision) -> String {
        format!("does not compute in {asked}")
    }

    /// Zeroed memory of at least `bytes` bytes, aligned to 64.
    ///
    /// # Errors
    /// When the machine does not have that much.
    fn alloc(&self, bytes: usize) -> Result<Self::Memory>;

    /// Makes `bytes` bytes of a file from `offset` on, little-endian numbers, and zeros after them up to `size` bytes, the memory
    /// of an arena: a private map, so that nothing is copied before it is written and nothing flows back. `None` on a device
    /// that cannot; the caller copies instead.
    fn map(&self, _file: &std::fs::File, _offset: usize, _bytes: usize, _size: usize) -> Option<Self::Memory> {
        None
    }

    /// Bytes of a memory.
    fn size(&self, memory: &Self::Memory) -> usize;

    /// Copies bytes into a memory at a byte offset.
    fn write(&self, memory: &mut Self::Memory, offset: usize, bytes: &[u8]);

    /// Copies bytes out of a memory from a byte offset.
    fn read(&self, memory: &Self::Memory, offset: usize, bytes: &mut [u8]);

    /// Copies several pieces out of memories, each from its byte offset; a device that has to be waited for is waited for once.
    fn read_all(&self, pieces: &mut [(&Self::Memory, usize, &mut [u8])]) {
        pieces.iter_mut().for_each(|(memory, offset, bytes)| self.read(memory, *offset, bytes));
    }

    /// Waits until all that was asked for has happened.
    ///
    /// # Errors
    /// The first thing that went wrong since the last time. What was read since then is then not to be used.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// What the device does besides running steps, if its memory lies apart from the host's.
    fn apart(&self) -> Option<&dyn apart::Apart<Self::Memory>> {
        None
    }

    /// Bytes of memory that are free on a device with memory of its own.
    fn free_memory(&self) -> Option<u64> {
        None
    }

    /// Records the steps that `body` runs, without carrying them out. A device that does not record returns `None` and does not
    /// call `body`.
    fn record(&self, _body: &mut dyn FnMut()) -> Option<Self::Recording> {
        None
    }

    /// Carries the steps of a recording out, on the memory they were recorded with.
    fn replay(&self, _recording: &Self::Recording) {}

    /// How long the steps that `body` runs take.
    fn time(&self, body: &mut dyn FnMut()) -> Duration {
        let start = Instant::now();
        body();
        start.elapsed()
    }

    /// Called before the launches of a step, for a device that checks them.
    fn before(&self, _call: &Call<'_, Self>) {}

    /// Called after the launches of a step.
    fn after(&self, _call: &Call<'_, Self>) {}
}

/// The arenas of a session on one device.
pub struct Arenas<D: Device> {
    memories: [D::Memory; Arena::ALL.len()],
}

impl<D: Device> Arenas<D> {
    /// Six empty arenas.
    pub fn new(device: &D) -> Result<Self> {
        let empty = || device.alloc(0);
        Ok(Arenas { memories: [empty()?, empty()?, empty()?, empty()?, empty()?, empty()?] })
    }

    /// The memory of an arena.
    pub fn get(&self, arena: Arena) -> &D::Memory {
        &self.memories[arena.index()]
    }

    /// The memory of an arena, to be written from the host.
    pub fn get_mut(&mut self, arena: Arena) -> &mut D::Memory {
        &mut self.memories[arena.index()]
    }

    /// Replaces the memory of an arena, for one mapped from a file.
    pub fn install(&mut self, arena: Arena, memory: D::Memory) {
        self.memories[arena.index()] = memory;
    }

    /// Makes an arena at least `bytes` large; its contents are lost if it grows.
    pub fn ensure(&mut self, device: &D, arena: Arena, bytes: usize) -> Result<()> {
        if device.size(self.get(arena)) < bytes {
            // The old memory goes first: peak memory is the larger of the two, not their sum.
            self.memories[arena.index()] = device.alloc(0)?;
            self.memories[arena.index()] = device.alloc(bytes)?;
        }
        Ok(())
    }
}

/// One step of a program as a device sees it: operands with their places. Only a checked memory plan makes calls, so
/// that a destination shares memory with a source in one case alone: an op that says it may run in place.
pub struct Call<'a, D: Device> {
    pub device: &'a D,
    pub arenas: &'a Arenas<D>,
    pub ins: &'a [Operand],
    pub outs: &'a [Operand],
    /// Working memory of this call, in [`Arena::Temps`].
    pub scratch: Option<(usize, usize)>,
    /// Packed weights of this call: offset and bytes in an arena, [`Arena::Temps`] if they are rebuilt for every run.
    pub derived: Option<(Arena, usize, usize)>,
}
