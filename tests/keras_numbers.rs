//! The numbers of the four networks held against Keras in double precision: activations along the depth, the loss, and the
//! moving statistics after one step of batch norm. `golden/make_numbers.py` says what is recorded and how weights are drawn.
//!
//! Rows run one by one in a memory where every value has a place of its own, so that nothing but models and ops is tested.

use defrost::base::{DType, Val};
use defrost::device::cpu::Cpu;
use defrost::device::naive::Naive;
use defrost::device::{Arena, Arenas, Call, Operand, Place, Write};
use defrost::ir::{Init, Role};
use defrost::models::{Backbone, Model, Purpose, Spec};
use defrost::ops::{Backend, Op};
use defrost::weights::Draw;

const GOLDEN: &str = include_str!("golden/numbers.txt");

struct Line<'a> {
    mode: &'a str,
    what: &'a str,
    rms: f64,
    probe: f64,
}

/// The recorded lines of a network and its input size.
fn golden(backbone: Backbone) -> (usize, Vec<Line<'static>>) {
    let words = GOLDEN.lines().map(|l| l.split(' ').collect::<Vec<_>>()).filter(|w| w[0] == backbone.name());
    let mut size = 0;
    let mut line = |w: Vec<&'static str>| {
        size = w[1].parse().unwrap();
        Line { mode: w[2], what: w[3], rms: w[4].parse().unwrap(), probe: w[5].parse().unwrap() }
    };
    let lines = words.map(&mut line).collect();
    (size, lines)
}

/// Numbers in -1..1 that depend on a name and their position alone.
fn hashed(name: &str, len: usize) -> Vec<f64> {
    let draw = Draw::new(42, name, Init::GlorotUniform { fan_in: 3, fan_out: 3 });
    (0..len).map(|i| f64::from(draw.at(i))).collect()
}

/// The first value of an input, a parameter or a state; a target is class 5, 0, 3 for image 0, 1, 2.
fn value(model: &Model, v: Val) -> Vec<f64> {
    let (name, shape) = (model.graph.name(v), model.graph.ty(v).shape);
    let kind = name.split('/').next_back().unwrap();
    let taps: usize = if kind == "depthwise_kernel" { shape.dims()[..2].iter().product() } else { shape.rows() };
    let (offset, factor) = match kind {
        "targets" => return [5, 0, 3].iter().flat_map(|&class| (0..8).map(move |k| f64::from(k == class))).collect(),
        "weights" => return vec![1.0; shape.len()],
        "pixels" => (127.5, 127.5),
        "kernel" | "depthwise_kernel" | "pointwise_kernel" => {
            (0.0, (6.0 / taps as f64).sqrt() * if name == "dense/kernel" { 0.02 } else { 1.0 })
        }
        "gamma" => (1.0, 0.4),
        "moving_variance" => (1.0, 0.5),
        _ => (0.0, 0.1),
    };
    hashed(name, shape.len()).into_iter().map(|u| offset + factor * u).collect()
}

fn to_bytes(data: &[f64], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F64 => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        _ => data.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
    }
}

fn from_bytes(bytes: &[u8], dtype: DType) -> Vec<f64> {
    match dtype {
        DType::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        _ => bytes.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
    }
}

