//! `defrost explain`: the rows behind a layer, its gradients, and what the passes make of them.

use super::device::{DeviceArgs, Name, on_device};
use super::gradcam::{self, Which};
use super::model_args::ModelArgs;
use super::output;
use super::subject::{Subject, in_training};
use crate::base::{Ty, Val};
use crate::device::cpu::Cpu;
use crate::device::{Device, Operand, Write};
use crate::error::{Error, Result};
use crate::exec::{Passes, Program};
use crate::ir::{Graph, Node, Phase, show, show_row};
use crate::models::{Layer, Model, did_you_mean};
use crate::ops::Sgd;
use crate::pass::plan::Step;
use crate::pass::{Fusions, fuse};
use crate::report::{Align, Table, bytes, flops, grouped};
use crate::train::{Optimizer, training_graph};
use clap::ValueEnum;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Classes of the head of a network that has none.
const CLASSES: usize = 2;

/// Show what a layer computes, forwards and backwards, or why a model answers as it does
///
/// Prints the rows of the layer as they stand in the graph of a training step, each with its formula, shapes, cost and the file
/// that defines it, and then what fusion makes of them. Products with padding are not counted as cost. Without --layer, lists
/// the layers.
///
/// With --image, writes a heat map over the image instead: the places that speak for a class (Grad-CAM), seen at the feature
/// maps of --layer.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  defrost explain vgg16\n  defrost explain vgg16 --layer block1_conv1 --grad\n  \
                        defrost explain densenet121 --dump --stop-after plan | less\n  \
                        defrost explain best.safetensors --image scan.png --class all --out heat/")]
pub struct Args {
    /// vgg16, xception, inceptionv3, densenet121, or a .safetensors file
    #[arg(value_name = "BACKBONE|MODEL")]
    subject: Subject,
    /// Layer to explain, by the name that `summary` prints
    #[arg(long, value_name = "LAYER", conflicts_with = "dump")]
    layer: Option<String>,
    /// Show the layer's backward rows as well
    #[arg(long, requires = "layer")]
    grad: bool,
    /// Print every row of a training step instead, as it stands after a pass
    #[arg(long)]
    dump: bool,
    /// The last pass before --dump
    #[arg(long, value_name = "PASS", value_enum, default_value_t = Stage::Fuse, requires = "dump")]
    stop_after: Stage,
    /// Images per step
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = super::positive, conflicts_with = "image")]
    batch_size: usize,
    /// Side of the images in pixels [default: the network's own]
    #[arg(long, value_name = "N", value_parser = super::positive)]
    input_size: Option<usize>,
    /// Explain a MODEL's answer for an image; may be given more than once
    #[arg(long, value_name = "FILE", conflicts_with_all = ["grad", "dump"], help_heading = "Grad-CAM")]
    image: Vec<PathBuf>,
    /// The class to look for: predicted (the most probable one), all (one heat map each), or a name
    #[arg(long, value_name = "CLASS", default_value = "predicted", requires = "image", help_heading = "Grad-CAM")]
    class: String,
    /// Where to write IMAGE.CLASS.png
    #[arg(long, value_name = "DIR", default_value = ".", requires = "image", help_heading = "Grad-CAM")]
    out: PathBuf,
    #[command(flatten, next_help_heading = "Grad-CAM")]
    device: DeviceArgs,
}

/// How far a graph has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// Forward rows alone, as the model function wrote them
    Model,
    /// With backward rows and the optimizer
    Grad,
    /// With neighbouring rows merged
    Fuse,
    /// As steps with their places in memory
    Plan,
}

/// Prints the explanation.
pub fn run(args: Args) -> Result<()> {
    if !args.image.is_empty() {
        return answers(args);
    }
    if args.device.device != Name::Auto || args.device.threads.is_some() || args.device.exact {
        return Err(Error::input("--device, --threads and --exact go with --image; nothing else here computes"));
    }
    let spec = in_training(&args.subject.spec(args.input_size)?, args.batch_size, CLASSES);
    let model = spec.build()?;
    if args.dump {
        return output::print(&dump(&model, args.stop_after)?);
    }
    let Some(name) = &args.layer else { return output::print(&list(&model)) };
    let Some(layer) = model.layer(name) else {
        let error = Error::input(format!("{} has no layer {name:?}", spec.backbone));
        let names = model.layers.iter().map(|l| &*l.name);
        return Err(
            error.advise(did_you_mean(name, names).unwrap_or_else(|| format!("`defrost explain {}` lists the layers", spec.backbone)))
        );
    };
    output::print(&explain(&model, layer, args.grad)?)
}

/// Writes heat maps of images, and prints a line about each.
fn answers(args: Args) -> Result<()> {
    let Subject::File(model) = args.subject else {
        return Err(Error::input("a backbone knows no classes; name a trained MODEL to explain an image").at("--image"));
    };
    let feeding = ModelArgs::of(model, args.input_size, args.device, args.image.len());
    let ready = feeding.read()?;
    let which = Which::read(&args.class, &ready.file.class_names()).map_err(|e| e.at("--class"))?;
    on_device!(feeding.device.open()?, d => gradcam::explain_images(ready, d, args.layer.as_deref(), which, &args.image, &args.out))
}

/// A training step with plain SGD.
fn step_graph(model: &Model) -> Result<Graph> {
    training_graph(model, &Optimizer::Sgd(Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 }))
}

/// What fusion makes of a graph on the CPU.
fn fused(graph: Graph) -> Result<Graph> {
    fuse(graph, Fusions::ALL.within(Cpu::new(1)?.fuses()))
}

