//! The fast CPU device: f32, AVX-512 / AVX2 / portable chosen at run time, threads fixed at start. Where the processor multiplies pairs of
//! bf16, convolutions can; values lie in memory as f32 either way.
//!
//! Reading order: [`view`] (matrices in an arena), `mapping` (an arena that is a file's pages), [`simd`] (one vector type per instruction set), [`pool`] (threads),
//! then the loops that several ops share: [`columns`] and [`tile`] (the innermost loops of convolution and matrix product).
//! `unsafe` of the CPU device lives here and in the SIMD loops of the ops.

pub mod columns;
mod mapping;
pub mod pool;
pub mod simd;
pub mod tile;
pub mod view;

use super::{Call, Device, Fusible};
use crate::base::{DType, Precision};
use crate::error::{Error, Result};
pub use pool::Pool;
pub use simd::Isa;
pub use view::{Dst, Memory, Src};

/// The CPU with its instruction set and its threads.
pub struct Cpu {
    pub isa: Isa,
    pub pool: Pool,
    /// Whether every sum of products is taken term by term, instead of by algorithms with fewer multiplications, whose rounding
    /// errors are larger.
    pub exact: bool,
}

impl Cpu {
    /// The best instruction set this machine has, on `threads` threads (0: one per core).
    ///
    /// The variable `DEFROST_ISA` (`avx512`, `avx2`, `portable`) forces a lesser one, for tests and comparisons.
    ///
    /// # Errors
    /// When `DEFROST_ISA` names an instruction set that is unknown or that this machine does not have.
    pub fn new(threads: usize) -> Result<Self> {
        let isa = match std::env::var("DEFROST_ISA") {
            Ok(name) => Isa::named(&name)?,
            Err(_) => Isa::best(),
        };
        Ok(Self::with(isa, threads))
    }

    /// A given instruction set, which the machine must have (see [`Isa::available`]).
    pub fn with(isa: Isa, threads: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Cpu { isa, pool: Pool::new(if threads == 0 { cores } else { threads }), exact: false }
    }

    /// The same with [`Cpu::exact`] as given.
    pub fn exact(self, exact: bool) -> Self {
        Cpu { exact, ..self }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}

impl Device for Cpu {
    type Memory = Memory;
    type Recording = ();

    fn describe(&self) -> String {
        let n = self.threads();
        let exact = if self.exact { ", exact" } else { "" };
        format!("cpu ({}, {n} thread{}{exact})", self.isa, if n == 1 { "" } else { "s" })
    }

    fn fuses(&self) -> Fusible {
        Fusible { inputs: true, ..Fusible::default() }
    }

    fn float(&self) -> DType {
        DType::F32
    }

    fn stores_half(&self) -> bool {
        false
    }

    fn precisions(&self) -> &'static [Precision] {
        if self.isa.has_bf16() { &[Precision::F32, Precision::Bf16] } else { &[Precision::F32] }
    }

    fn refusal(&self, asked: Precision) -> String {
        match asked {
            Precision::Bf16 => "does not compute in bf16: that needs AVX-512 with its extension for bf16 (AVX512_BF16)".into(),
            _ => format!("does not compute in {asked}"),
        }
    }

    fn alloc(&self, bytes: usize) -> Result<Memory> {
        Memory::zeroed(bytes).map_err(|e| Error::machine(format!("{} MiB of memory are not to be had: {e}", bytes >> 20)).at("cpu"))
    }

    fn map(&self, file: &std::fs::File, offset: usize, bytes: usize, size: usize) -> Option<Memory> {
        Memory::mapped(file, offset, bytes, size).ok().filter(|_| cfg!(target_endian = "little"))
    }

    fn size(&self, memory: &Memory) -> usize {
        memory.len()
    }

    fn write(&self, memory: &mut Memory, offset: usize, bytes: &[u8]) {
        memory.bytes_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn read(&self, memory: &Memory, offset: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&memory.bytes()[offset..offset + bytes.len()]);
    }
}

impl<'a> Call<'a, Cpu> {
    /// The types of the inputs.
    pub fn in_types(&self) -> Vec<crate::base::Ty> {
        self.ins.iter().map(|operand| operand.ty).collect()
    }

    /// Input `i` as a matrix: pixels x channels, or `[kernel_h * kernel_w * in, out]` for a kernel, or one row.
    pub fn src(&self, i: usize) -> Src<'a> {
        let operand = &self.ins[i];
        self.arenas.get(operand.place.arena).src(operand)
    }

    /// Result `i` as a matrix.
    pub fn dst(&self, i: usize) -> Dst<'a> {
        let operand = &self.outs[i];
        self.arenas.get(operand.place.arena).dst(operand)
    }

    /// The call's working memory: `f32`s, uninitialised in the sense that they hold whatever an earlier step left.
    pub fn scratch(&self) -> Dst<'a> {
        let (offset, bytes) = self.scratch.unwrap_or((0, 0));
        self.arenas.get(super::Arena::Temps).floats(offset, bytes / 4)
    }

    /// The call's packed weights, to be filled by `prepare` and read by `run`.
    pub fn derived(&self) -> Dst<'a> {
        let (arena, offset, bytes) = self.derived.unwrap_or((super::Arena::Derived, 0, 0));
        self.arenas.get(arena).floats(offset, bytes / 4)
    }
}
