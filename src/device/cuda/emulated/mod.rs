//! The emulated driver: the kernels of `kernels/*.cu`, compiled for this machine's processor, each CUDA thread a fiber.
//!
//! It is for tests and for stepping through a kernel in a debugger; nobody trains on it. A checked device finds what a GPU
//! would suffer silently: accesses outside the operands of a step, reads of memory that nothing wrote, races, barriers that
//! not all threads reach, copies read before their wait, elements of a result that nothing writes.

mod lanes;
mod object;
mod recording;

use super::Cuda;
use super::driver::{DevicePtr, Driver, Launch, Recording, Region};
use crate::error::{Error, Result};
use lanes::{Lanes, span};
use libloading::Library;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

pub use object::{Build, object};
use recording::{Event, Recorded};

/// The order in which ready threads and blocks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Order {
    Ascending = 0,
    Descending = 1,
    Random = 2,
}

/// When a `cp.async` lands: as early or as late as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Landing {
    AtOnce = 0,
    AtWait = 1,
}

/// How kernels are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    pub build: Build,
    pub order: Order,
    pub landing: Landing,
    /// Bytes of shared memory of a block; kernels may need no more than the smallest chip has.
    pub shared_limit: u32,
    /// Bytes of memory that the device has.
    pub memory: u64,
    /// Multiprocessors that it says to have: kernels take larger tiles where there are few.
    pub processors: usize,
    /// Whether it has Hopper's products of warpgroups.
    pub warpgroups: bool,
}

/// What sm_86, sm_89 and sm_120 give to a block; sm_80 has 163 KiB, sm_90 227 KiB.
const SMALLEST_SHARED: u32 = 99 << 10;

/// What sm_90 gives to a block.
const HOPPER_SHARED: u32 = 227 << 10;

impl Manner {
    /// All checks, threads in ascending order, copies and products of warpgroups as late as they may.
    pub const CHECKED: Manner = Manner {
        build: Build::Checked,
        order: Order::Ascending,
        landing: Landing::AtWait,
        shared_limit: HOPPER_SHARED,
        memory: 4 << 30,
        processors: 1,
        warpgroups: true,
    };
    /// The same on the smallest chip.
    pub const CHECKED_SMALLEST: Manner = Manner { shared_limit: SMALLEST_SHARED, warpgroups: false, ..Manner::CHECKED };
    /// All checks on a chip with many multiprocessors, threads and blocks in descending order, copies at once.
    pub const CHECKED_OTHERWISE: Manner = Manner { order: Order::Descending, landing: Landing::AtOnce, processors: 132, ..Manner::CHECKED };
    /// No checks but guard zones, threads in random order, copies at once.
    pub const FAST: Manner =
        Manner { build: Build::Fast, order: Order::Random, landing: Landing::AtOnce, processors: 132, ..Manner::CHECKED };
}

/// How the object calls what Rust passes; `emulator/runtime.h` has the same.
#[repr(C)]
struct RawKernel {
    call: extern "C" fn(*mut *mut c_void),
    signature: extern "C" fn() -> *const c_char,
}

#[repr(C)]
struct RawRegion {
    start: u64,
    rows: u64,
    row_bytes: u64,
    pitch: u64,
    writable: i32,
    name: *const c_char,
}

#[repr(C)]
struct RawLaunch {
    kernel: *const RawKernel,
    name: *const c_char,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    shared_limit: u32,
    arguments: *mut *mut c_void,
    regions: *const RawRegion,
    region_count: u64,
    order: Order,
    landing: Landing,
    seed: u32,
    error: *mut c_char,
    error_bytes: u64,
}

/// The functions of the object.
struct Functions {
    close: unsafe extern "C" fn(*mut c_void),
    alloc: unsafe extern "C" fn(*mut c_void, u64) -> u64,
    free: unsafe extern "C" fn(*mut c_void, u64),
    wrote: unsafe extern "C" fn(*mut c_void, u64, u64),
    forget: unsafe extern "C" fn(*mut c_void, *const RawRegion),
    unwritten: unsafe extern "C" fn(*mut c_void, *const RawRegion) -> i64,
    launch: unsafe extern "C" fn(*mut c_void, *const RawLaunch) -> c_int,
}

