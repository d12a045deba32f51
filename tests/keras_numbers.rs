//! The numbers of the four networks held against Keras in double precision: activations along the depth, losses, gradients of
//! the weights, and moving statistics after one step of batch norm, through all passes. `golden/make_numbers.py` says what is
//! recorded and how weights are drawn.

use defrost::base::{DType, Ty, Val};
use defrost::device::cpu::Cpu;
use defrost::device::naive::Naive;
use defrost::exec::{Passes, Program, Session};
use defrost::ir::{Init, Role};
use defrost::models::{Backbone, Model, Purpose, Spec};
use defrost::ops::Backend;
use defrost::pass::grad::vjp;
use defrost::train::GradCam;
use defrost::train::opened::spec_of;
use defrost::weights::{Draw, Entry, Metadata, ModelFile, VERSION, save};

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
        "seed" | "weights" => return vec![1.0; shape.len()],
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

/// Compiles a model that has its gradients among its outputs, fills it, and runs it once.
fn run<D: Backend>(device: D, model: &Model) -> (Session<D>, Program<D>) {
    let mut session = Session::new(device).unwrap();
    let mut program = Program::compile(model.graph.clone(), session.device(), Passes::default()).unwrap();
    session.reserve(&program).unwrap();
    for &v in model.graph.inputs.iter().chain(&model.graph.params).chain(&model.graph.states) {
        session.set(&program, model.graph.name(v), &value(model, v)[..]).unwrap();
    }
    session.replay(&mut program, None).unwrap();
    (session, program)
}

/// A model with everything that the lines ask for among its outputs.
fn build(backbone: Backbone, size: usize, purpose: Purpose, lines: &[&Line]) -> Model {
    let spec = Spec { size, batch: 3, purpose, ..Spec::new(backbone, 8) };
    if purpose == Purpose::Infer {
        let taps = lines.iter().filter(|l| l.what != "probabilities").map(|l| l.what.to_string()).collect();
        return Spec { taps, ..spec }.build().unwrap();
    }
    let mut model = spec.build().unwrap();
    let params = model.graph.params.clone();
    let loss = model.graph.output("loss").unwrap();
    let seed = model.graph.add_value(Ty::f32([1]), Role::Input, "seed");
    model.graph.inputs.push(seed);
    let (graph, gradients) = vjp(model.graph, &[(loss, seed)], &params).unwrap();
    model.graph = graph;
    for (v, gradient) in params.iter().zip(gradients) {
        model.graph.values[gradient.index()].role = Role::Gradient { of: *v };
        model.graph.outputs.push((format!("gradient {}", model.graph.name(*v)), gradient));
    }
    model
}

/// Compares everything that was recorded; a probe or a root mean square may be off by a share of the recorded root mean
/// square.
fn compare<D: Backend>(device: impl Fn() -> D, backbone: Backbone, budget: [f64; 2]) {
    let (size, lines) = golden(backbone);
    let mut worst = (0.0, 0.0, "");
    for purpose in [Purpose::Infer, Purpose::Train] {
        let lines: Vec<&Line> = lines.iter().filter(|l| (l.mode == "infer") == (purpose == Purpose::Infer)).collect();
        let model = build(backbone, size, purpose, &lines);
        let (session, program) = run(device(), &model);
        let get = |name: &str| session.get(&program, name).unwrap();
        let all = |vals: &[Val], prefix: &str| vals.iter().flat_map(|&v| get(&format!("{prefix}{}", model.graph.name(v)))).collect();
        for line in lines {
            let x: Vec<f64> = match (line.mode, line.what) {
                ("train", "statistics") => all(&model.graph.states, ""),
                ("gradient", "all") => all(&model.graph.params, "gradient "),
                ("gradient", what) => get(&format!("gradient {what}")),
                (_, what) => get(what),
            };
            let n = x.len() as f64;
            let rms = (x.iter().map(|x| x * x).sum::<f64>() / n).sqrt();
            let probe = x.iter().zip(hashed("probe", x.len())).map(|(x, u)| x * u).sum::<f64>() / n.sqrt();
            let off = (rms - line.rms).abs().max((probe - line.probe).abs()) / line.rms;
            let budget = budget[usize::from(line.mode == "gradient")];
            assert!(off <= budget, "{backbone} {} {}: rms {rms} probe {probe}, Keras {} {}", line.mode, line.what, line.rms, line.probe);
            worst = if off / budget > worst.0 { (off / budget, off, line.what) } else { worst };
        }
    }
    println!("{backbone} on {}: {:.1}% of the budget ({}, {:.1e})", device().describe(), 100.0 * worst.0, worst.2, worst.1);
}

/// Of forward values and of gradients. The errors of up to 120 layers add up, each a few roundoffs of a sum that is accurate
/// in the mean: 120 layers, a factor of 32 for growth through batch norm on three images and for sums in another order.
/// Backward, batch norm subtracts nearly equal numbers where the last maps have few pixels: another 32. In f32 a ReLU or a
/// pool whose inputs lie that close to a tie also decides otherwise now and then, which moves a gradient by a discrete step;
/// what f32 gradients are held to here is that no term is missing, their rounding is tested op by op.
fn budget(dtype: DType) -> [f64; 2] {
    let forward = 120.0 * 32.0 * dtype.roundoff();
    [forward, if dtype == DType::F64 { 32.0 * forward } else { 0.1 }]
}