fn dump(model: &Model, stage: Stage) -> Result<String> {
    match stage {
        Stage::Model => Ok(show(&model.graph, |_| true)),
        Stage::Grad => Ok(show(&step_graph(model)?, |_| true)),
        Stage::Fuse => Ok(show(&fused(step_graph(model)?)?, |_| true)),
        Stage::Plan => {
            let program = Program::compile(step_graph(model)?, &Cpu::new(1)?, Passes::default())?;
            Ok(program.steps().iter().map(show_step).collect())
        }
    }
}

/// One step on one line: `block1_conv1 forward conv2d 3x3 same (Temps+0x0 16x224x224x3, ..) -> Temps+0x93000 16x224x224x64`.
fn show_step(step: &Step) -> String {
    let place = |o: &Operand| {
        let gap = if o.place.pitch > o.ty.shape.cols() { format!(" pitch {}", o.place.pitch) } else { String::new() };
        format!("{} {}{gap}", o.place, o.ty.shape)
    };
    let list = |operands: &[Operand]| operands.iter().map(place).collect::<Vec<_>>().join(", ");
    let written = |o: &Operand| format!("{} {}", if o.write == Write::Add { "add to" } else { "set" }, place(o));
    let outs: Vec<String> = step.outs.iter().map(written).collect();
    let phase = format!("{:?}", step.phase).to_lowercase();
    let mut line = format!("{} {phase} {} ({}) -> {}", step.layer, step.op, list(&step.ins), outs.join(", "));
    let packed = step.derived.map(|(_, offset, size)| (offset, size));
    for (what, room) in [("scratch", step.scratch), ("packed", packed)] {
        if let Some((offset, size)) = room {
            let _ = write!(line, ", {what} {} at {offset:#x}", bytes(size));
        }
    }
    line + "\n"
}

/// The layers with the number of their rows.
fn list(model: &Model) -> String {
    let mut table = Table::new(&[("layer", Align::Left), ("kind", Align::Left), ("rows", Align::Right), ("ops", Align::Left)]);
    for layer in &model.layers {
        let ops: Vec<&str> = model.graph.nodes.iter().filter(|n| n.layer == layer.name).map(|n| n.op.name()).collect();
        table.row([layer.name.to_string(), layer.kind.class().to_string(), ops.len().to_string(), ops.join(", ")]);
    }
    format!("{table}\n`defrost explain {} --layer LAYER --grad` shows the rows of one layer.\n", model.spec.backbone)
}

fn explain(model: &Model, layer: &Layer, grad: bool) -> Result<String> {
    let graph = step_graph(model)?;
    let shape = layer.shape;
    let mut text = format!("{}, a {} of {}: output {shape}", layer.name, layer.kind.class(), model.spec.backbone.title());
    let _ = writeln!(text, ", {} parameters", grouped(model.layer_parameters(layer)));
    let phases = if grad { &[Phase::Forward, Phase::Backward, Phase::Update][..] } else { &[Phase::Forward] };
    for &phase in phases {
        let rows: Vec<&Node> = graph.nodes.iter().filter(|n| n.layer == layer.name && n.phase == phase).collect();
        if rows.is_empty() && phase != Phase::Forward {
            continue;
        }
        let _ = writeln!(text, "\n{}", heading(phase, rows.len()));
        rows.iter().for_each(|node| text += &describe(&graph, node));
    }
    let fused = fused(graph.clone())?;
    let (before, after) = (rows_of(&graph, layer, phases), rows_of(&fused, layer, phases));
    if !before.is_empty() {
        text += "\nafter fusion\n";
        text += if before == after { "  the same rows\n" } else { &after };
    }
    Ok(text)
}

/// The rows of a layer, and rows of others that took over one of its own: they read its weights or what it makes in between.
fn rows_of(graph: &Graph, layer: &Layer, phases: &[Phase]) -> String {
    let own = graph.nodes.iter().filter(|n| n.layer == layer.name && n.phase == Phase::Forward);
    let mut inner: Vec<Val> = own.flat_map(|n| n.outs.iter().copied()).filter(|&v| v != layer.output).collect();
    inner.extend(layer.params.iter().chain(&layer.states));
    show(graph, |n| phases.contains(&n.phase) && (n.layer == layer.name || n.ins.iter().any(|v| inner.contains(v))))
}

fn heading(phase: Phase, rows: usize) -> String {
    match (phase, rows) {
        (Phase::Forward, 0) => "forward: no row; the layer is part of how the next one reads its input".into(),
        (Phase::Forward, _) => "forward, as the model is written".into(),
        (Phase::Backward, _) => "backward, appended by the gradient rules".into(),
        (Phase::Update, _) => "update".into(),
    }
}

/// A row with its formula, shapes, cost and source.
fn describe(graph: &Graph, node: &Node) -> String {
    let tys = |vals: &[Val]| vals.iter().map(|&v| graph.ty(v)).collect::<Vec<Ty>>();
    let shapes = |tys: &[Ty]| tys.iter().map(|ty| ty.shape.to_string()).collect::<Vec<_>>().join(", ");
    let (ins, outs) = (tys(&node.ins), tys(&node.outs));
    let moved: usize = ins.iter().chain(&outs).map(|ty| ty.bytes()).sum();
    let work = node.op.flops(&ins, &outs);
    let mut text = format!("  {}\n      {}\n", show_row(graph, node), node.op.formula());
    let _ = writeln!(text, "      reads {}; writes {}", shapes(&ins), shapes(&outs));
    let _ = writeln!(text, "      {}, {} moved, {:.1} FLOP per byte", flops(work), bytes(moved), work as f64 / moved.max(1) as f64);
    let _ = writeln!(text, "      {}", node.op.source());
    text
}
