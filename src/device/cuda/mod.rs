//! NVIDIA GPUs: hand-written kernels in `kernels/*.cu`, launched through a small [`Driver`].
//!
//! Reading order: [`driver`] (what is asked of a machine), [`kernel`] (typed launches), then the two machines: [`gpu`] and
//! [`emulated`], which runs the same kernels on the processor for the tests. All launches go into one stream, so a launch sees
//! what the launches before it wrote; what is sent ahead travels in another ([`apart`]). A launch cannot fail where it is asked
//! for; the first failure is kept, nothing is launched after it, and [`Device::sync`] tells it.

pub mod apart;
pub mod columns;
pub mod driver;
pub mod embedded;
pub mod emulated;
pub mod epilogue;
pub mod gpu;
pub mod kernel;
pub mod sheet;
pub mod window;

use super::apart::Apart;
use super::{Arena, Call, Device, Fusible, Operand, Write};
use crate::base::{DType, Precision};
use crate::error::{Error, Result};
pub use driver::{DevicePtr, Driver, Grid, Launch, Region};
use kernel::Arguments;
pub use kernel::Kernel;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// A CUDA device: a driver, and the first thing that went wrong on it.
pub struct Cuda {
    driver: Rc<dyn Driver>,
    failed: RefCell<Option<Error>>,
}

/// One arena in the device's memory.
pub struct Memory {
    driver: Rc<dyn Driver>,
    start: DevicePtr,
    bytes: usize,
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.driver.free(self.start);
        }
    }
}

impl Cuda {
    /// The device behind a driver.
    pub fn new(driver: impl Driver + 'static) -> Self {
        Cuda { driver: Rc::new(driver), failed: RefCell::new(None) }
    }

    /// Bytes of shared memory that a block may have on this chip.
    pub fn shared_limit(&self) -> usize {
        self.driver.shared_limit()
    }

    /// Multiprocessors of this chip.
    pub fn processors(&self) -> usize {
        self.driver.processors()
    }

    /// Whether this chip has Hopper's products of warpgroups.
    pub fn warpgroups(&self) -> bool {
        self.driver.warpgroups()
    }

    /// The driver of the device.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// Keeps a failure, if it is the first, for the next [`Device::sync`].
    pub fn fail(&self, error: Error) {
        self.failed.borrow_mut().get_or_insert(error);
    }

    /// Does something unless an earlier thing has failed; keeps the first failure.
    fn attempt(&self, what: impl FnOnce(&dyn Driver) -> Result<()>) {
        let mut failed = self.failed.borrow_mut();
        if failed.is_none() {
            *failed = what(&*self.driver).err();
        }
    }

    /// Launches a kernel on `grid` blocks of `block` threads with `shared` bytes of dynamic shared memory; a driver that checks asks
    /// for the regions that it may touch. What goes wrong is told by [`Device::sync`].
    pub fn launch<A: Arguments>(
        &self,
        kernel: Kernel<A>,
        grid: impl Into<Grid>,
        block: u32,
        shared: usize,
        regions: impl FnOnce() -> Vec<Region>,
        arguments: A,
    ) {
        let (mut words, mut starts) = (Vec::new(), Vec::new());
        arguments.pack(&mut words, &mut starts);
        let regions = if self.driver.checks() { regions() } else { Vec::new() };
        let Kernel { name, file, signature, .. } = kernel;
        let (grid, shared) = (grid.into(), u32::try_from(shared).unwrap_or(u32::MAX));
        let launch = Launch { kernel: name, file, signature, grid, block, shared, words, starts, regions };
        self.attempt(|driver| driver.launch(launch));
    }
}

/// A recorded list of launches. It goes before its driver, whoever drops the device first: what a driver has recorded is part of its machine.
pub struct Recorded {
    recording: driver::Recording,
    _driver: Rc<dyn Driver>,
}

impl Device for Cuda {
    type Memory = Memory;
    type Recording = Recorded;

