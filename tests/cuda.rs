//! The CUDA kernels without a GPU: the emulated driver runs the same source. Needs a C++ compiler (g++, or the one in CXX).

use defrost::base::{Precision, Val};
use defrost::device::Arena;
use defrost::device::cpu::{Cpu, Isa};
use defrost::device::cuda::emulated::{Build, Emulated, Manner, object, open};
use defrost::device::cuda::gpu;
use defrost::exec::{Passes, Program, Session};
use defrost::models::{Backbone, BatchNorm, Purpose, Spec};
use defrost::ops::{Backend, Op, Sgd, kernels};
use defrost::selftest::{Target, run};
use defrost::train::{Optimizer, fill, training_graph};
use std::collections::BTreeSet;
use std::process::Command;

const CLASSES: usize = 3;
const BATCH: usize = 2;
const STEPS: usize = 3;

#[test]
fn every_op_on_the_emulated_device_and_every_planted_fault() {
    let report = run(Target::Emulated, None, &|_, _| {}).unwrap();
    assert!(report.failed.is_empty(), "{:#?}", report.failed);
    assert!(report.is_good() && report.faults_planted >= 19, "{} of {}", report.faults_caught, report.faults_planted);
    assert!(report.rows > 40 * report.ops.len(), "{} rows", report.rows);
}

/// Rust launches kernels by their declarations, and a driver checks neither the number of arguments nor their order.
#[test]
fn every_kernel_is_declared_as_it_is_defined() {
    let emulated = Emulated::new(Manner::FAST).unwrap();
    let declared = kernels();
    for kernel in &declared {
        assert_eq!(emulated.signature(kernel.name).as_deref(), Some(&kernel.signature[..]), "{} in {}.cu", kernel.name, kernel.file);
    }
    let names: BTreeSet<&str> = declared.iter().map(|k| k.name).collect();
    assert!(names.len() > 50, "{names:?}");
    // The other way round: every kernel that is exported is declared, so nothing is left that is never launched.
    let symbols = Command::new("nm").args(["-D", "--defined-only"]).arg(object(Build::Fast).unwrap()).output().unwrap();
    let symbols = String::from_utf8(symbols.stdout).unwrap();
    let exported = symbols.lines().filter_map(|l| l.split(" kernel_").nth(1)).filter(|name| !name.starts_with("fault_"));
    let forgotten: Vec<&str> = exported.filter(|name| !names.contains(name)).collect();
    assert!(forgotten.is_empty(), "kernels without a declaration: {forgotten:?}");
}

#[test]
fn a_declaration_that_differs_is_refused() {
    use defrost::device::cuda::{Driver, Grid, Launch};
    let emulated = Emulated::new(Manner::FAST).unwrap();
    let launch = |kernel, signature| Launch {
        kernel,
        file: "faults",
        signature,
        grid: Grid::from(2),
        block: 64,
        shared: 0,
        words: vec![0, 0],
        starts: vec![0, 1],
        regions: Vec::new(),
    };
    let error = emulated.launch(launch("fault_none", || "*mut f32, *const f32".into())).unwrap_err();
    assert!(error.what().contains("takes (*const f32, *mut f32), Rust declares (*mut f32, *const f32)"), "{error}");
    assert!(emulated.launch(launch("no_such_kernel", String::new)).unwrap_err().what().contains("no_such_kernel"));
}

/// Losses of some steps, and what they changed in the weights.
struct Trained {
    losses: Vec<f64>,
    changes: Vec<f64>,
}

/// Trains a whole network at its smallest size. Batch norm runs on moving statistics: the last layers have two pixels a channel,
/// and what normalises two numbers by themselves knows little but their order.
fn train<D: Backend>(device: D, backbone: Backbone) -> Trained {
    let size = backbone.minimum_size();
    let spec = Spec { batch: BATCH, size, purpose: Purpose::Train, batch_norm: BatchNorm::Moving, ..Spec::new(backbone, CLASSES) };
    let sgd = Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 });
    let graph = training_graph(&spec.build().unwrap(), &sgd).unwrap();
    let mut program = Program::compile(graph, &device, Passes::default()).unwrap();
    let mut session = Session::new(device).unwrap();
    fill(&mut session, &program, None, 7).unwrap();
    let floats = |bytes: Vec<u8>| bytes.chunks(4).map(|b| f64::from(f32::from_ne_bytes(b.try_into().unwrap()))).collect::<Vec<f64>>();
    let before = floats(session.bytes(&program, Arena::Params).unwrap());
    let pixels: Vec<f32> = (0..BATCH * size * size * 3).map(|i| ((i * 2_654_435_761 % 4_294_967_291) % 25_500) as f32 / 100.0).collect();
    let targets: Vec<f32> = (0..BATCH * CLASSES).map(|i| f32::from(u8::from(i % CLASSES == i / CLASSES))).collect();
    let mut losses = Vec::new();
    for step in 1..=STEPS {
        let knobs = [0.01, step as f32, 0.0, 0.0];
        session.run(&mut program, &[("pixels", &pixels), ("targets", &targets), ("weights", &[1.0; BATCH]), ("knobs", &knobs)]).unwrap();
        losses.push(session.get(&program, "loss").unwrap()[0]);
    }
    let after = floats(session.bytes(&program, Arena::Params).unwrap());
    Trained { losses, changes: before.iter().zip(&after).map(|(b, a)| a - b).collect() }
}

/// Rounding in f32 through three steps of about 600 rows with sums of up to 10,000 terms, as a random walk:
/// `6e-8 * 4 sqrt(1e4) * sqrt(3 * 600)`.
const BUDGET: f64 = 1e-3;