/// The driver.
pub struct Emulated {
    library: Library,
    path: PathBuf,
    functions: Functions,
    context: *mut c_void,
    manner: Manner,
    /// What happens on the device, noted while recording.
    notes: RefCell<Option<Vec<Event>>>,
    /// Bytes of each allocation.
    held: RefCell<HashMap<DevicePtr, u64>>,
    lanes: RefCell<Lanes>,
    /// The kernel that was launched last.
    latest: Cell<&'static str>,
    /// Gone when the driver is.
    alive: Rc<()>,
}

fn broken(e: impl std::fmt::Display) -> Error {
    Error::machine(format!("the built kernels cannot be used: {e}")).at("emulated")
}

/// Opens an emulated CUDA device.
///
/// # Errors
/// See [`object`].
pub fn open(manner: Manner) -> Result<Cuda> {
    Ok(Cuda::new(Emulated::new(manner)?))
}

impl Emulated {
    /// Builds the kernels if need be, and loads them.
    ///
    /// # Errors
    /// See [`object`].
    pub fn new(manner: Manner) -> Result<Self> {
        let path = object(manner.build)?;
        // SAFETY: the object is our own, built from the sources in this program; loading runs no code but constructors of
        // standard containers.
        let library = unsafe { Library::new(&path) }.map_err(broken)?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the type is that of the definition in emulator/launch.cpp.
                *unsafe { library.get($name) }.map_err(broken)?
            };
        }
        let open: unsafe extern "C" fn(c_int) -> *mut c_void = function!(c"emulated_open");
        let functions = Functions {
            close: function!(c"emulated_close"),
            alloc: function!(c"emulated_alloc"),
            free: function!(c"emulated_free"),
            wrote: function!(c"emulated_wrote"),
            forget: function!(c"emulated_forget"),
            unwritten: function!(c"emulated_unwritten"),
            launch: function!(c"emulated_launch"),
        };
        // SAFETY: takes a flag and returns a context of its own.
        let context = unsafe { open(c_int::from(manner.build == Build::Checked)) };
        let (notes, held, latest) = (RefCell::new(None), RefCell::default(), Cell::new("no kernel"));
        let lanes = RefCell::new(Lanes::new(manner.landing));
        Ok(Emulated { library, path, functions, context, manner, notes, held, lanes, latest, alive: Rc::new(()) })
    }

    /// The kernel's own spelling of its parameters; `None` if there is no such kernel.
    pub fn signature(&self, kernel: &str) -> Option<String> {
        let kernel = self.kernel(kernel).ok()?;
        // SAFETY: the kernel's record lives as long as the library; it returns a string that lives as long.
        let text = unsafe { CStr::from_ptr(((*kernel).signature)()) };
        Some(text.to_string_lossy().into_owned())
    }

    fn kernel(&self, name: &str) -> Result<*const RawKernel> {
        let symbol = CString::new(format!("kernel_{name}")).map_err(broken)?;
        // SAFETY: KERNEL_EXPORT defines the symbol as such a record.
        let kernel = unsafe { self.library.get::<*const RawKernel>(symbol) };
        kernel.map(|k| *k).map_err(|_| Error::internal(format!("no kernel is called {name}")).at("emulated"))
    }

    fn note(&self, event: impl FnOnce() -> Event) -> bool {
        let mut notes = self.notes.borrow_mut();
        notes.as_mut().map(|list| list.push(event())).is_some()
    }

    fn run(&self, launch: &mut Launch) -> Result<()> {
        let kernel = self.kernel(launch.kernel)?;
        let (declared, own) = ((launch.signature)(), self.signature(launch.kernel).unwrap_or_default());
        if declared != own {
            return Err(Error::internal(format!("{} takes ({own}), Rust declares ({declared})", launch.kernel)).at("emulated"));
        }
        self.latest.set(launch.kernel);
        launch.regions.iter().try_for_each(|r| self.touch(r.start, r.rows.saturating_sub(1) * r.pitch + r.row_bytes))?;
        let name = CString::new(launch.kernel).map_err(broken)?;
        let regions: Vec<RawRegion> = launch.regions.iter().map(raw).collect();
        let mut error = [0 as c_char; 1024];
        let mut arguments = launch.pointers();
        let raw = RawLaunch {
            kernel,
            name: name.as_ptr(),
            grid: launch.grid.0,
            block: [launch.block, 1, 1],
            dynamic_shared: launch.shared,
            shared_limit: self.manner.shared_limit,
            arguments: arguments.as_mut_ptr(),
            regions: regions.as_ptr(),
            region_count: regions.len() as u64,
            order: self.manner.order,
            landing: self.manner.landing,
            seed: 20_261,
            error: error.as_mut_ptr(),
            error_bytes: error.len() as u64,
        };
        // SAFETY: all pointers are valid for the call; the arguments have the types that the kernel takes, as compared above.
        if unsafe { (self.functions.launch)(self.context, &raw) } == 0 {
            return Ok(());
        }
        // SAFETY: the emulator ends its message with a zero within the buffer.
        let message = unsafe { CStr::from_ptr(error.as_ptr()) }.to_string_lossy().into_owned();
        Err(Error::machine(self.with_line(message)).at("emulated"))
    }

    /// Notes that a launch or a copy touches memory.
    fn touch(&self, start: DevicePtr, bytes: usize) -> Result<()> {
        self.lanes.borrow_mut().touch(span(start, bytes)).map_err(|what| Error::machine(what).at("emulated"))
    }

    /// Puts bytes of the host where the device has them.
    fn land(&self, to: DevicePtr, bytes: &[u8]) {
        // SAFETY: the device checks that the range lies in an arena, which is memory of this process; no kernel runs.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.0 as *mut u8, bytes.len());
            (self.functions.wrote)(self.context, to.0, bytes.len() as u64);
        }
    }

    /// A message that ends with a place in the object (` @0x12ab`), with the source line instead.
    fn with_line(&self, message: String) -> String {
        let Some((text, place)) = message.rsplit_once(" @0x") else { return message };
        let run = std::process::Command::new("addr2line").arg("-e").arg(&self.path).arg(place).output();
        let line = run.ok().map(|run| String::from_utf8_lossy(&run.stdout).trim().to_string()).unwrap_or_default();
        match line.find("kernels/") {
            Some(at) => format!("{text} ({})", &line[at..]),
            None => text.to_string(),
        }
    }
}

