//! `--precision bf16` on the cpu device, where the processor multiplies pairs of bf16: a whole network beside its training in f32, a run,
//! and what is said where the processor does not.

use defrost::base::{DType, Precision};
use defrost::device::Arena;
use defrost::device::cpu::{Cpu, Isa};
use defrost::exec::{Passes, Program, Session};
use defrost::models::{Backbone, BatchNorm, Purpose, Spec};
use defrost::ops::Sgd;
use defrost::train::{Optimizer, fill, training_graph};
use std::process::{Command, Output};

const CLASSES: usize = 3;
const BATCH: usize = 4;
const SIZE: usize = 64;
const STEPS: usize = 4;

/// Whether there is something to test.
fn multiplies() -> bool {
    let has = Isa::best().has_bf16();
    if !has {
        println!("left out: this processor has no products of bf16");
    }
    has
}

/// Losses of some steps of DenseNet121, and what they changed in the weights. Batch norm runs on moving statistics, as in the test of
/// the kernels for GPUs and for its reason: the last layers have few pixels, and what normalises few numbers by themselves knows little
/// but their order.
fn train(precision: Precision) -> (Vec<f64>, Vec<f64>) {
    let device = Cpu::with(Isa::best(), 2);
    let spec = Spec {
        batch: BATCH,
        size: SIZE,
        purpose: Purpose::Train,
        batch_norm: BatchNorm::Moving,
        ..Spec::new(Backbone::DenseNet121, CLASSES)
    };
    let sgd = Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 });
    let graph = training_graph(&spec.build().unwrap(), &sgd).unwrap();
    let mut program = Program::compile(graph, &device, Passes { precision, ..Passes::default() }).unwrap();
    assert_eq!(program.precision(), precision);
    let mut session = Session::new(device).unwrap();
    fill(&mut session, &program, None, 7).unwrap();
    let floats = |bytes: Vec<u8>| bytes.chunks(4).map(|b| f64::from(f32::from_ne_bytes(b.try_into().unwrap()))).collect::<Vec<f64>>();
    let before = floats(session.bytes(&program, Arena::Params).unwrap());
    let pixels: Vec<f32> = (0..BATCH * SIZE * SIZE * 3).map(|i| ((i * 2_654_435_761 % 4_294_967_291) % 25_500) as f32 / 100.0).collect();
    let targets: Vec<f32> = (0..BATCH * CLASSES).map(|i| f32::from(u8::from(i % CLASSES == i / CLASSES % CLASSES))).collect();
    let mut losses = Vec::new();
    for step in 1..=STEPS {
        let knobs = [0.01, step as f32, 0.0, 0.0];
        session.run(&mut program, &[("pixels", &pixels), ("targets", &targets), ("weights", &[1.0; BATCH]), ("knobs", &knobs)]).unwrap();
        losses.push(session.get(&program, "loss").unwrap()[0]);
    }
    let after = floats(session.bytes(&program, Arena::Params).unwrap());
    (losses, before.iter().zip(&after).map(|(b, a)| a - b).collect())
}

#[test]
fn densenet121_trains_as_in_f32() {
    if !multiplies() {
        return;
    }
    // Every layer rounds its operands once forward and once back; as a random walk through all of them, in each of the steps.
    let budget = DType::Bf16.roundoff() * f64::sqrt((2 * 121 * STEPS) as f64);
    let ((losses, changes), (expected, wanted)) = (train(Precision::Bf16), train(Precision::F32));
    for (a, b) in losses.iter().zip(&expected) {
        assert!((a - b).abs() <= budget * b.abs(), "{losses:?}, in f32 {expected:?}");
    }
    let fall = |losses: &[f64]| losses[0] - losses[STEPS - 1];
    assert!((fall(&losses) - fall(&expected)).abs() <= budget * fall(&expected), "{losses:?}, in f32 {expected:?}");
    let (d, n) = changes.iter().zip(&wanted).fold((0.0, 0.0), |(d, n), (a, b)| (d + (a - b) * (a - b), n + b * b));
    let far = f64::sqrt(d / n);
    println!("losses {losses:?}, in f32 {expected:?}; changes differ by {far:.1e}, the budget is {budget:.1e}");
    assert!(n > 0.0 && far < budget, "{far}");
    assert!(far > DType::Bf16.roundoff() / 16.0, "{far}: is anything rounded?");
    assert!(losses == train(Precision::Bf16).0, "the same bits in every run");
}

fn defrost(args: &[&str], isa: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_defrost"));
    isa.map(|isa| command.env("DEFROST_ISA", isa));
    command.args(args).output().unwrap()
}

#[test]
fn bench_says_what_it_computed_in() {
    if !multiplies() {
        return;
    }
    let words = ["bench", "--backbone", "densenet121", "--input-size", "32", "--batch-size", "1", "--steps", "1", "--device", "cpu"];
    let done = defrost(&[&words[..], &["--precision", "bf16", "--json"]].concat(), None);
    let record: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(record["precision"], "bf16");
}

#[test]
fn a_run_trains_in_bf16_and_validates_in_f32() {
    if !multiplies() {
        return;
    }
    let root = std::env::temp_dir().join(format!("defrost-bf16-{}", std::process::id()));
    for (class, colour) in [("dark", 40u8), ("light", 200)] {
        std::fs::create_dir_all(root.join("photos").join(class)).unwrap();
        for i in 0..8u8 {
            let image = image::RgbImage::from_fn(33, 35, |x, y| image::Rgb([colour + i, (x * 3) as u8, (y * 5) as u8]));
            image.save(root.join("photos").join(class).join(format!("{i}.png"))).unwrap();
        }
    }
    let [photos, run, model] = ["photos", "run", "run/best.safetensors"].map(|name| root.join(name).to_str().unwrap().to_string());
    let fixed = ["train", &photos, "--out", &run, "--backbone", "densenet121", "--weights", "random", "--input-size", "32"];
    let done = defrost(&[&fixed[..], &["--epochs", "1", "--precision", "bf16", "--device", "cpu"]].concat(), None);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = |name: &str| std::fs::read_to_string(root.join("run").join(name)).unwrap();
    assert!(text("config.toml").contains("precision = \"bf16\""));
    // What the run says of its model is to the bit what the model says in f32.
    let again = defrost(&["evaluate", &model, &photos, "--subset", "val", "--json", "--device", "cpu"], None);
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(json(&String::from_utf8(again.stdout).unwrap()), json(&text("metrics.json")));
    std::fs::remove_dir_all(&root).unwrap();
}

#[test]
fn a_processor_without_the_instruction_is_named() {
    let words = ["bench", "--backbone", "vgg16", "--input-size", "32", "--precision", "bf16", "--device", "cpu"];
    let refused = defrost(&words, Some("portable"));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("AVX512_BF16") && said.contains("portable") && said.contains("--precision f32"), "{said}");
}
