//! The op table on CUDA kernels.

use super::run::{self, Fault, How, Layout};
use super::{Report, Row, equal, faults, inputs, network};
use crate::base::Precision;
use crate::device::Device;
use crate::device::cpu::Cpu;
use crate::device::cuda::emulated::{Manner, object, open};
use crate::device::cuda::{Cuda, gpu};
use crate::error::Result;
use crate::ops::{Case, Op};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Every precision, with wide accesses and without.
const WAYS: [How; 6] = {
    const fn how(precision: Precision, layout: Layout) -> How {
        How { precision, layout }
    }
    [
        how(Precision::F32, Layout::Odd),
        how(Precision::F32, Layout::Aligned),
        how(Precision::Tf32, Layout::Odd),
        how(Precision::Tf32, Layout::Aligned),
        how(Precision::Bf16, Layout::Odd),
        how(Precision::Bf16, Layout::Aligned),
    ]
};

/// How the emulated driver runs kernels: the last two without checks, for what is asked of bits alone, on many multiprocessors and on one.
const MANNERS: [Manner; 5] =
    [Manner::CHECKED, Manner::CHECKED_OTHERWISE, Manner::CHECKED_SMALLEST, Manner::FAST, Manner { processors: 1, ..Manner::FAST }];

/// Bytes of an input that is sent ahead: emulated, and on a GPU, where it should take a while.
const MESSAGE: usize = 70_001;
const LARGE_MESSAGE: usize = 8 << 20;

/// Runs cases on the emulated driver, on all cores.
pub fn emulated(cases: &[Case], progress: &dyn Fn(usize, usize)) -> Result<Report> {
    for manner in MANNERS {
        object(manner.build)?;
    }
    let check = |case: &Case, devices: &[Cuda]| {
        let mut rows = Vec::new();
        for how in WAYS {
            let [checked, otherwise, smallest, many, one] = devices else { unreachable!("a device for each manner") };
            // Only convolutions in bf16 have kernels of their own on Hopper.
            let others = (how.precision == Precision::Bf16 && case.op.name().starts_with("conv2d")).then_some(smallest);
            for device in [checked, otherwise, many].into_iter().chain(others) {
                rows.extend(run::check(case, device, how, Fault::None)?);
            }
            rows.extend(equal::check(case, many, how)?);
            rows.extend(equal::across(case, "on one multiprocessor and on many", [many, one], how)?);
        }
        Ok(rows)
    };
    let mut rows = each(cases, progress, &check)?;
    for manner in MANNERS {
        rows.extend(inputs::check(&open(manner)?, MESSAGE)?);
    }
    let mut report = report("emulated".into(), rows);
    let (kernels, mut missed) = faults::run()?;
    let (results, others) = spoilt_results(cases)?;
    missed.extend(others);
    report.faults_planted = kernels + results;
    report.faults_caught = report.faults_planted - missed.len();
    report.failed.extend(missed);
    Ok(report)
}

/// Spoils what the first case of each op left, which the comparison with the specification must notice. Returns how many faults
/// were planted, and those that were missed.
fn spoilt_results(cases: &[Case]) -> Result<(usize, Vec<Row>)> {
    let (device, how) = (open(Manner::FAST)?, WAYS[0]);
    let firsts = (0..cases.len()).filter(|&i| i == 0 || cases[i].op.name() != cases[i - 1].op.name());
    let (mut planted, mut missed) = (0, Vec::new());
    for (case, fault) in firsts.flat_map(|i| Fault::PLANTED.map(|fault| (&cases[i], fault))) {
        let rows = run::check(case, &device, how, fault)?;
        planted += usize::from(!rows.is_empty());
        if !rows.is_empty() && rows.iter().all(Row::passed) {
            missed.push(Row { fault: Some(format!("a planted fault went unnoticed: {fault:?}")), ..rows[0].clone() });
        }
    }
    Ok((planted, missed))
}

/// Runs cases on the first GPU.
pub fn gpu(cases: &[Case], progress: &dyn Fn(usize, usize)) -> Result<Report> {
    let device = gpu::open(0)?;
    let mut rows = inputs::check(&device, LARGE_MESSAGE)?;
    for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
        rows.extend(whole_network(gpu::open(0), precision));
    }
    for (i, case) in cases.iter().enumerate() {
        for how in WAYS {
            rows.extend(run::check(case, &device, how, Fault::None)?);
            rows.extend(equal::check(case, &device, how)?);
        }
        progress(i + 1, cases.len());
    }
    Ok(report(device.describe(), rows))
}

/// The network on a device; a device that fails on it is a failed check, and the others go on.
fn whole_network(device: Result<Cuda>, precision: Precision) -> Vec<Row> {
    let rows = device.and_then(|device| Ok(network::check(device, Cpu::new(1)?, precision)?.1));
    rows.unwrap_or_else(|error| {
        let (case, check) = (network::CASE.into(), precision.to_string());
        vec![Row { case, check, share: 0.0, fault: Some(error.to_string()) }]
    })
}

fn report(device: String, rows: Vec<Row>) -> Report {
    let passed = rows.iter().filter(|r| r.passed()).count();
    let worst = rows.iter().max_by(|a, b| a.share.total_cmp(&b.share)).cloned();
    Report {
        device,
        rows: rows.len(),
        passed,
        failed: rows.into_iter().filter(|r| !r.passed()).collect(),
        ops: Op::names(),
        dtypes: ["f32", "tf32", "bf16"].map(String::from).into(),
        faults_planted: 0,
        faults_caught: 0,
        worst,
    }
}

/// What is checked of a case, on devices that each have their own manner.
type Check<'a> = dyn Fn(&Case, &[Cuda]) -> Result<Vec<Row>> + Sync + 'a;

/// Checks cases on as many threads as there are cores, each with devices of its own; rows come in the order of the cases.
fn each(cases: &[Case], progress: &dyn Fn(usize, usize), check: &Check<'_>) -> Result<Vec<Row>> {
    let (next, (sender, receiver)) = (AtomicUsize::new(0), mpsc::channel());
    // The network comes first: it takes longest.
    let networks = [
        (Manner::CHECKED, Precision::F32),
        (Manner::CHECKED, Precision::Bf16),
        (Manner::FAST, Precision::F32),
        (Manner::FAST, Precision::Tf32),
        (Manner::FAST, Precision::Bf16),
    ];
    let jobs = networks.len() + cases.len();
    let work = &|sender: mpsc::Sender<(usize, Result<Vec<Row>>)>| {
        let devices: Result<Vec<Cuda>> = MANNERS.into_iter().map(open).collect();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let rows = match (networks.get(i), i.checked_sub(networks.len()).and_then(|i| cases.get(i))) {
                (Some(&(manner, precision)), _) => Ok(whole_network(open(manner), precision)),
                (_, Some(case)) => devices.as_ref().map_err(Clone::clone).and_then(|devices| check(case, devices)),
                (None, None) => return,
            };
            if sender.send((i, rows)).is_err() {
                return;
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut found: Vec<Vec<Row>> = vec![Vec::new(); jobs];
    std::thread::scope(|scope| {
        (0..cores).for_each(|_| {
            let sender = sender.clone();
            scope.spawn(move || work(sender));
        });
        drop(sender);
        for (done, (i, rows)) in receiver.iter().enumerate() {
            found[i] = rows?;
            progress(done + 1, jobs);
        }
        Ok(found.into_iter().flatten().collect())
    })
}