/// Three steps on the emulated device (one row by row, one recorded, one replayed) beside the cpu: the losses, and what the steps
/// changed in the weights as a root mean square.
fn trains_as_the_cpu_does(backbone: Backbone) {
    let (cuda, cpu) = (train(open(Manner::FAST).unwrap(), backbone), train(Cpu::with(Isa::best(), 1), backbone));
    for (a, b) in cuda.losses.iter().zip(&cpu.losses) {
        assert!((a - b).abs() <= BUDGET * b.abs(), "{backbone}: {:?} and {:?}", cuda.losses, cpu.losses);
    }
    let (d, n) = cuda.changes.iter().zip(&cpu.changes).fold((0.0, 0.0), |(d, n), (a, b)| (d + (a - b) * (a - b), n + b * b));
    let far = f64::sqrt(d / n);
    println!("{backbone}: changes differ by {far:.1e}, losses {:?}", cuda.losses);
    assert!(n > 0.0 && far < BUDGET, "{backbone}: {far}");
}

#[test]
fn vgg16_trains_on_the_emulated_device() {
    trains_as_the_cpu_does(Backbone::Vgg16);
}

#[test]
fn xception_trains_on_the_emulated_device() {
    trains_as_the_cpu_does(Backbone::Xception);
}

#[test]
fn inception_v3_trains_on_the_emulated_device() {
    trains_as_the_cpu_does(Backbone::InceptionV3);
}

#[test]
fn densenet121_trains_on_the_emulated_device() {
    trains_as_the_cpu_does(Backbone::DenseNet121);
}

/// Batch norm's sums over what a convolution makes are fields of that convolution: no row of its own is left that could be one.
#[test]
fn statistics_and_sums_are_taken_where_convolutions_leave_their_results() {
    let device = open(Manner::FAST).unwrap();
    for (backbone, expected) in FUSED {
        let spec = Spec { batch: BATCH, size: backbone.minimum_size(), purpose: Purpose::Train, ..Spec::new(backbone, CLASSES) };
        let sgd = Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 });
        let graph = training_graph(&spec.build().unwrap(), &sgd).unwrap();
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            let program = Program::compile(graph.clone(), &device, Passes { precision, ..Passes::default() }).unwrap();
            let (rows, uses, makers) = (&program.graph().nodes, program.graph().uses(), program.graph().producers());
            let made_by = |v: Val| makers[v.index()].map(|row| &rows[row].op);
            let batch_norm = |row: &usize| matches!(rows[*row].op, Op::ScaleShiftSums(_) | Op::ScaleShiftDx(_));
            let missed = rows.iter().filter(|row| match row.op {
                Op::ChannelStats(_) => matches!(made_by(row.ins[0]), Some(Op::Conv2d(_))),
                Op::ScaleShiftSums(_) => {
                    matches!(made_by(row.ins[0]), Some(Op::Conv2dDx(_))) && uses[row.ins[0].index()].iter().all(batch_norm)
                }
                Op::ActivationDx(_) => matches!(made_by(row.ins[0]), Some(Op::Conv2dDx(_))) && uses[row.ins[0].index()].len() == 1,
                _ => false,
            });
            assert_eq!(missed.map(|row| row.op.to_string()).collect::<Vec<_>>(), Vec::<String>::new(), "{backbone} {precision}");
            let count = |pick: fn(&Op) -> bool| rows.iter().filter(|row| pick(&row.op)).count();
            let found = [
                count(|op| matches!(op, Op::Conv2d(conv) if conv.stats)),
                count(|op| matches!(op, Op::Conv2dDx(dx) if dx.sums.is_some())),
                count(|op| matches!(op, Op::Conv2dDx(dx) if dx.mask.is_some())),
            ];
            assert_eq!(found, expected, "{backbone} {precision}");
        }
    }
}

/// Convolutions whose statistics are taken (all that a batch norm follows, but not those that an average pool comes after), input gradients
/// that go on through a batch norm, and through a ReLU (those that are not one of several gradients of one value, or go to a pool first).
const FUSED: [(Backbone, [usize; 3]); 4] = [
    (Backbone::Vgg16, [0, 0, 8]),
    (Backbone::DenseNet121, [120, 116, 0]),
    (Backbone::Xception, [40, 1, 0]),
    (Backbone::InceptionV3, [85, 44, 0]),
];

#[test]
fn without_a_gpu_one_sentence_says_why() {
    let Err(why) = gpu::devices() else { return println!("left out: there is a GPU") };
    let run = Command::new(env!("CARGO_BIN_EXE_defrost")).args(["bench", "--backbone", "vgg16", "--device", "cuda"]).output().unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(3), "{said}");
    assert!(said.contains(why.what()) && said.contains("--device cpu"), "{said}");
    let listed = Command::new(env!("CARGO_BIN_EXE_defrost")).arg("devices").output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains(why.what()));
}

#[test]
fn a_plan_without_room_is_refused_with_its_size() {
    let device = open(Manner { memory: 8 << 20, ..Manner::FAST }).unwrap();
    let spec = Spec { batch: 64, size: 64, purpose: Purpose::Infer, ..Spec::new(Backbone::Vgg16, CLASSES) };
    let program = Program::compile(spec.build().unwrap().graph, &device, Passes::default()).unwrap();
    let planned: usize = program.plan().bytes.iter().sum();
    let error = Session::new(device).unwrap().reserve(&program).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.what().contains(&format!("needs {} MiB", planned >> 20)) && error.what().contains("8 MiB are free"), "{error}");
}
