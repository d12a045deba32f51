//! What the CUDA device asks of a driver: memory, copies, launches, and a recorded list of launches to replay.
//!
//! Two drivers answer: the GPU's ([`super::gpu`]) and the emulated one ([`super::emulated`]), which runs the same kernels on
//! the processor and checks what they touch.

use crate::base::Precision;
use crate::error::Result;
use std::any::Any;

/// An address in the device's memory.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    /// The address some bytes further on.
    pub fn offset(self, bytes: usize) -> Self {
        DevicePtr(self.0 + bytes as u64)
    }
}

/// How many blocks of a launch there are in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid(pub [u32; 3]);

/// Blocks as they are counted in layers; a number that no grid can have is refused by the driver.
fn blocks(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl From<usize> for Grid {
    fn from(x: usize) -> Self {
        Grid([blocks(x), 1, 1])
    }
}

impl From<(usize, usize)> for Grid {
    fn from((x, y): (usize, usize)) -> Self {
        Grid([blocks(x), blocks(y), 1])
    }
}

impl From<(usize, usize, usize)> for Grid {
    fn from((x, y, z): (usize, usize, usize)) -> Self {
        Grid([blocks(x), blocks(y), blocks(z)])
    }
}

/// A kernel by its name, the `.cu` file it lives in, and its parameters as the Rust declaration spells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub name: &'static str,
    pub file: &'static str,
    pub signature: String,
}

/// A rectangle of memory that a launch may touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    pub start: DevicePtr,
    pub rows: usize,
    pub row_bytes: usize,
    /// Bytes between the starts of two rows.
    pub pitch: usize,
    pub writable: bool,
    /// What a person calls it: `input 0`.
    pub name: &'static std::ffi::CStr,
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub struct Launch {
    pub kernel: &'static str,
    /// The `.cu` file without its ending.
    pub file: &'static str,
    pub signature: fn() -> String,
    pub grid: Grid,
    /// Threads of a block.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The arguments, each in as many words of eight bytes as it needs.
    pub words: Vec<u64>,
    /// The word at which each argument starts.
    pub starts: Vec<usize>,
    /// What it may touch; told only to a driver that [checks](Driver::checks).
    pub regions: Vec<Region>,
}

impl Launch {
    /// A pointer to each argument, as drivers take them.
    pub fn pointers(&mut self) -> Vec<*mut std::ffi::c_void> {
        self.starts.iter().map(|&at| (&raw mut self.words[at]).cast()).collect()
    }
}

/// A recorded list of launches.
pub type Recording = Box<dyn Any>;

/// What a machine with CUDA kernels can do. Launches and copies happen in the order in which they were asked for; sends do so among
/// themselves.
pub trait Driver {
    /// What a person calls it: `cuda:0 (NVIDIA H200)`.
    fn describe(&self) -> String;

    /// Bytes of shared memory that a block may have.
    fn shared_limit(&self) -> usize;

    /// Multiprocessors: how many blocks are sure to run at a time. Kernels of different tiles give the same bits, so this may
    /// settle which one runs.
    fn processors(&self) -> usize;

    /// Whether it has Hopper's products of warpgroups, which no other chip has.
    fn warpgroups(&self) -> bool;

    /// Whether it wants to know the regions of each launch.
    fn checks(&self) -> bool;

    /// Bytes of memory that are free, where the driver tells.
    fn free_memory(&self) -> Option<u64> {
        None
    }

    /// Floating-point operations per second that it could do at best in a precision, where that is known: tf32 and bf16 on tensor
    /// cores with sums in f32, f32 without.
    fn peak(&self, _precision: Precision) -> Option<f64> {
        None
    }

    /// Zeroed memory, aligned to 256 bytes.
    ///
    /// # Errors
    /// When there is not so much.
    fn alloc(&self, bytes: usize) -> Result<DevicePtr>;

    /// Gives memory back.
    fn free(&self, start: DevicePtr);

    /// Copies bytes to the device.
    ///
    /// # Errors
    /// When the device has failed.
    fn upload(&self, to: DevicePtr, bytes: &[u8]) -> Result<()>;

    /// Waits for the launches before, and copies pieces of the device's memory, each from its address.
    ///
    /// # Errors
    /// When the device, or a launch before, has failed.
    fn download(&self, pieces: &mut [(DevicePtr, &mut [u8])]) -> Result<()>;

    /// Copies bytes within the device.
    ///
    /// # Errors
    /// When the device has failed.
    fn copy(&self, from: DevicePtr, to: DevicePtr, bytes: usize) -> Result<()>;

    /// Copies bytes to the device in a lane of its own, beside what is launched and copied otherwise: after earlier sends, and in
    /// no other order than that of [`Driver::join`] and [`Driver::hold`]. Returns once `bytes` has been read.
    ///
    /// # Errors
    /// When the device has failed, or (emulated) when something launched or copied before may still use what lies there.
    fn send(&self, to: DevicePtr, bytes: &[u8]) -> Result<()>;

    /// Lets what is launched and copied from here on wait for all that was sent.
    ///
    /// # Errors
    /// When the device has failed.
    fn join(&self) -> Result<()>;

    /// Lets what is sent from here on wait for all that was launched and copied.
    ///
    /// # Errors
    /// When the device has failed.
    fn hold(&self) -> Result<()>;

    /// Launches a kernel; while recording, notes it instead.
    ///
    /// # Errors
    /// When the driver refuses it, or (emulated) when it did something wrong.
    fn launch(&self, launch: Launch) -> Result<()>;

    /// Tells a checking driver that what lies in these regions must not be read before it is written.
    fn forget(&self, _regions: Vec<Region>) {}

    /// Has a checking driver see whether all of these regions was written since.
    ///
    /// # Errors
    /// The first that was not.
    fn filled(&self, _regions: Vec<Region>) -> Result<()> {
        Ok(())
    }

    /// Begins a recording: launches are noted and not carried out.
    ///
    /// # Errors
    /// When the driver cannot.
    fn begin(&self) -> Result<()>;

    /// Ends a recording.
    ///
    /// # Errors
    /// When the driver cannot make something of it.
    fn end(&self) -> Result<Recording>;

    /// Carries the launches of a recording out.
    ///
    /// # Errors
    /// As [`Driver::launch`].
    fn replay(&self, recording: &Recording) -> Result<()>;

    /// Waits until everything asked for has happened.
    ///
    /// # Errors
    /// What went wrong since the last time.
    fn sync(&self) -> Result<()>;

    /// Seconds that the launches in `body` take on the device.
    ///
    /// # Errors
    /// When the device has failed.
    fn time(&self, body: &mut dyn FnMut()) -> Result<f64>;
}
