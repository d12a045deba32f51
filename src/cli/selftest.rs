//! `defrost selftest`: the op table against the specification, on this machine.

use super::{layer_times, output};
use crate::base::Precision;
use crate::device::cpu::Cpu;
use crate::error::{Error, Result};
use crate::models::did_you_mean;
use crate::ops::Op;
use crate::selftest::{Report, Row, Target};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Check every operation of the engine on this machine
///
/// Each gradient is compared with finite differences in f64, each op of the device with plain f64 loops, and faults are
/// planted to show that the checks would notice them.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  defrost selftest\n  defrost selftest --device emulated --op conv2d --json\n  defrost selftest --time")]
pub struct Args {
    /// Device to check
    #[arg(long, value_name = "DEVICE", value_enum, default_value_t = Name::Cpu)]
    device: Name,
    /// Check this op alone
    #[arg(long, value_name = "NAME")]
    op: Option<String>,
    /// Time every distinct convolution of the four networks instead, in every direction, against the machine's peak arithmetic
    #[arg(long, conflicts_with = "op")]
    time: bool,
    /// Images per step, with --time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = super::positive, requires = "time")]
    batch_size: usize,
    /// Threads, with --time [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), requires = "time")]
    threads: Option<u16>,
    /// What convolutions multiply, with --time: f32, or bf16 beside it where the processor does
    #[arg(long, value_name = "TYPE", default_value_t = Precision::F32, requires = "time")]
    precision: Precision,
    /// Plain sums in every convolution, with --time
    #[arg(long, requires = "time")]
    exact: bool,
    /// Print {device, rows, passed, failed, ops, dtypes, faults_planted, faults_caught}
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// Every instruction set of this machine, one thread and two
    Cpu,
    /// The gradients alone
    Naive,
    /// The first NVIDIA GPU
    Cuda,
    /// The CUDA kernels on this machine's processor; needs a C++ compiler
    Emulated,
}

/// The record of `--json`.
#[derive(Serialize)]
struct Record<'a> {
    device: &'a str,
    rows: usize,
    passed: usize,
    failed: &'a [Row],
    ops: &'a [&'a str],
    dtypes: &'a [String],
    faults_planted: usize,
    faults_caught: usize,
}

/// Runs the self-test; a row that fails makes the exit code 1.
pub fn run(args: Args) -> Result<()> {
    let target = match args.device {
        Name::Cpu => Target::Cpu,
        Name::Naive => Target::Naive,
        Name::Emulated => Target::Emulated,
        Name::Cuda => Target::Cuda,
    };
    if args.time {
        if target != Target::Cpu {
            return Err(Error::input("the naive device is a specification, its speed says nothing").at("time").advise("use --device cpu"));
        }
        let cpu = Cpu::new(args.threads.map_or(0, usize::from))?.exact(args.exact);
        return layer_times::run(&cpu, args.batch_size, args.precision, args.json);
    }
    let ops: Vec<&str> = Op::names().into_iter().filter(|name| args.op.as_deref().is_none_or(|op| op == *name)).collect();
    if let (Some(op), true) = (&args.op, ops.is_empty()) {
        let names = Op::names();
        let error = Error::input(format!("no op is called {op:?}; there are {}", names.join(", ")));
        return Err(match did_you_mean(op, names) {
            Some(hint) => error.advise(hint),
            None => error,
        });
    }
    let bar = ProgressBar::new(1).with_style(ProgressStyle::with_template("{bar:40} {pos}/{len} cases").expect("a valid template"));
    let report = crate::selftest::run(target, args.op.as_deref(), &|done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    if args.json {
        let Report { device, rows, passed, failed, dtypes, faults_planted, faults_caught, .. } = &report;
        let (rows, passed, faults_planted, faults_caught) = (*rows, *passed, *faults_planted, *faults_caught);
        output::json(&Record { device, rows, passed, failed, ops: &ops, dtypes, faults_planted, faults_caught })?;
    } else {
        output::print(&text(&report, ops.len()))?;
    }
    if report.is_good() {
        return Ok(());
    }
    let missed = report.faults_planted - report.faults_caught;
    Err(Error::partial(format!("{} of {} checks failed, {missed} planted faults went unnoticed", report.failed.len(), report.rows)))
}

fn text(report: &Report, ops: usize) -> String {
    let line = |row: &Row| match &row.fault {
        Some(fault) => format!("FAILED  {}, {}: {fault}\n", row.case, row.check),
        None => format!("FAILED  {}, {}: error {:.1} times its budget\n", row.case, row.check, row.share),
    };
    let mut text: String = report.failed.iter().map(line).collect();
    text += &format!("{}: {ops} ops, {} of {} checks passed\n", report.device, report.passed, report.rows);
    text += &format!("{} of {} planted faults caught\n", report.faults_caught, report.faults_planted);
    if let Some(worst) = report.worst.as_ref().filter(|row| row.passed()) {
        text += &format!("closest to its budget: {}, {} ({:.0}%)\n", worst.case, worst.check, 100.0 * worst.share);
    }
    text
}
