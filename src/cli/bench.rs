//! `defrost bench`: the time of one step, and what the machine could do at best.

use super::device::{DeviceArgs, on_device};
use super::output;
use super::workload::{Mode, Workload};
use crate::base::{Math, Precision};
use crate::device::cpu::{Isa, Pool};
use crate::error::Result;
use crate::models::Backbone;
use crate::ops::Backend;
use crate::profile::{Arithmetic, Bandwidth, arithmetic, bandwidth, measure, median, peak_memory};
use crate::report::{Align, Table};
use serde::Serialize;

/// Runs before the first that counts.
const WARM_UP: usize = 2;

/// Measure the speed of a step, or of the machine
///
/// Pixels and weights are random and lie in memory, so nothing is read, decoded or resized. Two runs warm up; the median of
/// the others is reported.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  defrost bench --backbone xception --mode train\n  \
                        defrost bench --backbone vgg16 --mode infer --batch-size 1 --steps 20 --json\n  defrost bench --peak")]
pub struct Args {
    /// vgg16, xception, inceptionv3 or densenet121
    #[arg(long, value_name = "BACKBONE", required_unless_present = "peak")]
    backbone: Option<Backbone>,
    /// What a step does
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Train)]
    mode: Mode,
    /// Images per step
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = super::positive)]
    batch_size: usize,
    /// Side of the images in pixels [default: the network's own]
    #[arg(long, value_name = "N", value_parser = super::positive)]
    input_size: Option<usize>,
    /// What to compute in: f32; bf16 on a GPU or a processor that multiplies it; tf32 on a GPU; naive computes in f64
    #[arg(long, value_name = "TYPE")]
    precision: Option<Precision>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Runs that count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = super::positive)]
    steps: usize,
    /// Measure the machine instead: peak arithmetic per instruction set, bandwidth of memory
    #[arg(long, conflicts_with = "backbone")]
    peak: bool,
    /// Print {backbone, mode, batch, size, precision, device, step_ms, min_ms, max_ms, images_per_s, peak_mib}
    #[arg(long)]
    json: bool,
}

/// The record of `--json`.
#[derive(Serialize)]
struct Record {
    backbone: &'static str,
    mode: String,
    batch: usize,
    size: usize,
    precision: String,
    device: String,
    step_ms: f64,
    min_ms: f64,
    max_ms: f64,
    images_per_s: f64,
    /// The most memory the process had resident (on a GPU: the arenas), in MiB; `null` where the system does not tell.
    peak_mib: Option<f64>,
}

/// Measures and prints.
pub fn run(args: Args) -> Result<()> {
    let Some(backbone) = args.backbone else { return peak(&args) };
    let size = args.input_size.unwrap_or(backbone.default_size());
    backbone.check_size(size)?;
    let precision = args.precision.unwrap_or_default();
    let workload = Workload { backbone, mode: args.mode, batch: args.batch_size, size, precision };
    let record = on_device!(args.device.open()?, device => step(workload, device, &args)?);
    if args.json {
        return output::json(&record);
    }
    let Record { step_ms, min_ms, max_ms, images_per_s, .. } = record;
    let memory = record.peak_mib.map_or(String::new(), |mib| format!(", {mib:.0} MiB resident at most"));
    output::print(&format!(
        "{backbone} {}, {} images of {size} x {size}, {}, {}\n{step_ms:.1} ms per step ({min_ms:.1} to {max_ms:.1} in {} runs), \
         {images_per_s:.2} images/s{memory}\n",
        record.mode, record.batch, record.precision, record.device, args.steps
    ))
}

