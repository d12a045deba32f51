//! `defrost devices`: what this machine and this build can compute on.

use super::output;
use crate::device::Device;
use crate::device::cpu::{Cpu, Isa};
use crate::device::cuda::gpu;
use crate::device::naive::Naive;
use crate::error::Result;
use serde::Serialize;

/// List the devices of this machine
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON: [{name, available, description}]
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    available: bool,
    description: String,
}

/// Lists the devices, the default first.
pub fn run(args: Args) -> Result<()> {
    let isas: Vec<String> = Isa::ALL.iter().filter(|isa| isa.available()).map(Isa::to_string).collect();
    let cpu = format!("{}; instruction sets: {}", Cpu::new(0)?.describe(), isas.join(", "));
    let entry = |name: &str, available: bool, description: String| Entry { name: name.into(), available, description };
    let mut entries = match gpu::devices() {
        // Opening loads the kernels: a chip without any is found out here.
        Ok(gpus) => gpus.iter().map(|gpu| gpu_entry(gpu, gpu::open(gpu.ordinal).map(drop))).collect(),
        Err(why) => vec![entry("cuda", false, why.what().into())],
    };
    entries.extend([entry("cpu", true, cpu), entry("naive", true, Naive.describe())]);
    // The default first: a GPU if it can be used, otherwise the processor.
    entries.sort_by_key(|entry| !entry.available);
    if args.json {
        return output::json(&entries);
    }
    let line = |e: &Entry| format!("{:6} {:4} {}\n", e.name, if e.available { "yes" } else { "no" }, e.description);
    output::print(&entries.iter().map(line).collect::<String>())
}

fn gpu_entry(gpu: &gpu::Found, opened: Result<()>) -> Entry {
    let description = match &opened {
        Ok(()) => gpu.to_string(),
        Err(why) => format!("{gpu}: {}", why.what()),
    };
    Entry { name: format!("cuda:{}", gpu.ordinal), available: opened.is_ok(), description }
}