fn raw(r: &Region) -> RawRegion {
    let [rows, row_bytes, pitch] = [r.rows, r.row_bytes, r.pitch].map(|n| n as u64);
    RawRegion { start: r.start.0, rows, row_bytes, pitch, writable: i32::from(r.writable), name: r.name.as_ptr() }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        // SAFETY: the context is this driver's, and not used after.
        unsafe { (self.functions.close)(self.context) }
    }
}

impl Driver for Emulated {
    fn describe(&self) -> String {
        format!("emulated ({:?}, {:?} order)", self.manner.build, self.manner.order).to_lowercase()
    }

    fn shared_limit(&self) -> usize {
        self.manner.shared_limit as usize
    }

    fn processors(&self) -> usize {
        self.manner.processors
    }

    fn free_memory(&self) -> Option<u64> {
        Some(self.manner.memory - self.held.borrow().values().sum::<u64>())
    }

    fn warpgroups(&self) -> bool {
        self.manner.warpgroups
    }

    fn checks(&self) -> bool {
        self.manner.build == Build::Checked
    }

    fn alloc(&self, bytes: usize) -> Result<DevicePtr> {
        let room = self.free_memory().is_some_and(|free| bytes as u64 <= free);
        // SAFETY: the context is open.
        match if room { unsafe { (self.functions.alloc)(self.context, bytes as u64) } } else { 0 } {
            0 => Err(Error::machine(format!("{} MiB of memory are not to be had", bytes >> 20)).at("emulated")),
            start => {
                self.held.borrow_mut().insert(DevicePtr(start), bytes as u64);
                self.lanes.borrow_mut().clear(span(DevicePtr(start), bytes));
                Ok(DevicePtr(start))
            }
        }
    }

