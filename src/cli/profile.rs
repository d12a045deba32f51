//! `defrost profile`: every step of a program against the machine's roofline, worst first.

use super::device::{Chosen, DeviceArgs};
use super::output;
use super::workload::{Mode, Workload};
use crate::base::{Math, Precision};
use crate::error::{Error, Result};
use crate::models::Backbone;
use crate::ops::Backend;
use crate::profile::{Cost, Group, Peaks, arithmetic, bandwidth, costs, gpu_peaks, groups, measure, median};
use crate::report::{Align, Table};
use serde::Serialize;

/// Time every step of a network and compare it with what the machine can do
///
/// A step can be no faster than its arithmetic at the machine's peak, nor than its operands through memory; both are measured
/// first. Steps are sorted by the time that they lose against that limit.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  defrost profile densenet121 --mode train\n  defrost profile vgg16 --mode infer --batch-size 1 --top 10\n\n\
                        Operands that still lie in a cache can be read faster than memory, so a share\nmay exceed 100%."
)]
pub struct Args {
    /// vgg16, xception, inceptionv3 or densenet121
    #[arg(value_name = "BACKBONE")]
    backbone: Backbone,
    /// What a step does
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Mode::Train)]
    mode: Mode,
    /// Images per step
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = super::positive)]
    batch_size: usize,
    /// Side of the images in pixels [default: the network's own]
    #[arg(long, value_name = "N", value_parser = super::positive)]
    input_size: Option<usize>,
    /// What to compute in: f32; bf16 on a GPU or a processor that multiplies it; tf32 on a GPU
    #[arg(long, value_name = "TYPE", default_value_t = Precision::F32)]
    precision: Precision,
    #[command(flatten)]
    device: DeviceArgs,
    /// Runs of which the median is taken
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = super::positive)]
    steps: usize,
    /// Steps and layers to list; 0 lists all
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Print {backbone, mode, batch, size, device, peak, total_ms, ideal_ms, steps, ops, layers}, steps in the order in which they run
    #[arg(long)]
    json: bool,
}

/// A measured program.
struct Profile {
    workload: Workload,
    device: String,
    peaks: Peaks,
    /// Median of whole runs, without a clock between the steps, in seconds.
    total: f64,
    costs: Vec<Cost>,
}

/// Measures and prints.
pub fn run(args: Args) -> Result<()> {
    let backbone = args.backbone;
    let size = args.input_size.unwrap_or(backbone.default_size());
    backbone.check_size(size)?;
    let workload = Workload { backbone, mode: args.mode, batch: args.batch_size, size, precision: args.precision };
    output::tell(&format!("measuring the machine, then {} runs of {}", 2 * args.steps + 1, backbone.title()));
    let profile = match args.device.open()? {
        Chosen::Cpu(cpu) => {
            let memory = bandwidth(&cpu);
            let math = if args.precision == Precision::Bf16 { Math::Bf16 } else { Math::Full };
            let flops_per_s = arithmetic(cpu.isa, math, &cpu.pool).flops_per_s;
            let peaks = Peaks { flops_per_s, bytes_per_s: memory.read.max(memory.copy) };
            measured(workload, cpu, peaks, args.steps)?
        }
        Chosen::Cuda(gpu) => {
            let (gpu, peaks) = gpu_peaks(gpu, args.precision)?;
            measured(workload, gpu, peaks, args.steps)?
        }
        Chosen::Naive(_) => {
            return Err(Error::input("the naive device is a specification, its speed says nothing").advise("use --device cpu"));
        }
    };
    if args.json { output::json(&record(&profile)) } else { output::print(&text(&profile, args.top)) }
}

fn measured<D: Backend>(workload: Workload, device: D, peaks: Peaks, steps: usize) -> Result<Profile> {
    let device_name = device.describe();
    let (mut session, mut program) = workload.prepare(device)?;
    let times = measure(&mut session, &mut program, 2, steps, true)?;
    let costs = costs(program.steps(), &times.steps, peaks);
    Ok(Profile { workload, device: device_name, peaks, total: median(&times.runs), costs })
}

