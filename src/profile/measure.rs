//! Repeated runs of a program, with and without a clock between its steps.

use crate::error::Result;
use crate::exec::{Program, Session};
use crate::ops::Backend;
use crate::pass::plan::Step;
use std::time::{Duration, Instant};

/// Wall-clock times of some runs, in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// Whole runs, without a clock between the steps.
    pub runs: Vec<f64>,
    /// The median time of each step.
    pub steps: Vec<f64>,
}

/// Runs a program whose inputs are set: `warm_up` runs that are not counted, `runs` whole runs, then, if `steps` is asked for,
/// as many with a clock read after each step.
///
/// # Errors
/// When the device has failed.
pub fn measure<D: Backend>(session: &mut Session<D>, program: &mut Program<D>, warm_up: usize, runs: usize, steps: bool) -> Result<Times> {
    for _ in 0..warm_up {
        session.replay(program, None)?;
    }
    let whole = |_| {
        let start = Instant::now();
        session.replay(program, None)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let runs: Vec<f64> = (0..runs).map(whole).collect::<Result<_>>()?;
    let mut each: Vec<Vec<f64>> = Vec::new();
    for _ in 0..if steps { runs.len() } else { 0 } {
        let mut at = 0;
        let mut note = |_: &Step, time: Duration| {
            each.resize_with(each.len().max(at + 1), Vec::new);
            each[at].push(time.as_secs_f64());
            at += 1;
        };
        session.replay(program, Some(&mut note))?;
    }
    Ok(Times { runs, steps: each.iter().map(|times| median(times)).collect() })
}

/// The middle value, or the mean of the two middle ones; 0 for an empty list.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The most memory that this process has had resident so far, in bytes, where the system tells (Linux).
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!([median(&[]), median(&[3.0]), median(&[9.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 9.0])], [0.0, 3.0, 2.0, 3.0]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_has_had_some_memory() {
        assert!(peak_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