#[test]
fn vgg16_on_naive() {
    compare(|| Naive, Backbone::Vgg16, budget(DType::F64));
}

#[test]
fn xception_on_naive() {
    compare(|| Naive, Backbone::Xception, budget(DType::F64));
}

#[test]
fn inception_v3_on_naive() {
    compare(|| Naive, Backbone::InceptionV3, budget(DType::F64));
}

#[test]
fn densenet121_on_naive() {
    compare(|| Naive, Backbone::DenseNet121, budget(DType::F64));
}

#[test]
fn all_on_cpu() {
    Backbone::ALL.into_iter().for_each(|backbone| compare(|| Cpu::new(2).unwrap(), backbone, budget(DType::F32)));
}

/// A model file, in double precision, of the network whose numbers are recorded.
fn model_file(model: &Model, path: &std::path::Path) -> ModelFile {
    let spec = &model.spec;
    let metadata = Metadata {
        backbone: spec.backbone.name().into(),
        classes: (0..spec.classes).map(|c| c.to_string()).collect(),
        exif: false,
        hidden: vec![],
        input_size: spec.size,
        pixels: "f32".into(),
        preprocess: spec.preprocess.to_string(),
        profile: spec.profile,
        resize: "keras".into(),
        training: serde_json::Value::Null,
        version: VERSION,
    };
    let tensors = model.graph.params.iter().chain(&model.graph.states);
    let tensors: Vec<_> = tensors.map(|&v| (v, bytemuck::cast_slice::<f64, u8>(&value(model, v)).to_vec())).collect();
    let shapes: Vec<_> = tensors.iter().map(|(v, _)| model.graph.ty(*v).shape).collect();
    let entry = |((v, bytes), shape): (&'_ (Val, Vec<u8>), _)| (model.graph.name(*v).to_string(), bytes.clone(), shape);
    let entries: Vec<_> = tensors.iter().zip(&shapes).map(entry).collect();
    save(path, &metadata, entries.iter().map(|(name, bytes, shape)| Entry { name, shape: shape.dims(), bytes }), DType::F64).unwrap();
    ModelFile::open(path).unwrap()
}

/// Largest difference of the recorded maps of these images from Keras's, in heat and relative to the peak.
fn grad_cams<D: Backend>(device: impl Fn() -> D, backbone: Backbone, images: std::ops::Range<usize>) -> f64 {
    let golden: Vec<Vec<&str>> = include_str!("golden/gradcam.txt").lines().map(|l| l.split(' ').collect()).collect();
    let lines: Vec<&Vec<&str>> = golden.iter().filter(|words| words[0] == backbone.name()).collect();
    let size: usize = lines[0][1].parse().unwrap();
    let model = Spec { size, batch: 3, ..Spec::new(backbone, 8) }.build().unwrap();
    let path = std::env::temp_dir().join(format!("defrost-cam-{backbone}-{}-{}.safetensors", images.len(), std::process::id()));
    let file = model_file(&model, &path);
    let pixels: Vec<f32> = value(&model, model.graph.named("pixels").unwrap()).into_iter().map(|x| x as f32).collect();
    let pixels: Vec<f32> = pixels.chunks(size * size * 3).take(images.end).skip(images.start).flatten().copied().collect();
    let mut worst = 0f64;
    for lines in lines.chunks(3).map(|lines| &lines[images.clone()]) {
        let mut cam = GradCam::new(&file, &spec_of(&file).unwrap(), Some(lines[0][2]), device(), images.len()).unwrap();
        let explained = cam.explain(&pixels, &mut |image, _| vec![7, lines[image][4].parse().unwrap()]).unwrap();
        assert_eq!(explained.len(), lines.len());
        for (line, explained) in lines.iter().zip(explained) {
            let numbers: Vec<f64> = line[5..].iter().map(|word| word.parse().unwrap()).collect();
            let [other, cam] = &explained.cams[..] else { panic!("two classes were asked for") };
            assert_eq!((other.class, cam.heat.height * cam.heat.width), (7, numbers.len() - 1));
            let heat = cam.heat.values.iter().zip(&numbers[1..]).map(|(a, b)| (f64::from(*a) - b).abs());
            worst = heat.fold(worst.max((cam.peak - numbers[0]).abs() / numbers[0].max(f64::MIN_POSITIVE)), f64::max);
        }
    }
    std::fs::remove_file(&path).unwrap();
    worst
}

/// Heat is kept in f32, which rounds it by at most half of the first budget; the other half is for the network, whose own
/// budget in double precision is a thousandth of it. The second budget is that of f32 gradients, for the same reason.
#[test]
fn grad_cams_are_those_of_gradient_tape() {
    for backbone in Backbone::ALL {
        let (double, single) = (grad_cams(|| Naive, backbone, 2..3), grad_cams(|| Cpu::new(2).unwrap(), backbone, 0..3));
        println!("{backbone}: {double:.1e} on naive, {single:.1e} on cpu");
        assert!(double <= DType::F32.roundoff() && single <= budget(DType::F32)[1], "{backbone}: {double:e} {single:e}");
    }
}
