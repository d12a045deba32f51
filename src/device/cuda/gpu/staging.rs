//! Pinned buffers on the way from the host to the GPU: while one is copied by the GPU, the next is filled.
//!
//! What is small has buffers of its own, many of them: labels and rates of the next step are written while the step before runs, and
//! must not wait until the GPU has come so far as to read those of that step.

use super::probe::check;
use super::{Untyped, sys};
use crate::device::cuda::DevicePtr;
use crate::error::Result;
use std::ptr;

/// Bytes of a large buffer: several batches of 16 images.
const LARGE: usize = 32 << 20;
/// Bytes of a small one, and how many there are: those of several steps.
pub const SMALL: usize = 64 << 10;
const SMALLS: usize = 32;

/// Buffers of one size, taken in turn, each with the event that says when the GPU has read it.
struct Ring {
    buffers: Vec<(Untyped, sys::CUevent)>,
    next: usize,
}

impl Ring {
    fn new(count: usize, bytes: usize, stream: sys::CUstream) -> Result<Self> {
        let mut buffers = vec![(ptr::null_mut(), ptr::null_mut()); count];
        for (buffer, event) in &mut buffers {
            // SAFETY: the out pointers are valid. A recorded event on an idle stream has happened: the buffer is free.
            unsafe {
                check(sys::cuMemHostAlloc(buffer, bytes, 0), "pinning memory")?;
                let untimed = sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32;
                check(sys::cuEventCreate(event, untimed), "making an event")?;
                check(sys::cuEventRecord(*event, stream), "making an event")?;
            }
        }
        Ok(Ring { buffers, next: 0 })
    }

    /// Sends what fits one buffer.
    fn send(&mut self, stream: sys::CUstream, to: u64, part: &[u8]) -> Result<()> {
        let (buffer, event) = self.buffers[self.next];
        self.next = (self.next + 1) % self.buffers.len();
        // SAFETY: the GPU has read the buffer when its event has happened, so that it can be filled again; the caller's part fits.
        // The device checks that the target lies in an arena.
        unsafe {
            check(sys::cuEventSynchronize(event), "a kernel failed")?;
            ptr::copy_nonoverlapping(part.as_ptr(), buffer.cast(), part.len());
            check(sys::cuMemcpyHtoDAsync_v2(to, buffer, part.len(), stream), "writing memory")?;
            check(sys::cuEventRecord(event, stream), "writing memory")
        }
    }
}

/// All buffers. Each stream may send through them.
pub struct Staging {
    large: Ring,
    small: Ring,
    /// [`SMALL`] bytes for what comes back.
    back: Untyped,
}

impl Staging {
    /// Allocates them; `stream` is idle.
    pub fn new(stream: sys::CUstream) -> Result<Self> {
        let (large, small, mut back) = (Ring::new(2, LARGE, stream)?, Ring::new(SMALLS, SMALL, stream)?, ptr::null_mut());
        // SAFETY: the out pointer is valid.
        check(unsafe { sys::cuMemHostAlloc(&mut back, SMALL, 0) }, "pinning memory")?;
        Ok(Staging { large, small, back })
    }

    /// Sends bytes to an address of the GPU, in order after what the stream already has. Returns once `bytes` has been read.
    pub fn send(&mut self, stream: sys::CUstream, to: u64, bytes: &[u8]) -> Result<()> {
        for (i, part) in bytes.chunks(LARGE).enumerate() {
            let ring = if part.len() <= SMALL { &mut self.small } else { &mut self.large };
            ring.send(stream, to + (i * LARGE) as u64, part)?;
        }
        Ok(())
    }

    /// Receives pieces of at most [`SMALL`] bytes together, after what the stream already has: one wait for all of them, where each
    /// piece of plain memory would be waited for.
    pub fn receive(&mut self, stream: sys::CUstream, pieces: &mut [(DevicePtr, &mut [u8])]) -> Result<()> {
        let mut places = Vec::with_capacity(pieces.len());
        let mut at: *mut u8 = self.back.cast();
        for (from, bytes) in pieces.iter() {
            places.push(at.cast_const());
            // SAFETY: the pieces fit the buffer one after the other, as the caller says; they lie in arenas of the device.
            unsafe {
                check(sys::cuMemcpyDtoHAsync_v2(at.cast(), from.0, bytes.len(), stream), "reading memory")?;
                at = at.add(bytes.len());
            }
        }
        // SAFETY: the stream is the caller's.
        check(unsafe { sys::cuStreamSynchronize(stream) }, "a kernel failed")?;
        for ((_, bytes), place) in pieces.iter_mut().zip(places) {
            // SAFETY: the GPU has written them.
            unsafe { ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), bytes.len()) };
        }
        Ok(())
    }

    /// Gives the buffers back.
    ///
    /// # Safety
    /// The streams have run dry and send nothing after.
    pub unsafe fn free(&mut self) {
        // SAFETY: as below.
        unsafe { sys::cuMemFreeHost(self.back) };
        for (buffer, event) in self.large.buffers.drain(..).chain(self.small.buffers.drain(..)) {
            // SAFETY: allocated in `new`; the caller says that nothing reads them.
            unsafe {
                sys::cuMemFreeHost(buffer);
                sys::cuEventDestroy_v2(event);
            }
        }
    }
}