    fn describe(&self) -> String {
        self.driver.describe()
    }

    fn float(&self) -> DType {
        DType::F32
    }

    fn stores_half(&self) -> bool {
        true
    }

    fn fuses(&self) -> Fusible {
        Fusible { stats: true, gradients: true, ..Fusible::default() }
    }

    fn precisions(&self) -> &'static [Precision] {
        &[Precision::F32, Precision::Tf32, Precision::Bf16]
    }

    fn alloc(&self, bytes: usize) -> Result<Memory> {
        let start = if bytes == 0 { DevicePtr(0) } else { self.driver.alloc(bytes)? };
        Ok(Memory { driver: self.driver.clone(), start, bytes })
    }

    fn size(&self, memory: &Memory) -> usize {
        memory.bytes
    }

    fn write(&self, memory: &mut Memory, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= memory.bytes, "a write past the end of an arena");
        self.attempt(|driver| driver.upload(memory.start.offset(offset), bytes));
    }

    fn read(&self, memory: &Memory, offset: usize, bytes: &mut [u8]) {
        self.read_all(&mut [(memory, offset, bytes)]);
    }

    fn read_all(&self, pieces: &mut [(&Memory, usize, &mut [u8])]) {
        let mut places = Vec::with_capacity(pieces.len());
        for (memory, offset, bytes) in pieces {
            assert!(*offset + bytes.len() <= memory.bytes, "a read past the end of an arena");
            places.push((memory.start.offset(*offset), &mut **bytes));
        }
        self.attempt(|driver| driver.download(&mut places));
    }

    fn sync(&self) -> Result<()> {
        self.attempt(|driver| driver.sync());
        self.failed.borrow_mut().take().map_or(Ok(()), Err)
    }

    fn apart(&self) -> Option<&dyn Apart<Memory>> {
        Some(self)
    }

    fn free_memory(&self) -> Option<u64> {
        self.driver.free_memory()
    }

    fn record(&self, body: &mut dyn FnMut()) -> Option<Self::Recording> {
        let mut recorded = None;
        self.attempt(|driver| driver.begin());
        body();
        self.attempt(|driver| {
            recorded = Some(Recorded { recording: driver.end()?, _driver: self.driver.clone() });
            Ok(())
        });
        recorded
    }

    fn replay(&self, recording: &Self::Recording) {
        self.attempt(|driver| driver.replay(&recording.recording));
    }

    fn time(&self, body: &mut dyn FnMut()) -> Duration {
        match self.driver.time(body) {
            Ok(seconds) => Duration::from_secs_f64(seconds),
            Err(error) => {
                self.fail(error);
                Duration::ZERO
            }
        }
    }

    fn before(&self, call: &Call<'_, Self>) {
        if self.driver.checks() {
            let scratch = call.buffers().filter(|b| b.name == c"scratch");
            self.driver.forget(call.set().chain(scratch).collect());
        }
    }

    fn after(&self, call: &Call<'_, Self>) {
        if self.driver.checks() {
            self.attempt(|driver| driver.filled(call.set().collect()));
        }
    }
}

/// An operand as a kernel sees it: a matrix whose row `r` starts `r * pitch` elements after `ptr`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    pub ptr: DevicePtr,
    pub rows: i32,
    pub cols: i32,
    pub pitch: i32,
    pub dtype: DType,
    /// 1 if results are added to what lies there.
    pub add: i32,
}

impl Matrix {
    /// Whether every row starts at a multiple of 16 bytes and rows are whole packs of 16 bytes, so that a kernel may read and
    /// write packs.
    pub fn packs(&self) -> bool {
        let size = self.dtype.size();
        self.ptr.0.is_multiple_of(16) && (self.pitch as usize * size).is_multiple_of(16) && (self.cols as usize * size).is_multiple_of(16)
    }
}

/// How many pieces of `size` cover `count` things.
pub fn tiles(count: i32, size: i32) -> usize {
    (count as usize).div_ceil(size as usize)
}

