//! `defrost summary`: the layers of a network as Keras would list them, and what it costs.

use super::output;
use super::subject::{Subject, in_training};
use crate::device::Arena;
use crate::device::cpu::Cpu;
use crate::error::Result;
use crate::exec::{Passes, Program};
use crate::ir::Graph;
use crate::models::{Kind, Layer, Model, Spec};
use crate::ops::Sgd;
use crate::report::{Align, Table, bytes, flops, grouped};
use crate::train::{Optimizer, training_graph};
use serde::Serialize;

/// Classes of the head with which memory is planned for a network that has none; their number hardly matters.
const CLASSES: usize = 2;

/// List the layers, parameters and costs of a network
///
/// A BACKBONE is listed without head, as Keras's `include_top=False, pooling="avg"`; a MODEL with the head that its file
/// holds. Names and order are Keras's, so `--freeze LAYER` and `explain --layer LAYER` take them from here. FLOPs count a
/// multiply-add as two and leave out products with padding, so they are a few percent below those of tools that count them.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  defrost summary vgg16\n  defrost summary densenet121 --batch-size 32 --json\n  \
                        defrost summary runs/polyps/best.safetensors")]
pub struct Args {
    /// vgg16, xception, inceptionv3, densenet121, or a .safetensors file
    #[arg(value_name = "BACKBONE|MODEL")]
    subject: Subject,
    /// Side of the images in pixels [default: the network's own]
    #[arg(long, value_name = "N")]
    input_size: Option<usize>,
    /// Images per training step, for the planned memory
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = super::positive)]
    batch_size: usize,
    /// Print {backbone, input, parameters, trainable, layers: [{name, kind, shape, parameters}], flops_per_image, memory_bytes};
    /// shapes are [height, width, channels]
    #[arg(long)]
    json: bool,
}

/// The record of `--json`.
#[derive(Serialize)]
struct Record<'a> {
    backbone: &'a str,
    input: [usize; 3],
    parameters: usize,
    trainable: usize,
    layers: Vec<LayerRecord<'a>>,
    flops_per_image: u64,
    memory_bytes: usize,
}

#[derive(Serialize)]
struct LayerRecord<'a> {
    name: &'a str,
    kind: &'a str,
    shape: &'a [usize],
    parameters: usize,
}

/// Prints the summary.
pub fn run(args: Args) -> Result<()> {
    let spec = args.subject.spec(args.input_size)?;
    let model = spec.build()?;
    let arenas = training_memory(&in_training(&spec, args.batch_size, CLASSES))?;
    let per_image = forward_flops(&model.graph);
    if args.json {
        let layer = |l: &'_ Layer| (l.shape, model.layer_parameters(l));
        let shapes: Vec<_> = model.layers.iter().map(layer).collect();
        let layers = model.layers.iter().zip(&shapes);
        return output::json(&Record {
            backbone: spec.backbone.name(),
            input: [spec.size, spec.size, 3],
            parameters: model.parameters(),
            trainable: model.trainable(),
            layers: layers
                .map(|(l, (shape, parameters))| LayerRecord {
                    name: &l.name,
                    kind: l.kind.class(),
                    shape: &shape.dims()[1..],
                    parameters: *parameters,
                })
                .collect(),
            flops_per_image: per_image,
            memory_bytes: arenas.iter().sum(),
        });
    }
    output::print(&text(&model, per_image, args.batch_size, &arenas))
}

fn text(model: &Model, per_image: u64, batch: usize, arenas: &[usize]) -> String {
    let mut table = Table::new(&[("layer", Align::Left), ("kind", Align::Left), ("shape", Align::Right), ("parameters", Align::Right)]);
    for layer in &model.layers {
        let shape: Vec<String> = layer.shape.dims()[1..].iter().map(usize::to_string).collect();
        let parameters = match model.layer_parameters(layer) {
            0 if layer.kind != Kind::Dense => String::new(),
            n => grouped(n),
        };
        table.row([&*layer.name, layer.kind.class(), &shape.join(" x "), &parameters]);
    }
    let (all, trainable) = (model.parameters(), model.trainable());
    let head = if model.spec.features_only { format!(" and a head for {CLASSES} classes") } else { String::new() };
    let name = |arena: Arena| match arena {
        Arena::Params => "weights",
        Arena::State => "moving statistics",
        Arena::Grads => "gradients",
        Arena::Slots => "optimizer state",
        Arena::Derived => "packed weights",
        Arena::Temps => "activations and scratch",
    };
    let mut text = format!("{} on images of {1} x {1}\n\n{table}\n", model.spec.backbone.title(), model.spec.size);
    text += &format!("parameters        {:>12}\n", grouped(all));
    text += &format!("  trainable       {:>12}\n", grouped(trainable));
    text += &format!("  not trainable   {:>12}\n", grouped(all - trainable));
    text += &format!("forward pass      {:>12} per image, products with padding not counted\n", flops(per_image));
    text += &format!("\nmemory to train with SGD at batch size {batch}{head} on the cpu device, planned:\n");
    for arena in Arena::ALL.into_iter().filter(|a| arenas[a.index()] > 0) {
        text += &format!("  {:24} {:>10}\n", name(arena), bytes(arenas[arena.index()]));
    }
    text + &format!("  {:24} {:>10}\n", "together", bytes(arenas.iter().sum::<usize>()))
}

/// Floating-point operations of the forward rows, before fusion.
fn forward_flops(graph: &Graph) -> u64 {
    let tys = |vals: &[crate::base::Val]| vals.iter().map(|&v| graph.ty(v)).collect::<Vec<_>>();
    graph.nodes.iter().map(|n| n.op.flops(&tys(&n.ins), &tys(&n.outs))).sum()
}

/// Bytes of each arena of a training step with SGD without momentum on the CPU device.
fn training_memory(spec: &Spec) -> Result<[usize; Arena::ALL.len()]> {
    let optimizer = Optimizer::Sgd(Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 });
    let graph = training_graph(&spec.build()?, &optimizer)?;
    Ok(Program::compile(graph, &Cpu::new(1)?, Passes::default())?.plan().bytes)
}
