//! `defrost selftest --time`: every distinct convolution of the four networks, in every direction, against the machine's peak.

use super::output;
use super::workload::{Mode, Workload};
use crate::base::{Math, Precision};
use crate::device::Device;
use crate::device::cpu::Cpu;
use crate::error::Result;
use crate::models::Backbone;
use crate::profile::arithmetic;
use crate::profile::layers::{Layer, collect, time};
use crate::report::{Align, Table};
use indicatif::ProgressBar;
use serde::Serialize;

/// Rows that a person is pointed to.
const WORK_LIST: usize = 10;
/// Runs of which the fastest counts.
const RUNS: usize = 4;

/// The record of `--time --json`, rows with the smallest share first.
#[derive(Serialize)]
struct Record {
    device: String,
    batch: usize,
    peak_gflops: f64,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    /// A network and a layer of it.
    layer: String,
    op: String,
    input: String,
    output: String,
    /// Steps of the four training programs that are the same.
    count: usize,
    ms: f64,
    gflops: f64,
    /// Of the peak; the multiply-adds of plain sums are counted.
    share: f64,
    /// The same layer in f32, for one that multiplies in bf16.
    #[serde(skip_serializing_if = "Option::is_none")]
    f32_ms: Option<f64>,
}

/// Measures and prints; in bf16, each layer in f32 as well, one right after the other.
pub fn run(cpu: &Cpu, batch: usize, precision: Precision, json: bool) -> Result<()> {
    let math = if precision == Precision::Bf16 { Math::Bf16 } else { Math::Full };
    let peak = arithmetic(cpu.isa, math, &cpu.pool).flops_per_s;
    let mut layers: Vec<Layer> = Vec::new();
    for backbone in Backbone::ALL {
        let workload = Workload { backbone, mode: Mode::Train, batch, size: backbone.default_size(), precision };
        collect(backbone.name(), workload.compile(cpu)?.steps(), &mut layers);
    }
    let bar = ProgressBar::new(layers.len() as u64);
    let row = |layer: &Layer| -> Result<Row> {
        let seconds = time(cpu, layer, RUNS)?;
        let plain = match layer.op.math() {
            Some(Math::Bf16) => Some(time(cpu, &in_f32(layer), RUNS)?),
            _ => None,
        };
        bar.inc(1);
        let rate = layer.flops() as f64 / seconds;
        Ok(Row {
            layer: layer.name.clone(),
            op: layer.op.to_string(),
            input: layer.ins[0].shape.to_string(),
            output: layer.outs[0].shape.to_string(),
            count: layer.count,
            ms: seconds * 1e3,
            gflops: rate / 1e9,
            share: rate / peak,
            f32_ms: plain.map(|plain| plain * 1e3),
        })
    };
    let mut rows: Vec<Row> = layers.iter().map(row).collect::<Result<_>>()?;
    bar.finish_and_clear();
    rows.sort_by(|a, b| a.share.total_cmp(&b.share));
    let record = Record { device: cpu.describe(), batch, peak_gflops: peak / 1e9, rows };
    if json { output::json(&record) } else { output::print(&text(&record)) }
}

/// The layer with products of f32.
fn in_f32(layer: &Layer) -> Layer {
    let mut layer = layer.clone();
    layer.op.multiply_in(Math::Full);
    layer
}

fn text(record: &Record) -> String {
    let Record { device, batch, peak_gflops, rows } = record;
    let columns = [("layer", Align::Left), ("op", Align::Left), ("input", Align::Left), ("output", Align::Left)];
    let rates =
        [("steps", Align::Right), ("ms", Align::Right), ("GFLOP/s", Align::Right), ("of peak", Align::Right), ("f32 ms", Align::Right)];
    let shown = rates.len() - usize::from(rows.iter().all(|row| row.f32_ms.is_none()));
    let mut table = Table::new(&[&columns[..], &rates[..shown]].concat());
    for (i, row) in rows.iter().enumerate() {
        if i == WORK_LIST {
            table.rule();
        }
        let about = [row.layer.clone(), row.op.clone(), row.input.clone(), row.output.clone(), row.count.to_string()];
        let plain = row.f32_ms.map_or(String::new(), |ms| format!("{ms:.3}"));
        let rates = [format!("{:.3}", row.ms), format!("{:.1}", row.gflops), format!("{:.0}%", 100.0 * row.share), plain];
        table.row(about.into_iter().chain(rates.into_iter().take(shown)));
    }
    format!(
        "{device}, {batch} images, peak {peak_gflops:.1} GFLOP/s (measured just now)\nmultiply-adds of plain sums are counted: fewer \
         are needed where a share exceeds 100%; worst first, the first {WORK_LIST} are the work list\n\n{table}"
    )
}