    fn free(&self, start: DevicePtr) {
        let bytes = self.held.borrow_mut().remove(&start).unwrap_or(0);
        self.lanes.borrow_mut().free(&span(start, bytes as usize));
        // SAFETY: the device frees what it allocated, once.
        unsafe { (self.functions.free)(self.context, start.0) }
    }

    fn upload(&self, to: DevicePtr, bytes: &[u8]) -> Result<()> {
        self.touch(to, bytes.len())?;
        self.land(to, bytes);
        Ok(())
    }

    fn download(&self, pieces: &mut [(DevicePtr, &mut [u8])]) -> Result<()> {
        for (from, bytes) in pieces {
            self.touch(*from, bytes.len())?;
            // SAFETY: as for `land`.
            unsafe { std::ptr::copy_nonoverlapping(from.0 as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        }
        self.sync()
    }

    fn copy(&self, from: DevicePtr, to: DevicePtr, bytes: usize) -> Result<()> {
        self.touch(from, bytes)?;
        self.touch(to, bytes)?;
        // SAFETY: as for `land`; the copy is made first, so that the two may overlap.
        let taken = unsafe { std::slice::from_raw_parts(from.0 as *const u8, bytes) }.to_vec();
        self.land(to, &taken);
        Ok(())
    }

    fn send(&self, to: DevicePtr, bytes: &[u8]) -> Result<()> {
        let landed = self.lanes.borrow_mut().send(to, bytes).map_err(|what| Error::machine(what).at("emulated"))?;
        self.land(to, landed);
        Ok(())
    }

    fn join(&self) -> Result<()> {
        let landed = self.lanes.borrow_mut().join();
        landed.iter().for_each(|(to, bytes)| self.land(*to, bytes));
        Ok(())
    }

    fn hold(&self) -> Result<()> {
        self.lanes.borrow_mut().hold();
        Ok(())
    }

    fn launch(&self, mut launch: Launch) -> Result<()> {
        if self.note(|| Event::Launch(launch.clone())) {
            return Ok(());
        }
        self.run(&mut launch)
    }

    fn forget(&self, regions: Vec<Region>) {
        if !self.note(|| Event::Forget(regions.clone())) {
            // SAFETY: the regions lie in arenas of this device.
            regions.iter().for_each(|r| unsafe { (self.functions.forget)(self.context, &raw(r)) });
        }
    }

    fn filled(&self, regions: Vec<Region>) -> Result<()> {
        if self.note(|| Event::Filled(regions.clone())) {
            return Ok(());
        }
        for r in &regions {
            // SAFETY: as for `forget`.
            let at = unsafe { (self.functions.unwritten)(self.context, &raw(r)) };
            if let Ok(at) = usize::try_from(at) {
                let (name, row, byte) = (r.name.to_string_lossy(), at / r.row_bytes, at % r.row_bytes);
                let what = format!("{}: byte {byte} of row {row} of {name} was never written", self.latest.get());
                return Err(Error::machine(what).at("emulated"));
            }
        }
        Ok(())
    }

    fn begin(&self) -> Result<()> {
        *self.notes.borrow_mut() = Some(Vec::new());
        Ok(())
    }

    fn end(&self) -> Result<Recording> {
        let notes = self.notes.borrow_mut().take();
        let events = notes.ok_or_else(|| Error::internal("a recording ends that never began"))?;
        Ok(Box::new(Recorded::new(events, &self.alive)))
    }

    fn replay(&self, recording: &Recording) -> Result<()> {
        let recorded: &Recorded = recording.downcast_ref().ok_or_else(|| Error::internal("a recording of another driver"))?;
        recorded.events.iter().try_for_each(|event| match event.clone() {
            Event::Launch(mut launch) => self.run(&mut launch),
            Event::Forget(regions) => {
                self.forget(regions);
                Ok(())
            }
            Event::Filled(regions) => self.filled(regions),
        })
    }

    fn sync(&self) -> Result<()> {
        // The host has waited: nothing launched before still runs.
        self.lanes.borrow_mut().hold();
        Ok(())
    }

    fn time(&self, body: &mut dyn FnMut()) -> Result<f64> {
        let start = Instant::now();
        body();
        Ok(start.elapsed().as_secs_f64())
    }
}