fn step<D: Backend>(workload: Workload, device: D, args: &Args) -> Result<Record> {
    let name = device.describe();
    let (mut session, mut program) = workload.prepare(device)?;
    // Preparing has run the program once.
    let times = measure(&mut session, &mut program, WARM_UP - 1, args.steps, false)?.runs;
    let ms = |seconds: f64| (seconds * 1e5).round() / 1e2;
    let Workload { backbone, batch, size, mode, .. } = workload;
    // A device with memory of its own holds the plan and nothing else.
    let own = || program.plan().bytes.iter().sum::<usize>() as u64;
    let memory = if session.device().free_memory().is_some() { Some(own()) } else { peak_memory() };
    Ok(Record {
        backbone: backbone.name(),
        mode: format!("{mode:?}").to_lowercase(),
        batch,
        size,
        precision: program.precision().to_string(),
        device: name,
        step_ms: ms(median(&times)),
        min_ms: ms(times.iter().copied().fold(f64::INFINITY, f64::min)),
        max_ms: ms(times.iter().copied().fold(0.0, f64::max)),
        images_per_s: (1e3 * batch as f64 / median(&times)).round() / 1e3,
        peak_mib: memory.map(|bytes| (bytes as f64 / (1 << 20) as f64).round()),
    })
}

#[derive(Serialize)]
struct PeakRecord {
    arithmetic: Vec<ArithmeticRecord>,
    bandwidth: Vec<BandwidthRecord>,
}

#[derive(Serialize)]
struct ArithmeticRecord {
    isa: String,
    precision: String,
    threads: usize,
    gflops: f64,
}

#[derive(Serialize)]
struct BandwidthRecord {
    threads: usize,
    read_gb_s: f64,
    copy_gb_s: f64,
}

/// The precision of measured products.
fn in_words(a: &Arithmetic) -> &'static str {
    if a.math == Math::Bf16 { "bf16" } else { "f32" }
}

/// Measures the machine: one thread and all threads.
fn peak(args: &Args) -> Result<()> {
    let cpu = args.device.measured()?;
    let single = crate::device::cpu::Cpu::with(cpu.isa, 1);
    let cpus = if cpu.threads() > 1 { vec![&single, &cpu] } else { vec![&cpu] };
    let pools: Vec<&Pool> = cpus.iter().map(|cpu| &cpu.pool).collect();
    let isas = Isa::ALL.into_iter().filter(|isa| isa.available());
    let mut peaks: Vec<Arithmetic> = isas.flat_map(|isa| pools.iter().map(move |pool| arithmetic(isa, Math::Full, pool))).collect();
    let has_bf16 = cpu.isa.has_bf16();
    peaks.extend(pools.iter().filter(|_| has_bf16).map(|pool| arithmetic(cpu.isa, Math::Bf16, pool)));
    let bandwidths: Vec<Bandwidth> = cpus.iter().map(|cpu| bandwidth(cpu)).collect();
    let giga = |rate: f64| (rate / 1e7).round() / 1e2;
    if args.json {
        let arithmetic = |a: &Arithmetic| ArithmeticRecord {
            isa: a.isa.to_string(),
            precision: in_words(a).into(),
            threads: a.threads,
            gflops: giga(a.flops_per_s),
        };
        let bandwidth = |b: &Bandwidth| BandwidthRecord { threads: b.threads, read_gb_s: giga(b.read), copy_gb_s: giga(b.copy) };
        let (arithmetic, bandwidth) = (peaks.iter().map(arithmetic).collect(), bandwidths.iter().map(bandwidth).collect());
        return output::json(&PeakRecord { arithmetic, bandwidth });
    }
    let columns = [("", Align::Left), ("threads", Align::Right), ("", Align::Right), ("", Align::Left)];
    let mut table = Table::new(&columns);
    for a in peaks {
        table.row([format!("{} {}", in_words(&a), a.isa), a.threads.to_string(), format!("{:.1}", giga(a.flops_per_s)), "GFLOP/s".into()]);
    }
    table.rule();
    for b in bandwidths {
        table.row(["memory, read".to_string(), b.threads.to_string(), format!("{:.1}", giga(b.read)), "GB/s".into()]);
        table.row(["memory, copy".to_string(), b.threads.to_string(), format!("{:.1}", giga(b.copy)), "GB/s".into()]);
    }
    output::print(&table.to_string())
}
