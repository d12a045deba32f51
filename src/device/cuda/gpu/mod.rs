//! The driver of a real GPU: NVIDIA's library, loaded at run time through cudarc, so that one program runs with and without.
//!
//! One stream for all launches: their order is the order of the program. What is sent ahead goes into a second stream, and two events
//! make either wait for the other. A recorded list of launches is a CUDA graph. All that the host sends goes through pinned buffers, so
//! that sending does not wait for the step before.

mod probe;
mod staging;

use super::driver::{DevicePtr, Driver, Launch, Recording};
use super::embedded::IMAGES;
use crate::base::Precision;
use crate::error::{Error, Result};
use cudarc::driver::sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr;

use probe::check;
pub use probe::{Found, devices, open};
use staging::{SMALL, Staging};

/// Dynamic shared memory that a kernel may ask for without opting in.
const SHARED_WITHOUT_ASKING: u32 = 48 << 10;

/// A GPU.
pub struct Gpu {
    found: Found,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// The stream of what is sent ahead.
    ahead: sys::CUstream,
    /// When the last thing sent has arrived, and when the last launch that sends must wait for is done.
    arrived: sys::CUevent,
    done: sys::CUevent,
    modules: HashMap<&'static str, sys::CUmodule>,
    /// Kernels by name, and the shared memory that each has been allowed.
    functions: RefCell<HashMap<&'static str, (sys::CUfunction, u32)>>,
    staging: RefCell<Staging>,
}

/// A recorded list of launches: a CUDA graph, ready to go.
struct Graph(sys::CUgraphExec);

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the graph is this value's; a launch of it that is still running keeps what it needs.
        unsafe { sys::cuGraphExecDestroy(self.0) };
    }
}

impl Gpu {
    /// Takes a GPU that was found, and loads all kernels: a recording must not load anything.
    fn new(found: Found) -> Result<Self> {
        let (mut context, mut streams, mut events) = (ptr::null_mut(), [ptr::null_mut(); 2], [ptr::null_mut(); 2]);
        // SAFETY: cuInit has succeeded (`found` was found); the out pointers are valid.
        unsafe {
            check(sys::cuDevicePrimaryCtxRetain(&mut context, found.device), "opening the GPU")?;
            check(sys::cuCtxSetCurrent(context), "opening the GPU")?;
            for stream in &mut streams {
                check(sys::cuStreamCreate(stream, sys::CUstream_flags_enum::CU_STREAM_NON_BLOCKING as u32), "making a stream")?;
            }
            for event in &mut events {
                check(sys::cuEventCreate(event, sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32), "making an event")?;
            }
        }
        let ([stream, ahead], [arrived, done]) = (streams, events);
        let mut modules = HashMap::new();
        for &(file, image) in IMAGES {
            let mut module = ptr::null_mut();
            // SAFETY: the image is a whole fat binary made by nvcc.
            let code = unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) };
            probe::loaded(code, &found)?;
            modules.insert(file, module);
        }
        let staging = RefCell::new(Staging::new(stream)?);
        Ok(Gpu { found, context, stream, ahead, arrived, done, modules, functions: RefCell::default(), staging })
    }

    /// Makes this GPU the one that the calling thread talks to.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context is retained for as long as `self` lives.
        check(unsafe { sys::cuCtxSetCurrent(self.context) }, "the GPU")
    }

    /// Lets what comes next in `later` wait for all that is in `earlier`.
    fn fence(&self, earlier: sys::CUstream, event: sys::CUevent, later: sys::CUstream) -> Result<()> {
        // SAFETY: the streams and the event are ours. A wait is for the event as it was recorded last, which is here.
        unsafe {
            check(sys::cuEventRecord(event, earlier), "ordering two streams")?;
            check(sys::cuStreamWaitEvent(later, event, 0), "ordering two streams")
        }
    }

    /// A kernel, allowed as much shared memory as this launch wants.
    fn function(&self, launch: &Launch) -> Result<sys::CUfunction> {
        let mut functions = self.functions.borrow_mut();
        let entry = match functions.get_mut(launch.kernel) {
            Some(entry) => entry,
            None => {
                let unknown = || Error::internal(format!("no kernel {} in {}.cu", launch.kernel, launch.file));
                let module = *self.modules.get(launch.file).ok_or_else(unknown)?;
                let name = CString::new(launch.kernel).map_err(|_| unknown())?;
                let mut function = ptr::null_mut();
                // SAFETY: the module is loaded; the name ends with a zero.
                let code = unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) };
                check(code, "looking a kernel up").map_err(|e| e.at(launch.kernel))?;
                functions.entry(launch.kernel).or_insert((function, SHARED_WITHOUT_ASKING))
            }
        };
        if launch.shared > entry.1 {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is of a loaded module.
            let code = unsafe { sys::cuFuncSetAttribute(entry.0, attribute, launch.shared as i32) };
            check(code, "asking for shared memory").map_err(|e| e.at(launch.kernel))?;
            entry.1 = launch.shared;
        }
        Ok(entry.0)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // What fails here fails because the GPU is gone already.
        if self.enter().is_ok() {
            // SAFETY: all of these are this value's, and used no more after the streams have run dry.
            unsafe {
                sys::cuStreamSynchronize(self.stream);
                sys::cuStreamSynchronize(self.ahead);
                self.staging.get_mut().free();
                self.modules.values().for_each(|&module| {
                    sys::cuModuleUnload(module);
                });
                sys::cuEventDestroy_v2(self.arrived);
                sys::cuEventDestroy_v2(self.done);
                sys::cuStreamDestroy_v2(self.stream);
                sys::cuStreamDestroy_v2(self.ahead);
                sys::cuDevicePrimaryCtxRelease_v2(self.found.device);
            }
        }
    }
}