impl Call<'_, Cuda> {
    /// Input `i`.
    pub fn src(&self, i: usize) -> Matrix {
        self.matrix(&self.ins[i])
    }

    /// Result `i`.
    pub fn dst(&self, i: usize) -> Matrix {
        self.matrix(&self.outs[i])
    }

    /// The call's working memory, which holds whatever an earlier step left, aligned to 64 bytes.
    pub fn scratch(&self) -> DevicePtr {
        self.arenas.get(Arena::Temps).start.offset(self.scratch.unwrap_or((0, 0)).0)
    }

    /// The call's packed weights, to be filled by `prepare` and read by `run`.
    pub fn derived(&self) -> DevicePtr {
        let (arena, offset, _) = self.derived.unwrap_or((Arena::Derived, 0, 0));
        self.arenas.get(arena).start.offset(offset)
    }

    fn matrix(&self, operand: &Operand) -> Matrix {
        let (shape, place) = (operand.ty.shape, operand.place);
        // An arena with more rows or columns than this could not have been allocated.
        let int = |n: usize| i32::try_from(n).expect("a dimension of memory that exists fits 31 bits");
        Matrix {
            ptr: self.arenas.get(place.arena).start.offset(place.offset),
            rows: int(shape.rows()),
            cols: int(shape.cols()),
            pitch: int(place.pitch),
            dtype: operand.ty.dtype,
            add: i32::from(operand.write == Write::Add),
        }
    }

    /// As [`Cuda::launch`]; the launch may touch what the call names.
    pub fn launch<A: Arguments>(&self, kernel: Kernel<A>, grid: impl Into<Grid>, block: u32, shared: usize, arguments: A) {
        self.device.launch(kernel, grid, block, shared, || self.regions(), arguments);
    }

    /// Everything the call may touch.
    fn regions(&self) -> Vec<Region> {
        let names: [&[_]; 2] = [
            &[c"input 0", c"input 1", c"input 2", c"input 3", c"input 4", c"input 5", c"a later input"],
            &[c"result 0", c"result 1", c"result 2", c"a later result"],
        ];
        let named = |kind: usize, i: usize| names[kind][i.min(names[kind].len() - 1)];
        let outs = self.outs.iter().enumerate().map(|(i, o)| self.region(o, true, named(1, i)));
        let ins = self.ins.iter().enumerate().map(|(i, o)| self.region(o, false, named(0, i)));
        outs.chain(ins).chain(self.buffers()).collect()
    }

    fn region(&self, operand: &Operand, writable: bool, name: &'static std::ffi::CStr) -> Region {
        let (shape, size) = (operand.ty.shape, operand.ty.dtype.size());
        let start = self.arenas.get(operand.place.arena).start.offset(operand.place.offset);
        Region { start, rows: shape.rows(), row_bytes: shape.cols() * size, pitch: operand.place.pitch * size, writable, name }
    }

    /// Scratch and packed weights.
    fn buffers(&self) -> impl Iterator<Item = Region> {
        let buffer = |start, bytes, name| Region { start, rows: 1, row_bytes: bytes, pitch: bytes, writable: true, name };
        let scratch = self.scratch.filter(|s| s.1 > 0).map(|(_, bytes)| buffer(self.scratch(), bytes, c"scratch"));
        let derived = self.derived.filter(|d| d.2 > 0).map(|(_, _, bytes)| buffer(self.derived(), bytes, c"packed weights"));
        scratch.into_iter().chain(derived)
    }

    /// The results that replace what lies at their place, unless an input lies there too.
    fn set(&self) -> impl Iterator<Item = Region> {
        let alone = |o: &Operand| self.ins.iter().all(|i| (i.place.arena, i.place.offset) != (o.place.arena, o.place.offset));
        let set = self.outs.iter().enumerate().filter(move |(_, o)| o.write == Write::Set && alone(o));
        set.map(|(i, o)| self.region(o, true, if i == 0 { c"result 0" } else { c"a later result" }))
    }
}