/// Runs all rows and returns a function that reads a value.
fn run<D: Backend>(device: &D, model: &Model) -> impl Fn(Val) -> Vec<f64> {
    let (graph, dtype) = (&model.graph, device.float());
    let mut offsets = Vec::with_capacity(graph.values.len());
    let mut end = 0;
    for value in &graph.values {
        // What replaces a value lies in its place; every other value has its own.
        let place = if let Role::Update { of } = value.role { offsets[of.index()] } else { end };
        offsets.push(place);
        end = end.max(place + (value.ty.shape.len() * dtype.size()).next_multiple_of(64));
    }
    let ty = |v: Val| defrost::base::Ty { dtype, ..graph.ty(v) };
    let types = |vals: &[Val]| vals.iter().map(|&v| ty(v)).collect::<Vec<_>>();
    let sizes =
        |of: &dyn Fn(&Op, &[_], &[_]) -> usize| graph.nodes.iter().map(|n| of(&n.op, &types(&n.ins), &types(&n.outs))).max().unwrap_or(0);
    let scratch = sizes(&|op, ins, outs| device.scratch(op, ins, outs));
    let derived = sizes(&|op, ins, outs| device.derived(op, ins, outs));

    let mut arenas = Arenas::new(device).unwrap();
    arenas.ensure(device, Arena::Temps, end + scratch).unwrap();
    arenas.ensure(device, Arena::Derived, derived).unwrap();
    for &v in graph.inputs.iter().chain(&graph.params).chain(&graph.states) {
        device.write(arenas.get_mut(Arena::Temps), offsets[v.index()], &to_bytes(&value(model, v), dtype));
    }
    let operand = |&v: &Val| {
        let place = Place { arena: Arena::Temps, offset: offsets[v.index()], pitch: ty(v).shape.cols() };
        Operand { ty: ty(v), place, write: Write::Set }
    };
    for node in &graph.nodes {
        let (ins, outs): (Vec<_>, Vec<_>) = (node.ins.iter().map(operand).collect(), node.outs.iter().map(operand).collect());
        let call = Call { device, arenas: &arenas, ins: &ins, outs: &outs, scratch: Some((end, scratch)), derived: Some((0, derived)) };
        D::prepare(&node.op, &call);
        D::run(&node.op, &call);
    }
    let (mut bytes, types) = (vec![0; end], graph.values.iter().map(|v| v.ty.shape.len() * dtype.size()).collect::<Vec<_>>());
    device.read(arenas.get(Arena::Temps), 0, &mut bytes);
    move |v: Val| from_bytes(&bytes[offsets[v.index()]..][..types[v.index()]], dtype)
}

/// Compares everything that was recorded; a probe or a root mean square may be off by `tolerance` times the recorded root
/// mean square.
fn compare<D: Backend>(device: &D, backbone: Backbone, tolerance: f64) {
    let (size, lines) = golden(backbone);
    let mut worst = 0.0f64;
    for (mode, purpose) in [("infer", Purpose::Infer), ("train", Purpose::Train)] {
        let lines: Vec<&Line> = lines.iter().filter(|l| l.mode == mode).collect();
        assert!(!lines.is_empty());
        let model = Spec { size, batch: 3, purpose, ..Spec::new(backbone, 8) }.build().unwrap();
        let read = run(device, &model);
        for line in lines {
            let x: Vec<f64> = match line.what {
                "statistics" => model.graph.states.iter().flat_map(|&v| read(v)).collect(),
                what => read(model.graph.output(what).unwrap_or_else(|| model.layer(what).unwrap().output)),
            };
            let n = x.len() as f64;
            let rms = (x.iter().map(|x| x * x).sum::<f64>() / n).sqrt();
            let probe = x.iter().zip(hashed("probe", x.len())).map(|(x, u)| x * u).sum::<f64>() / n.sqrt();
            let off = (rms - line.rms).abs().max((probe - line.probe).abs()) / line.rms;
            assert!(off <= tolerance, "{backbone} {mode} {}: rms {rms} probe {probe}, Keras {} {}", line.what, line.rms, line.probe);
            worst = worst.max(off);
        }
    }
    println!("{backbone} on {}: worst {worst:.1e}, {:.1}% of the budget", device.describe(), 100.0 * worst / tolerance);
}

// The errors of up to 120 layers add up, each a few roundoffs of a sum that is accurate in the mean: 120 layers, a factor
// of 32 for growth through batch norm on three images and for sums in another order.
fn budget(dtype: DType) -> f64 {
    120.0 * 32.0 * dtype.roundoff()
}

#[test]
#[ignore = "half a minute of plain loops; run with --ignored"]
fn vgg16_on_naive() {
    compare(&Naive, Backbone::Vgg16, budget(DType::F64));
}

#[test]
#[ignore = "half a minute of plain loops; run with --ignored"]
fn xception_on_naive() {
    compare(&Naive, Backbone::Xception, budget(DType::F64));
}

#[test]
#[ignore = "half a minute of plain loops; run with --ignored"]
fn inception_v3_on_naive() {
    compare(&Naive, Backbone::InceptionV3, budget(DType::F64));
}

#[test]
fn densenet121_on_naive() {
    compare(&Naive, Backbone::DenseNet121, budget(DType::F64));
}

#[test]
fn all_on_cpu() {
    let cpu = Cpu::new(2).unwrap();
    Backbone::ALL.into_iter().for_each(|backbone| compare(&cpu, backbone, budget(DType::F32)));
}
