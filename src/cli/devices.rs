//! `defrost devices`: what this machine and this build can compute on.

use super::device::no_cuda;
use super::output;
use crate::device::Device;
use crate::device::cpu::{Cpu, Isa};
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
    name: &'static str,
    available: bool,
    description: String,
}

/// Lists the devices, the default first.
pub fn run(args: Args) -> Result<()> {
    let isas: Vec<String> = Isa::ALL.iter().filter(|isa| isa.available()).map(Isa::to_string).collect();
    let (cpu, cuda) = (Cpu::new(0)?, no_cuda());
    let entries = [
        Entry { name: "cpu", available: true, description: format!("{}; instruction sets: {}", cpu.describe(), isas.join(", ")) },
        Entry { name: "naive", available: true, description: Naive.describe() },
        Entry { name: "cuda", available: false, description: cuda.what().into() },
    ];
    if args.json {
        return output::json(&entries);
    }
    let line = |e: &Entry| format!("{:6} {:4} {}\n", e.name, if e.available { "yes" } else { "no" }, e.description);
    output::print(&entries.iter().map(line).collect::<String>())
}
