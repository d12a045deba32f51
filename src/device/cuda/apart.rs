//! Memory apart from the host's: inputs sent on a stream beside that of the launches, and rows gathered by `kernels/gather.cu`.

use super::{Cuda, Device, Memory, Region};
use crate::device::apart::{Apart, Rows, Stored};
use crate::error::Result;
use crate::kernels;
use std::ffi::CStr;

kernels! { in "gather";
    fn gather_f32(x: *const f32, chosen: *const u32, y: *mut f32, len: i32);
    fn gather_u8(x: *const u8, chosen: *const u32, y: *mut f32, len: i32);
}

/// Threads of a block and numbers of a row that it copies: `GATHER_THREADS` and `PER_BLOCK` in gather.cu.
const THREADS: u32 = 256;
const PER_BLOCK: usize = 1024;

impl Memory {
    /// `bytes` bytes from byte `at` on, as a launch may touch them.
    fn region(&self, at: usize, bytes: usize, writable: bool, name: &'static CStr) -> Region {
        assert!(at + bytes <= self.bytes, "a region past the end of an arena");
        Region { start: self.start.offset(at), rows: 1, row_bytes: bytes, pitch: bytes, writable, name }
    }
}

impl Apart<Memory> for Cuda {
    fn mailbox(&self, bytes: usize) -> Result<Memory> {
        let memory = self.alloc(bytes)?;
        self.attempt(|driver| driver.hold());
        Ok(memory)
    }

    fn send(&self, to: &mut Memory, bytes: &[u8]) {
        assert!(bytes.len() <= to.bytes, "a message larger than its mailbox");
        self.attempt(|driver| driver.send(to.start, bytes));
    }

    fn deliver(&self, from: &Memory, to: &mut Memory, at: usize, bytes: usize) {
        assert!(bytes <= from.bytes && at + bytes <= to.bytes, "a message larger than its place");
        self.attempt(|driver| {
            driver.join()?;
            driver.copy(from.start, to.start.offset(at), bytes)?;
            driver.hold()
        });
    }

    fn gather(&self, rows: &mut Rows<Memory>, chosen: &[u32], to: &mut Memory, at: usize) {
        let Rows { memory, stored, count, len, chosen: numbers } = rows;
        self.write(numbers, 0, bytemuck::cast_slice(chosen));
        let all = memory.region(0, *count * *len * stored.size(), false, c"the rows that stay");
        let choice = numbers.region(0, size_of_val(chosen), false, c"the numbers of rows");
        let result = to.region(at, chosen.len() * *len * 4, true, c"the rows gathered");
        let arguments = (all.start, choice.start, result.start, *len as i32);
        let kernel = match stored {
            Stored::F32 => gather_f32,
            Stored::U8 => gather_u8,
        };
        let (grid, written) = ((len.div_ceil(PER_BLOCK), chosen.len()), vec![result.clone()]);
        if self.driver.checks() {
            self.driver.forget(written.clone());
        }
        self.launch(kernel, grid, THREADS, 0, || vec![result, all, choice], arguments);
        if self.driver.checks() {
            self.attempt(|driver| driver.filled(written));
        }
    }
}
