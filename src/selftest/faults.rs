//! Kernels that are wrong on purpose (`emulator/faults.cu`): the emulated driver must find each fault and name the kernel.

use super::Row;
use crate::device::cuda::emulated::{Emulated, Manner};
use crate::device::cuda::{DevicePtr, Driver, Grid, Launch, Region};
use crate::error::Result;

/// Kernels, with what must be said of them.
const PLANTED: [(&str, &str); 22] = [
    ("fault_read_past_end", "global read out of bounds: 4 bytes, ending 4 past the end of input 0"),
    ("fault_read_before_start", "global read out of bounds: 4 bytes, 4 before the start of input 0"),
    ("fault_write_past_end", "global write out of bounds: 4 bytes, ending 4 past the end of result 0"),
    ("fault_write_before_start", "global write out of bounds: 4 bytes, 4 before the start of result 0"),
    ("fault_write_to_input", "write to input 0, which is there to be read"),
    ("fault_misaligned", "not aligned"),
    ("fault_shared_unwritten", "read of shared memory that nothing wrote"),
    ("fault_barrier_not_reached", "a barrier is not reached by all threads"),
    ("fault_barrier_in_two_places", "a barrier is not reached by all threads"),
    ("fault_shared_race", "race in shared memory"),
    ("fault_shared_race_in_warp", "race in shared memory"),
    ("fault_shared_overwritten_while_read", "race in shared memory"),
    ("fault_copy_read_before_wait", "of shared memory that a cp.async fills, before its wait"),
    ("fault_copy_read_before_barrier", "race in shared memory"),
    ("fault_copy_read_before_phase", "of shared memory that a cp.async fills, before its wait"),
    ("fault_phase_never_ends", "waits in a barrier in shared memory"),
    ("fault_product_without_fence", "with no proxy fence between"),
    ("fault_product_operand_overwritten", "race in shared memory"),
    ("fault_blocks_race", "race in global memory"),
    ("fault_result_unwritten", "was never written"),
    ("fault_result_read_before_written", "read of result 0 where nothing was written"),
    ("fault_too_much_shared", "the chip has"),
];

/// The kernel that is right.
const NONE: &str = "fault_none";
const THREADS: u32 = 64;
const BYTES: usize = 128 * 4;

/// Runs them all: how many were planted, and those that were missed. The kernel that is right counts as one more; it is missed if
/// the driver refuses it.
///
/// # Errors
/// When the emulator cannot be built.
pub fn run() -> Result<(usize, Vec<Row>)> {
    let mut missed = Vec::new();
    for (kernel, expected) in PLANTED.into_iter().chain([(NONE, "")]) {
        let said = outcome(kernel)?.err().map(|e| e.to_string()).unwrap_or_default();
        let named = said.contains(kernel) || kernel == NONE;
        if !(named && said.contains(expected)) || (kernel == NONE && !said.is_empty()) {
            let fault = Some(format!("expected {expected:?}, found {said:?}"));
            missed.push(Row { case: kernel.into(), check: "planted fault".into(), share: 0.0, fault });
        }
    }
    Ok((PLANTED.len() + 1, missed))
}

/// What a checking driver says of a kernel, run on a device of its own.
fn outcome(kernel: &'static str) -> Result<Result<()>> {
    let driver = Emulated::new(Manner::CHECKED_SMALLEST)?;
    let (x, y) = (driver.alloc(BYTES)?, driver.alloc(BYTES)?);
    driver.upload(x, &[0; BYTES])?;
    let region = |start, writable, name| Region { start, rows: 1, row_bytes: BYTES, pitch: BYTES, writable, name };
    let result = region(y, true, c"result 0");
    driver.forget(vec![result.clone()]);
    let launch = Launch {
        kernel,
        file: "faults",
        signature: || "*const f32, *mut f32".into(),
        grid: Grid::from(2),
        block: THREADS,
        shared: if kernel == "fault_too_much_shared" { 100 << 10 } else { 0 },
        words: vec![x.0, y.0],
        starts: vec![0, 1],
        regions: vec![result.clone(), region(x, false, c"input 0")],
    };
    let said = driver.launch(launch).and_then(|()| driver.filled(vec![result]));
    [x, y].into_iter().for_each(|start: DevicePtr| driver.free(start));
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_for_what_it_is() {
        let (planted, missed) = run().unwrap();
        assert!(planted > PLANTED.len() && missed.is_empty(), "{missed:#?}");
    }
}
