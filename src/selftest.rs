//! The op table against the specification: every op's cases, on every device.
//!
//! Two questions. *Is the maths right?* Each gradient rule, run on `naive` in f64, against central finite differences
//! (relative error at most 1e-6). *Is the code right?* Each op on a device against `naive`, within a budget that follows from
//! the number type and the number of terms summed. Operands lie at odd offsets with gaps between their rows and NaN all
//! around, so a read or a write that strays shows. Results are set and added, and elementwise ops run in place as well. *Does
//! it depend on what it must not?* The same bits in every run, and for an image alone and in a batch.
//!
//! A test that cannot fail proves nothing, so the same checks are then run on planted faults, each of which must be caught.

mod cuda;
mod draw;
mod equal;
mod faults;
mod gradient;
mod image;
mod inputs;
mod network;
mod run;

use crate::device::Device;
use crate::device::cpu::{Cpu, Isa};
use crate::error::Result;
use crate::ops::{Case, Op};
use run::{Fault, How, Mode};
use serde::Serialize;

/// The largest relative error between a gradient and finite differences: with steps of 1e-5 on data of order one, the
/// differences themselves are good to about 1e-9.
const GRADIENT_BUDGET: f64 = 1e-6;

/// One check of one case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `conv2d: 3x3 same, 17 channels`.
    pub case: String,
    /// `gradient`, or the device and mode: `cpu avx512 set`.
    pub check: String,
    /// The worst error as a share of the budget; above one is a failure, and so is a fault such as a stray write.
    pub share: f64,
    /// What went wrong, if it is not the size of an error.
    pub fault: Option<String>,
}

impl Row {
    /// Whether the check passed.
    pub fn passed(&self) -> bool {
        self.fault.is_none() && self.share <= 1.0
    }
}

/// The outcome of a self-test.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub device: String,
    pub rows: usize,
    pub passed: usize,
    pub failed: Vec<Row>,
    pub ops: Vec<&'static str>,
    pub dtypes: Vec<String>,
    pub faults_planted: usize,
    pub faults_caught: usize,
    /// The row that came closest to its budget, for a reader who wants to know how much room there is.
    pub worst: Option<Row>,
}

impl Report {
    /// Whether every check passed and every planted fault was caught.
    pub fn is_good(&self) -> bool {
        self.failed.is_empty() && self.faults_planted == self.faults_caught
    }
}

/// Which devices a self-test covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The gradients alone, on the specification itself.
    Naive,
    /// The CPU device on every instruction set of this machine, on one thread and on two.
    Cpu,
    /// The CUDA kernels on the emulated driver: with all checks, and in another order without.
    Emulated,
    /// The CUDA kernels on the first GPU.
    Cuda,
}

/// Runs all cases; `progress(done, total)` is called as they finish.
///
/// # Errors
/// When the machine has no memory for them.
pub fn run(target: Target, only: Option<&str>, progress: &dyn Fn(usize, usize)) -> Result<Report> {
    let cases: Vec<Case> = Op::cases().into_iter().filter(|c| only.is_none_or(|name| c.op.name() == name)).collect();
    match target {
        Target::Emulated => return cuda::emulated(&cases, progress),
        Target::Cuda => return cuda::gpu(&cases, progress),
        Target::Naive | Target::Cpu => {}
    }
    let cpus = match target {
        Target::Cpu => devices(),
        _ => Vec::new(),
    };
    let mut rows = Vec::new();
    let (mut planted, mut caught) = (0, 0);
    for (i, case) in cases.iter().enumerate() {
        rows.extend(gradient::check(case, GRADIENT_BUDGET, 1.0)?);
        for cpu in &cpus {
            for how in ways(cpu) {
                rows.extend(run::check(case, cpu, how, Fault::None)?);
                rows.extend(equal::check(case, cpu, how)?);
            }
        }
        progress(i + 1, cases.len());
    }
    // Faults are planted in the first case of each op: the same checks must now fail.
    let first_of_op = |i: usize| i == 0 || cases[i].op.name() != cases[i - 1].op.name();
    for case in (0..cases.len()).filter(|&i| first_of_op(i)).map(|i| &cases[i]) {
        let bent = gradient::check(case, GRADIENT_BUDGET, 1.0 + 1e-5)?;
        planted += usize::from(!bent.is_empty());
        caught += usize::from(bent.iter().any(|row| !row.passed()));
        let Some(cpu) = cpus.first() else { continue };
        for (fault, how) in Fault::PLANTED.into_iter().flat_map(|fault| ways(cpu).map(move |how| (fault, how))) {
            let found = run::check(case, cpu, how, fault)?;
            planted += usize::from(!found.is_empty());
            caught += usize::from(found.iter().any(|row| !row.passed()));
        }
    }
    let passed = rows.iter().filter(|r| r.passed()).count();
    let worst = rows.iter().max_by(|a, b| a.share.total_cmp(&b.share)).cloned();
    let (device, dtypes) = match target {
        Target::Cpu => (
            cpus[0].describe_isas(),
            ["f64"].into_iter().map(String::from).chain(ways(&cpus[0]).map(|how| how.precision.to_string())).collect(),
        ),
        _ => ("naive".into(), vec!["f64".into()]),
    };
    Ok(Report {
        device,
        rows: rows.len(),
        passed,
        failed: rows.into_iter().filter(|r| !r.passed()).collect(),
        ops: Op::names(),
        dtypes,
        faults_planted: planted,
        faults_caught: caught,
        worst,
    })
}

/// The precisions of a device.
fn ways(cpu: &Cpu) -> impl Iterator<Item = How> + use<> {
    [How::PLAIN, How::BF16].into_iter().take(cpu.precisions().len())
}

/// Every instruction set of this machine on two threads, and the best one on a single thread.
fn devices() -> Vec<Cpu> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.available());
    [Cpu::with(Isa::best(), 1)].into_iter().chain(isas.map(|isa| Cpu::with(isa, 2))).collect()
}

impl Cpu {
    fn describe_isas(&self) -> String {
        let names: Vec<String> = Isa::ALL.iter().filter(|isa| isa.available()).map(|isa| isa.to_string()).collect();
        format!("cpu ({})", names.join(", "))
    }
}

/// A one-line name of a case.
fn title(case: &Case) -> String {
    format!("{}: {}", case.op.name(), case.name)
}

/// The ways a result is written.
const MODES: [Mode; 3] = [Mode::Set, Mode::Add, Mode::InPlace];
