//! The program as a user meets it: help, numbers, JSON keys, exit codes.

use defrost::base::DType;
use defrost::models::Backbone;
use defrost::weights::{Entry, Metadata, VERSION, save};
use serde_json::Value;
use std::process::{Command, Output};

fn defrost(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_defrost")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a command that succeeds prints.
fn stdout(args: &[&str]) -> String {
    let output = defrost(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What a command that fails says, with the exit code it must have.
fn refusal(args: &[&str], code: i32) -> String {
    let output = defrost(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
    assert!(output.stdout.is_empty(), "{args:?} printed {}", text(&output.stdout));
    text(&output.stderr)
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(args)).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Compares with a file of `tests/golden`; `DEFROST_BLESS=1` writes it.
fn golden(file: &str, found: &str) {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("DEFROST_BLESS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&path).unwrap(), "{file}");
}

#[test]
fn every_command_has_help() {
    let all = stdout(&["--help"]);
    let commands = all.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let names: Vec<&str> =
        commands.lines().filter_map(|l| l.strip_prefix("  ")?.split_whitespace().next()).filter(|n| *n != "help").collect();
    for name in ["summary", "bench", "profile", "explain", "selftest", "devices"] {
        assert!(names.contains(&name), "{name} is missing from\n{all}");
    }
    for name in names {
        let help = stdout(&[name, "--help"]);
        assert!(help.contains(&format!("Usage: defrost {name}")), "{help}");
    }
}

#[test]
fn a_backbone_that_does_not_exist_is_refused_with_the_four_that_do() {
    for args in [&["summary", "resnet50"][..], &["explain", "resnet50"], &["profile", "resnet50"], &["bench", "--backbone", "resnet50"]] {
        let message = refusal(args, 2);
        for name in ["vgg16", "xception", "inceptionv3", "densenet121"] {
            assert!(message.contains(name), "{message}");
        }
    }
}

#[test]
fn wrong_usage_is_refused_and_names_the_cause() {
    assert!(refusal(&["bench"], 2).contains("--backbone"));
    let train = |more: &[&str]| refusal(&[&["train", "photos", "--backbone", "vgg16", "--out", "run"], more].concat(), 2);
    assert!(train(&["--lr", "-1"]).contains("--lr: -1 is not a positive number"));
    // Before anything is looked for on the disk.
    assert!(train(&["--input-size", "8"]).contains("VGG16 needs at least 32 pixels"));
    assert!(refusal(&["bench", "--backbone", "vgg16", "--batch-size", "0"], 2).contains("at least 1"));
    assert!(refusal(&["bench", "--backbone", "vgg16", "--input-size", "16"], 2).contains("at least 32"));
    assert!(refusal(&["bench", "--backbone", "vgg16", "--input-size", "32", "--precision", "tf32", "--device", "cpu"], 2).contains("f32"));
    assert!(refusal(&["bench", "--backbone", "vgg16", "--device", "gpu"], 2).contains("cuda:N"));
    assert!(refusal(&["bench", "--peak", "--device", "cuda"], 2).contains("the processor"));
    assert!(refusal(&["summary", "missing.safetensors"], 2).contains("missing.safetensors"));
    assert!(refusal(&["summary", env!("CARGO_MANIFEST_DIR")], 2).contains("is a folder, expected a safetensors file"));
    assert!(refusal(&["summary", "xception", "--input-size", "40"], 2).contains("71"));
    assert!(refusal(&["selftest", "--op", "conv3d"], 2).contains("conv2d"));
    assert!(refusal(&["explain", "vgg16", "--layer", "block1_conv"], 2).contains("block1_conv1"));
}

#[test]
fn summary_has_the_numbers_of_keras() {
    for (backbone, parameters, trainable, size) in [
        ("vgg16", 14_714_688, 14_714_688, 224),
        ("xception", 20_861_480, 20_806_952, 299),
        ("inceptionv3", 21_802_784, 21_768_352, 299),
        ("densenet121", 7_037_504, 6_953_856, 224),
    ] {
        let summary = json(&["summary", backbone, "--json", "--batch-size", "2"]);
        let expected = ["backbone", "flops_per_image", "input", "layers", "memory_bytes", "parameters", "trainable"];
        assert_eq!(keys(&summary), expected);
        assert_eq!(summary["parameters"], parameters);
        assert_eq!(summary["trainable"], trainable);
        assert_eq!(summary["input"], serde_json::json!([size, size, 3]));
        let layers = summary["layers"].as_array().unwrap();
        assert_eq!(keys(&layers[0]), ["kind", "name", "parameters", "shape"]);
        assert_eq!(layers.iter().map(|l| l["parameters"].as_u64().unwrap()).sum::<u64>(), parameters);
        assert!(summary["memory_bytes"].as_u64().unwrap() > 4 * parameters);
    }
    // VGG16 has 15.35 billion multiply-adds, 3% of which meet padding and are not counted.
    let flops = json(&["summary", "vgg16", "--json", "--batch-size", "1"])["flops_per_image"].as_f64().unwrap();
    assert!((29.7e9..30.7e9).contains(&flops), "{flops}");
    assert!(stdout(&["summary", "vgg16", "--batch-size", "1"]).contains("14,714,688"));
}

#[test]
fn a_model_file_is_summarised_with_its_head() {
    let metadata = Metadata {
        backbone: "densenet121".into(),
        classes: ["dyed-lifted-polyps", "impacted-stool", "polyps"].map(String::from).to_vec(),
        exif: false,
        hidden: vec![],
        input_size: 96,
        pixels: "f32".into(),
        preprocess: "torch".into(),
        profile: Backbone::DenseNet121.profile(),
        resize: "keras".into(),
        training: Value::Null,
        version: VERSION,
    };
    let path = std::env::temp_dir().join(format!("defrost-cli-{}.safetensors", std::process::id()));
    // The summary reads metadata and the head's shape; a file with nothing else is enough for it.
    let (kernel, bias) = (vec![0; 1024 * 3 * 4], vec![0; 3 * 4]);
    let entries =
        [Entry { name: "dense/kernel", shape: &[1024, 3], bytes: &kernel }, Entry { name: "dense/bias", shape: &[3], bytes: &bias }];
    save(&path, &metadata, entries, DType::F32).unwrap();
    let name = path.to_str().unwrap();
    let summary = json(&["summary", name, "--json", "--batch-size", "1"]);
    assert_eq!(summary["parameters"], 7_037_504 + 1024 * 3 + 3);
    assert_eq!(summary["input"], serde_json::json!([96, 96, 3]));
    assert_eq!(summary["layers"].as_array().unwrap().last().unwrap()["name"], "dense");
    assert!(stdout(&["explain", name, "--layer", "dense", "--grad"]).contains("d dense/kernel = dense_dw"));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn bench_prints_one_line_of_json() {
    for mode in ["train", "frozen", "infer"] {
        let size = ["--input-size", "32", "--batch-size", "1", "--steps", "1"];
        let line = stdout(&[&["bench", "--backbone", "vgg16", "--mode", mode, "--json"][..], &size].concat());
        assert_eq!(line.lines().count(), 1);
        let record: Value = serde_json::from_str(&line).unwrap();
        let expected =
            ["backbone", "batch", "device", "images_per_s", "max_ms", "min_ms", "mode", "peak_mib", "precision", "size", "step_ms"];
        assert_eq!(keys(&record), expected);
        assert_eq!((record["mode"].as_str(), record["precision"].as_str()), (Some(mode), Some("f32")));
        assert!(record["step_ms"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn profile_accounts_for_every_step() {
    let args = ["profile", "vgg16", "--mode", "train", "--input-size", "32", "--batch-size", "1", "--steps", "1", "--json"];
    let profile = json(&args);
    let steps = profile["steps"].as_array().unwrap();
    let counted: u64 = profile["ops"].as_array().unwrap().iter().map(|op| op["steps"].as_u64().unwrap()).sum();
    assert_eq!(counted, steps.len() as u64);
    assert_eq!(steps.iter().filter(|s| s["op"].as_str().unwrap().starts_with("conv2d_dw")).count(), 13);
    assert!(profile["peak"]["gflops"].as_f64().unwrap() > 0.0);
}

#[test]
fn selftest_of_one_op_passes() {
    let report = json(&["selftest", "--op", "conv2d", "--json"]);
    assert_eq!(keys(&report), ["device", "dtypes", "failed", "faults_caught", "faults_planted", "ops", "passed", "rows"]);
    assert_eq!(report["ops"], serde_json::json!(["conv2d"]));
    assert!(report["failed"].as_array().unwrap().is_empty());
    assert_eq!(report["rows"], report["passed"]);
    assert!(report["faults_planted"].as_u64().unwrap() > 0);
    assert_eq!(report["faults_planted"], report["faults_caught"]);
}

#[test]
fn explain_shows_a_layer_and_its_gradients() {
    golden("explain.txt", &stdout(&["explain", "vgg16", "--layer", "block1_conv1", "--grad"]));
    // A batch norm's last row moves into the activation behind it, and is still shown.
    assert!(stdout(&["explain", "densenet121", "--layer", "conv1_bn"]).contains("scale_shift relu"));
    // A row's formula is that of its fields.
    assert!(stdout(&["explain", "densenet121", "--layer", "conv1_bn"]).contains("y = x * scale + shift\n"));
    assert!(stdout(&["explain", "inceptionv3", "--layer", "batch_normalization"]).contains("scale = 1 / sqrt(var + epsilon)"));
    assert!(stdout(&["explain", "densenet121", "--layer", "zero_padding2d"]).contains("no row"));
    assert!(stdout(&["explain", "vgg16"]).contains("block5_conv3"));
}

#[test]
fn explain_prints_the_graph_after_any_pass() {
    let dump = |stage: &str| stdout(&["explain", "vgg16", "--dump", "--stop-after", stage, "--batch-size", "1"]);
    assert!(!dump("model").contains("backward:"));
    assert!(dump("grad").contains("= bias_add"));
    assert!(dump("fuse").contains("conv2d 3x3 same bias relu"));
    assert!(dump("plan").contains("-> set Temps+0x"));
}

#[test]
fn devices_are_listed() {
    let devices = json(&["devices", "--json"]);
    let names: Vec<&str> = devices.as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap()).collect();
    assert_eq!(names.iter().filter(|name| !name.starts_with("cuda")).collect::<Vec<_>>(), [&"cpu", &"naive"]);
    assert!(names.iter().any(|name| name.starts_with("cuda")), "a GPU, or why there is none");
}