impl Driver for Gpu {
    fn describe(&self) -> String {
        format!("cuda:{} ({})", self.found.ordinal, self.found.name)
    }

    fn shared_limit(&self) -> usize {
        self.found.shared_limit
    }

    fn processors(&self) -> usize {
        self.found.multiprocessors as usize
    }

    fn warpgroups(&self) -> bool {
        self.found.compute_capability == (9, 0) && self.found.has_code()
    }

    fn checks(&self) -> bool {
        false
    }

    fn peak(&self, precision: Precision) -> Option<f64> {
        self.found.peak(precision)
    }

    fn free_memory(&self) -> Option<u64> {
        let (mut free, mut total) = (0, 0);
        self.enter().ok()?;
        // SAFETY: the out pointers are valid.
        check(unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) }, "asking for free memory").ok()?;
        Some(free as u64)
    }

    fn alloc(&self, bytes: usize) -> Result<DevicePtr> {
        self.enter()?;
        let mut start = 0;
        // SAFETY: the out pointer is valid.
        let code = unsafe { sys::cuMemAlloc_v2(&mut start, bytes) };
        if code == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            let free = self.free_memory().unwrap_or(0);
            let what = format!("{} MiB of GPU memory are not to be had, {} MiB are free", bytes >> 20, free >> 20);
            return Err(Error::machine(what).at(self.describe()).advise("a smaller --batch-size or --input-size needs less"));
        }
        check(code, "allocating memory")?;
        // SAFETY: the memory was allocated just now with this size.
        check(unsafe { sys::cuMemsetD8Async(start, 0, bytes, self.stream) }, "clearing memory")?;
        Ok(DevicePtr(start))
    }

    fn free(&self, start: DevicePtr) {
        // SAFETY: the device frees what it allocated, once. It waits for the launches that use it.
        if self.enter().is_ok() {
            unsafe { sys::cuMemFree_v2(start.0) };
        }
    }

    fn upload(&self, to: DevicePtr, bytes: &[u8]) -> Result<()> {
        self.staging.borrow_mut().send(self.stream, to.0, bytes)
    }

    fn download(&self, pieces: &mut [(DevicePtr, &mut [u8])]) -> Result<()> {
        if pieces.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= SMALL {
            return self.staging.borrow_mut().receive(self.stream, pieces);
        }
        for (from, bytes) in pieces {
            // SAFETY: the device checks that the range lies in an arena; the stream is waited for before `bytes` is given back.
            let code = unsafe { sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast(), from.0, bytes.len(), self.stream) };
            check(code, "reading memory")?;
        }
        self.sync()
    }

    fn copy(&self, from: DevicePtr, to: DevicePtr, bytes: usize) -> Result<()> {
        // SAFETY: the device checks that both ranges lie in memory of its own.
        check(unsafe { sys::cuMemcpyDtoDAsync_v2(to.0, from.0, bytes, self.stream) }, "moving memory")
    }

    fn send(&self, to: DevicePtr, bytes: &[u8]) -> Result<()> {
        self.staging.borrow_mut().send(self.ahead, to.0, bytes)
    }

    fn join(&self) -> Result<()> {
        self.fence(self.ahead, self.arrived, self.stream)
    }

    fn hold(&self) -> Result<()> {
        self.fence(self.stream, self.done, self.ahead)
    }

    fn launch(&self, mut launch: Launch) -> Result<()> {
        let function = self.function(&launch)?;
        let [x, y, z] = launch.grid.0;
        let mut arguments = launch.pointers();
        let (block, shared) = (launch.block, launch.shared);
        // SAFETY: the arguments are those that the kernel declares: a test compares each declaration with the kernel's source.
        // They point into `launch`, which outlives the call; the driver copies them.
        let code =
            unsafe { sys::cuLaunchKernel(function, x, y, z, block, 1, 1, shared, self.stream, arguments.as_mut_ptr(), ptr::null_mut()) };
        check(code, "launching").map_err(|e| e.at(launch.kernel))
    }

    fn begin(&self) -> Result<()> {
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is ours; nothing else uses it.
        check(unsafe { sys::cuStreamBeginCapture_v2(self.stream, mode) }, "recording a step")
    }

    fn end(&self) -> Result<Recording> {
        let (mut graph, mut ready) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the stream is capturing; the graph is destroyed once the executable one is made from it.
        unsafe {
            check(sys::cuStreamEndCapture(self.stream, &mut graph), "recording a step")?;
            let code = sys::cuGraphInstantiateWithFlags(&mut ready, graph, 0);
            sys::cuGraphDestroy(graph);
            check(code, "recording a step")?;
        }
        Ok(Box::new(Graph(ready)))
    }

    fn replay(&self, recording: &Recording) -> Result<()> {
        let graph: &Graph = recording.downcast_ref().ok_or_else(|| Error::internal("a recording of another driver"))?;
        // SAFETY: the graph was made on this context; the arenas it names are as they were (the session sees to that).
        check(unsafe { sys::cuGraphLaunch(graph.0, self.stream) }, "replaying a step")
    }

    fn sync(&self) -> Result<()> {
        // SAFETY: the stream is ours.
        check(unsafe { sys::cuStreamSynchronize(self.stream) }, "a kernel failed")
    }

    fn time(&self, body: &mut dyn FnMut()) -> Result<f64> {
        let mut events: [sys::CUevent; 2] = [ptr::null_mut(); 2];
        let mut milliseconds = 0f32;
        let [start, end] = &mut events;
        // SAFETY: the out pointers are valid, and the events are destroyed after they have happened.
        unsafe {
            check(sys::cuEventCreate(start, 0), "timing")?;
            check(sys::cuEventCreate(end, 0), "timing")?;
            check(sys::cuEventRecord(*start, self.stream), "timing")?;
            body();
            check(sys::cuEventRecord(*end, self.stream), "timing")?;
            check(sys::cuEventSynchronize(*end), "a kernel failed")?;
            check(sys::cuEventElapsedTime(&mut milliseconds, *start, *end), "timing")?;
            sys::cuEventDestroy_v2(*start);
            sys::cuEventDestroy_v2(*end);
        }
        Ok(f64::from(milliseconds) / 1e3)
    }
}

/// A pointer that the library's C functions take for untyped memory.
type Untyped = *mut c_void;