const RATES: [(&str, Align); 5] =
    [("ms", Align::Right), ("lost ms", Align::Right), ("GFLOP/s", Align::Right), ("GB/s", Align::Right), ("roofline", Align::Right)];

/// The cells under [`RATES`].
fn rates(seconds: f64, lost: f64, flops: u64, bytes: u64, share: f64) -> [String; 5] {
    let per_s = |n: u64| n as f64 / seconds.max(f64::MIN_POSITIVE) / 1e9;
    [
        format!("{:.3}", seconds * 1e3),
        format!("{:.3}", lost * 1e3),
        format!("{:.1}", per_s(flops)),
        format!("{:.1}", per_s(bytes)),
        format!("{:.0}%", 100.0 * share),
    ]
}

fn text(profile: &Profile, top: usize) -> String {
    let Profile { workload, device, peaks, total, costs } = profile;
    let Workload { backbone, mode, batch, size, .. } = workload;
    let mode = format!("{mode:?}").to_lowercase();
    let mut text = format!("{backbone} {mode}, {batch} images of {size} x {size}, {device}\n");
    text += &format!("peak {:.1} GFLOP/s, {:.1} GB/s (measured just now)\n\n", peaks.flops_per_s / 1e9, peaks.bytes_per_s / 1e9);

    let mut worst: Vec<&Cost> = costs.iter().collect();
    worst.sort_by(|a, b| b.lost().total_cmp(&a.lost()));
    let shown = if top == 0 { worst.len() } else { top.min(worst.len()) };
    text += &format!("steps, worst first ({shown} of {})\n", worst.len());
    let columns = [("layer", Align::Left), ("phase", Align::Left), ("op", Align::Left), ("largest operand", Align::Left)];
    let mut table = Table::new(&[&columns[..], &RATES].concat());
    for cost in &worst[..shown] {
        let about = [cost.layer.to_string(), format!("{:?}", cost.phase).to_lowercase(), cost.op.clone(), cost.ty.shape.to_string()];
        table.row(about.into_iter().chain(rates(cost.seconds, cost.lost(), cost.flops, cost.bytes, cost.share())));
    }
    text += &format!("{table}\n");
    for (title, all, limit) in
        [("op", groups(costs, |c| c.kind), usize::MAX), ("layer", groups(costs, |c| &c.layer), if top == 0 { usize::MAX } else { top })]
    {
        text += &format!("by {title}, worst first ({} of {})\n{}\n", limit.min(all.len()), all.len(), grouped(title, &all, limit));
    }
    let (measured, ideal): (f64, f64) = (costs.iter().map(|c| c.seconds).sum(), costs.iter().map(|c| c.ideal).sum());
    let (flops, share) = (costs.iter().map(|c| c.flops).sum::<u64>(), 100.0 * ideal / total.max(f64::MIN_POSITIVE));
    text += &format!("total {:.2} ms per run ({:.2} ms as the sum of its steps), ", total * 1e3, measured * 1e3);
    text + &format!(
        "{:.1} GFLOP/s, {:.2} ms at the roofline: {share:.0}%\n",
        flops as f64 / total.max(f64::MIN_POSITIVE) / 1e9,
        ideal * 1e3
    )
}

fn grouped(title: &str, groups: &[Group], limit: usize) -> Table {
    let mut table = Table::new(&[&[(title, Align::Left), ("steps", Align::Right)][..], &RATES].concat());
    for g in groups.iter().take(limit) {
        table.row([g.name.clone(), g.steps.to_string()].into_iter().chain(rates(g.seconds, g.lost, g.flops, g.bytes, g.share())));
    }
    table
}

/// The record of `--json`.
#[derive(Serialize)]
struct Record<'a> {
    backbone: &'a str,
    mode: String,
    batch: usize,
    size: usize,
    device: &'a str,
    peak: PeakRecord,
    total_ms: f64,
    ideal_ms: f64,
    steps: Vec<StepRecord<'a>>,
    ops: Vec<GroupRecord>,
    layers: Vec<GroupRecord>,
}

