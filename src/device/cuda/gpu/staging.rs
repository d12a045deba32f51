//! Two pinned buffers on the way from the host to the GPU: while one is copied by the GPU, the other is filled.

use super::probe::check;
use super::{Untyped, sys};
use crate::error::Result;
use std::ptr;

/// Bytes of a buffer: several batches of 16 images.
const BYTES: usize = 32 << 20;

/// The buffers, with the event that says when the GPU has read each.
pub struct Staging {
    buffers: [(Untyped, sys::CUevent); 2],
    next: usize,
}

impl Staging {
    /// Allocates both.
    pub fn new(stream: sys::CUstream) -> Result<Self> {
        let mut staging = Staging { buffers: [(ptr::null_mut(), ptr::null_mut()); 2], next: 0 };
        for (buffer, event) in &mut staging.buffers {
            // SAFETY: the out pointers are valid. A recorded event on an idle stream has happened: the buffer is free.
            unsafe {
                check(sys::cuMemHostAlloc(buffer, BYTES, 0), "pinning memory")?;
                let untimed = sys::CUevent_flags_enum::CU_EVENT_DISABLE_TIMING as u32;
                check(sys::cuEventCreate(event, untimed), "making an event")?;
                check(sys::cuEventRecord(*event, stream), "making an event")?;
            }
        }
        Ok(staging)
    }

    /// Sends bytes to an address of the GPU, in order after what the stream already has. Returns once `bytes` has been read.
    pub fn send(&mut self, stream: sys::CUstream, to: u64, bytes: &[u8]) -> Result<()> {
        for (i, part) in bytes.chunks(BYTES).enumerate() {
            let (buffer, event) = self.buffers[self.next];
            self.next = 1 - self.next;
            // SAFETY: the GPU has read the buffer when its event has happened, so that it can be filled again; the part fits.
            // The device checks that the target lies in an arena.
            unsafe {
                check(sys::cuEventSynchronize(event), "a kernel failed")?;
                ptr::copy_nonoverlapping(part.as_ptr(), buffer.cast(), part.len());
                let at = to + (i * BYTES) as u64;
                check(sys::cuMemcpyHtoDAsync_v2(at, buffer, part.len(), stream), "writing memory")?;
                check(sys::cuEventRecord(event, stream), "writing memory")?;
            }
        }
        Ok(())
    }

    /// Gives the buffers back.
    ///
    /// # Safety
    /// The stream has run dry and sends nothing after.
    pub unsafe fn free(&mut self) {
        for (buffer, event) in self.buffers {
            // SAFETY: allocated in `new`; the caller says that nothing reads them.
            unsafe {
                sys::cuMemFreeHost(buffer);
                sys::cuEventDestroy_v2(event);
            }
        }
    }
}