#[derive(Serialize)]
struct PeakRecord {
    gflops: f64,
    gb_s: f64,
}

#[derive(Serialize)]
struct StepRecord<'a> {
    layer: &'a str,
    phase: String,
    op: &'a str,
    ms: f64,
    lost_ms: f64,
    flops: u64,
    bytes: u64,
    share: f64,
}

#[derive(Serialize)]
struct GroupRecord {
    name: String,
    steps: usize,
    ms: f64,
    lost_ms: f64,
    flops: u64,
    bytes: u64,
    share: f64,
}

fn record(profile: &Profile) -> Record<'_> {
    let Profile { workload, device, peaks, total, costs } = profile;
    let group = |g: Group| {
        let share = g.share();
        GroupRecord { name: g.name, steps: g.steps, ms: g.seconds * 1e3, lost_ms: g.lost * 1e3, flops: g.flops, bytes: g.bytes, share }
    };
    Record {
        backbone: workload.backbone.name(),
        mode: format!("{:?}", workload.mode).to_lowercase(),
        batch: workload.batch,
        size: workload.size,
        device,
        peak: PeakRecord { gflops: peaks.flops_per_s / 1e9, gb_s: peaks.bytes_per_s / 1e9 },
        total_ms: total * 1e3,
        ideal_ms: costs.iter().map(|c| c.ideal).sum::<f64>() * 1e3,
        steps: costs
            .iter()
            .map(|c| StepRecord {
                layer: &c.layer,
                phase: format!("{:?}", c.phase).to_lowercase(),
                op: &c.op,
                ms: c.seconds * 1e3,
                lost_ms: c.lost() * 1e3,
                flops: c.flops,
                bytes: c.bytes,
                share: c.share(),
            })
            .collect(),
        ops: groups(costs, |c| c.kind).into_iter().map(group).collect(),
        layers: groups(costs, |c| &c.layer).into_iter().map(group).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Ty;
    use crate::ir::Phase;

    fn cost(layer: &str, op: &str, kind: &'static str, phase: Phase, ms: f64, flops: u64, bytes: u64) -> Cost {
        let ideal = (flops as f64 / 160e9).max(bytes as f64 / 20e9);
        let (ty, op) = (Ty::f32([16, 56, 56, 128]), op.to_string());
        Cost { layer: layer.into(), op, kind, phase, ty, seconds: ms / 1e3, flops, bytes, ideal }
    }

    #[test]
    fn the_table_is_the_golden_one() {
        let workload = Workload { backbone: Backbone::Vgg16, mode: Mode::Train, batch: 16, size: 224, precision: Precision::F32 };
        let costs = vec![
            cost("block2_conv1", "conv2d 3x3 same bias relu", "conv2d", Phase::Forward, 12.5, 1_600_000_000, 40_000_000),
            cost("block2_pool", "max_pool 2x2/2 valid", "max_pool", Phase::Forward, 4.0, 25_000_000, 60_000_000),
            cost("block2_conv1", "conv2d_dx 3x3 same", "conv2d_dx", Phase::Backward, 30.0, 1_600_000_000, 40_000_000),
            cost("optimizer", "sgd momentum 0, decay 0", "sgd", Phase::Update, 0.25, 2_000_000, 6_000_000),
        ];
        let peaks = Peaks { flops_per_s: 160e9, bytes_per_s: 20e9 };
        let profile = Profile { workload, device: "cpu (avx512, 2 threads)".into(), peaks, total: 0.0465, costs };
        let text = text(&profile, 3);
        if std::env::var_os("DEFROST_BLESS").is_some() {
            std::fs::write("tests/golden/profile.txt", &text).unwrap();
        }
        assert_eq!(text, include_str!("../../tests/golden/profile.txt"));
    }
}
