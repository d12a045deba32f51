//! `defrost predict` and `defrost evaluate` through the program, on a small model with random weights; and a model file
//! mapped as weights.

mod heat_maps;

use defrost::base::DType;
use defrost::data::dataset::sha256_hex;
use defrost::device::cpu::Cpu;
use defrost::ir::{Init, Role};
use defrost::models::{Backbone, Spec};
use defrost::train::Opened;
use defrost::train::opened::spec_of;
use defrost::weights::{Draw, Entry, Metadata, ModelFile, VERSION, save};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

/// A folder of its own that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    /// A model `m.safetensors` of VGG16 at 32 pixels, and `data/{a,b,c}` with two images each.
    fn new(name: &str) -> Self {
        let folder = Folder(std::env::temp_dir().join(format!("defrost-predict-{name}-{}", std::process::id())));
        let _ = std::fs::remove_dir_all(&folder.0);
        std::fs::create_dir_all(&folder.0).unwrap();
        write_model(&folder.at("m.safetensors"), Backbone::Vgg16, 32, &["a", "b", "c"], DType::F32);
        for (i, name) in ["a/1", "a/2", "b/1", "b/2", "c/1", "c/2"].into_iter().enumerate() {
            folder.image(&format!("data/{name}.png"), i as u32);
        }
        folder
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).to_str().unwrap().into()
    }

    /// Writes a picture of 40 x 36 pixels, another one for each seed.
    fn image(&self, name: &str, seed: u32) {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let stripes = |x: u32, y: u32| [(x * (seed + 1) * 9) as u8, (y * (seed * 5 + 2)) as u8, ((x + y) * seed * 3) as u8];
        image::RgbImage::from_fn(40, 36, |x, y| image::Rgb(stripes(x, y))).save(path).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_defrost")).current_dir(&self.0).args(args).output().unwrap()
    }

    /// Standard output of a run that must end with this exit code.
    fn stdout(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str], code: i32) -> Value {
        serde_json::from_str(&self.stdout(args, code)).unwrap()
    }

    /// The errors and warnings of a run.
    fn stderr(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        stderr
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes a model with initial weights; without `names` it has three classes.
fn write_model(path: &Path, backbone: Backbone, size: usize, names: &[&str], dtype: DType) {
    let spec = Spec { size, ..Spec::new(backbone, names.len().max(3)) };
    let graph = spec.build().unwrap().graph;
    let tensor = |&v| {
        let (Role::Param { init, .. } | Role::State { init }) = graph.role(v) else { panic!("a parameter or a state") };
        // A head of large weights tells images apart although nothing was trained.
        let init = if graph.name(v) == "dense/kernel" { Init::GlorotUniform { fan_in: 1, fan_out: 1 } } else { init };
        let bytes = Draw::new(1, graph.name(v), init).bytes(dtype, graph.ty(v).shape.len());
        (graph.name(v).to_string(), graph.ty(v).shape, bytes)
    };
    let tensors: Vec<_> = graph.params.iter().chain(&graph.states).map(tensor).collect();
    let metadata = Metadata {
        backbone: backbone.name().into(),
        classes: names.iter().map(|n| n.to_string()).collect(),
        exif: false,
        hidden: vec![],
        input_size: size,
        pixels: "f32".into(),
        preprocess: backbone.preprocess().to_string(),
        profile: backbone.profile(),
        resize: "keras".into(),
        training: Value::Null,
        version: VERSION,
    };
    let entries = tensors.iter().map(|(name, shape, bytes)| Entry { name, shape: shape.dims(), bytes });
    save(path, &metadata, entries, dtype).unwrap();
}

/// The probabilities of the classes in a record.
fn probabilities(record: &Value) -> Vec<f64> {
    ["a", "b", "c"].map(|class| record["probabilities"][class].as_f64().unwrap()).to_vec()
}

#[test]
fn predictions_are_in_the_order_of_the_arguments_and_alike_in_every_form() {
    let f = Folder::new("order");
    let paths = ["data/c/2.png", "data/a", "data/b/1.png", "data/c/2.png"];
    let expected = ["data/c/2.png", "data/a/1.png", "data/a/2.png", "data/b/1.png", "data/c/2.png"];
    let args = |form| [&["predict", "m.safetensors"], &paths[..], form].concat();
    let text = f.stdout(&args(&["--json"]), 0);
    let records: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(records.iter().map(|r| r["path"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    assert!(text.contains(r#"{"path":"data/c/2.png","class":""#) && text.contains(r#""probabilities":{"a":0."#), "{text}");
    let (csv, lines) = (f.stdout(&args(&["--csv"]), 0), f.stdout(&args(&[]), 0));
    assert!(csv.starts_with("path,class,probability,a,b,c\n"), "{csv}");
    assert_eq!((csv.lines().count(), lines.lines().count()), (6, 5));
    for ((record, row), line) in records.iter().zip(csv.lines().skip(1)).zip(lines.lines()) {
        let p = probabilities(record);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-6);
        let (class, best) = (record["class"].as_str().unwrap(), record["probability"].as_f64().unwrap());
        assert_eq!(best, p.iter().copied().fold(0.0, f64::max));
        assert_eq!(row, format!("{},{class},{best},{},{},{}", record["path"].as_str().unwrap(), p[0], p[1], p[2]));
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), [record["path"].as_str().unwrap(), class, &format!("{best:.4}")]);
    }
    assert_eq!(records[0], records[4]);
    assert_ne!(probabilities(&records[0]), probabilities(&records[1]));
}

#[test]
fn the_batch_size_changes_no_bit_and_the_specification_agrees() {
    let f = Folder::new("batch");
    let one = f.stdout(&["predict", "m.safetensors", "data", "--json", "--batch-size", "1"], 0);
    for batch in ["4", "8"] {
        assert_eq!(f.stdout(&["predict", "m.safetensors", "data", "--json", "--batch-size", batch], 0), one);
    }
    let fast: Vec<Value> = serde_json::from_str(&one).unwrap();
    let slow = f.json(&["predict", "m.safetensors", "data/a/1.png", "data/c/1.png", "--json", "--device", "naive"], 0);
    for (slow, fast) in slow.as_array().unwrap().iter().zip([&fast[0], &fast[4]]) {
        for (a, b) in probabilities(slow).iter().zip(probabilities(fast)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}

#[test]
fn a_file_that_fails_is_named_and_the_others_are_done() {
    let f = Folder::new("broken");
    std::fs::write(f.at("page.png"), "<html>").unwrap();
    let args = |form| [&["predict", "m.safetensors", "none.png", "data/a/1.png", "page.png", "data/b/1.png"][..], form].concat();
    let records = f.json(&args(&["--json"]), 1);
    let failed: Vec<bool> = records.as_array().unwrap().iter().map(|r| r["error"].is_string()).collect();
    assert_eq!(failed, [true, false, true, false]);
    assert_eq!((&records[2]["path"], records[2].as_object().unwrap().len()), (&"page.png".into(), 2));
    assert!(records[2]["error"].as_str().unwrap().contains("web page"), "{records}");
    // What could be read is what it would be alone.
    assert_eq!(f.json(&["predict", "m.safetensors", "data/b/1.png", "--json"], 0)[0], records[3]);
    for (form, lines) in [(&["--csv"][..], 3), (&[][..], 2)] {
        let output = f.run(&args(form));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap().lines().count()), (Some(1), lines));
        assert!(stderr.contains("page.png: the content is a web page") && stderr.contains("2 of 4 images"), "{stderr}");
    }
}

#[test]
fn what_is_no_model_is_refused() {
    let f = Folder::new("refused");
    std::fs::write(f.at("other.safetensors"), "no model at all, only text").unwrap();
    for model in ["other.safetensors", "none.safetensors", "data"] {
        assert!(f.stderr(&["predict", model, "data"], 2).contains(model));
        assert!(f.stderr(&["evaluate", model, "data"], 2).contains(model));
    }
    f.stderr(&["predict", "m.safetensors"], 2);
    assert!(f.stderr(&["predict", "m.safetensors", "data", "--input-size", "8"], 2).contains("at least 32"));
}

#[test]
fn flags_that_contradict_the_model_are_obeyed_with_a_warning() {
    let f = Folder::new("override");
    let plain = ["predict", "m.safetensors", "data/b/2.png", "--json"];
    let said = f.stdout(&plain, 0);
    assert_eq!(f.stderr(&[&plain[..], &["--input-size", "32", "--preprocess", "backbone", "--resize", "keras"]].concat(), 0), "");
    for (flag, value) in [("--input-size", "40"), ("--preprocess", "none"), ("--resize", "nearest")] {
        let args = [&plain[..], &[flag, value]].concat();
        assert_ne!(f.stdout(&args, 0), said, "{flag}");
        let stderr = f.stderr(&args, 0);
        assert!(stderr.starts_with(&format!("warning: the model says {flag} ")) && stderr.contains(value), "{stderr}");
    }
}

#[test]
fn evaluate_measures_what_predict_predicts() {
    let f = Folder::new("evaluate");
    let record = f.json(&["evaluate", "m.safetensors", "data", "--json", "--csv", "out.csv"], 0);
    for key in ["accuracy", "auroc_macro", "balanced_accuracy", "brier", "classes", "confusion", "ece", "images", "loss", "mcc"] {
        assert!(!record[key].is_null(), "{key}");
    }
    for key in ["name", "precision", "recall", "sensitivity", "specificity", "f1", "auroc", "support"] {
        assert!(record["classes"][0].as_object().unwrap().contains_key(key), "{key}");
    }
    assert_eq!((&record["intervals"]["resamples"], &record["intervals"]["unit"]), (&2000.into(), &"image".into()));
    assert_eq!((&record["images"], &record["classes"][1]["name"], &record["classes"][1]["support"]), (&6.into(), &"b".into(), &2.into()));

    let predicted = f.json(&["predict", "m.safetensors", "data", "--json"], 0);
    let csv = std::fs::read_to_string(f.at("out.csv")).unwrap();
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!((rows[0], rows.len()), ("path,label,predicted,a,b,c", 7));
    assert_eq!(f.stdout(&["evaluate", "m.safetensors", "data", "--csv", "-"], 0), csv);
    assert!(f.stderr(&["evaluate", "m.safetensors", "data", "--csv", "-", "--json"], 2).contains("either the table or the JSON"));
    let (mut hits, mut loss) = (0, 0.0);
    for (record, row) in predicted.as_array().unwrap().iter().zip(&rows[1..]) {
        let path = record["path"].as_str().unwrap().strip_prefix("data/").unwrap();
        let (p, class) = (probabilities(record), record["class"].as_str().unwrap());
        assert_eq!(*row, format!("{path},{},{class},{},{},{}", &path[..1], p[0], p[1], p[2]));
        hits += usize::from(&path[..1] == class);
        loss -= record["probabilities"][&path[..1]].as_f64().unwrap().ln() / 6.0;
    }
    assert_eq!(record["accuracy"].as_f64().unwrap(), hits as f64 / 6.0);
    assert!((record["loss"].as_f64().unwrap() - loss).abs() < 1e-6);
    let text = f.stdout(&["evaluate", "m.safetensors", "data", "--batch-size", "1"], 0);
    let accuracy = text.lines().find(|line| line.starts_with("accuracy ")).unwrap();
    let [low, high] = [0, 1].map(|end| record["intervals"]["accuracy"][end].as_f64().unwrap());
    assert!(accuracy.ends_with(&format!(" {:.4}  {low:.4} to {high:.4}", hits as f64 / 6.0)), "{text}");
    // The worst first, as in the JSON.
    let worst: Vec<&str> = record["worst"].as_array().unwrap().iter().map(|w| w["path"].as_str().unwrap()).collect();
    let listed = text.lines().skip_while(|l| !l.starts_with("worst-scored images")).skip(2).map(|l| l.split(' ').next().unwrap());
    assert_eq!(listed.collect::<Vec<_>>(), worst);
    let loss = |w: &Value| w["loss"].as_f64().unwrap();
    assert!(worst.len() == 6 && record["worst"].as_array().unwrap().windows(2).all(|w| loss(&w[0]) >= loss(&w[1])));
}

#[test]
fn groups_widen_the_intervals_and_a_folder_holds_the_pictures() {
    let f = Folder::new("groups");
    f.image("data/b/3.png", 11);
    let base = ["evaluate", "m.safetensors", "data", "--json"];
    let error = f.stderr(&[&base[..], &["--group-regex", "/([12])"]].concat(), 2);
    assert!(error.contains("--group-regex") && error.contains("b/3.png"), "{error}");
    let record = f.json(&[&base[..], &["--group-regex", "/([123])"]].concat(), 0);
    assert_eq!((&record["intervals"]["unit"], &record["intervals"]["units"]), (&"group".into(), &3.into()));
    let rows: String = ["a/1", "a/2", "b/1", "b/2", "b/3", "c/1", "c/2"].iter().map(|p| format!("{p}.png,one\n")).collect();
    std::fs::write(f.at("groups.csv"), format!("path,group\n{rows}")).unwrap();
    let record = f.json(&[&base[..], &["--group-csv", "groups.csv", "--out", "report/external"]].concat(), 0);
    assert!(record["intervals"].is_null(), "one group has no intervals");
    let read = |name: &str| std::fs::read_to_string(f.at(&format!("report/external/{name}"))).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&read("metrics.json")).unwrap(), record);
    assert_eq!(read("predictions.csv").lines().count(), 8);
    assert!(["confusion.svg", "reliability.svg"].iter().all(|name| read(name).starts_with("<svg")));
    let html = read("report.html");
    assert!(html.contains("VGG16 on data") && html.contains("Grad-CAM at the layer <code>block4_conv3</code>"));
    // Every mistake, and beside each image that is explained its heat maps: for the predicted and, if it is another, the true class.
    let wrong = record["worst"].as_array().unwrap().iter().filter(|w| w["class"] != w["predicted"]).count();
    let rights: usize = (0..3).filter(|&c| record["confusion"][c][c].as_u64().unwrap() > 0).count();
    assert_eq!(html.matches("<img ").count(), wrong + 3 * wrong.min(6) + 2 * rights);
}

#[test]
fn evaluate_refuses_other_classes_and_images_that_cannot_be_read() {
    let f = Folder::new("classes");
    f.image("data/d/1.png", 9);
    std::fs::rename(f.at("data/b"), f.at("aside")).unwrap();
    let error = f.stderr(&["evaluate", "m.safetensors", "data"], 2);
    assert!(error.contains("only here: d; only in the model: b"), "{error}");

    // Without names only their number counts.
    write_model(&f.at("nameless.safetensors"), Backbone::Vgg16, 32, &[], DType::F32);
    let record = f.json(&["evaluate", "nameless.safetensors", "data", "--json"], 0);
    assert_eq!(record["classes"][2]["name"], "d");
    let numbered = f.json(&["predict", "nameless.safetensors", "data/a/1.png", "--json"], 0);
    assert!(numbered[0]["probabilities"]["2"].is_f64() && ["0", "1", "2"].contains(&numbered[0]["class"].as_str().unwrap()));
    std::fs::rename(f.at("aside"), f.at("data/b")).unwrap();
    assert!(f.stderr(&["evaluate", "nameless.safetensors", "data"], 2).contains("has 4 classes (a, b, c, d), the model 3"));

    std::fs::remove_dir_all(f.at("data/d")).unwrap();
    std::fs::write(f.at("data/a/0.png"), "").unwrap();
    std::fs::write(f.at("data/c/9.png"), "text").unwrap();
    // A table that could not be written is known before the images are read.
    let error = f.stderr(&["evaluate", "m.safetensors", "data", "--csv", "nowhere/out.csv"], 2);
    assert!(error.contains("--csv: nowhere: there is no such folder"), "{error}");
    let error = f.stderr(&["evaluate", "m.safetensors", "data", "--batch-size", "2"], 2);
    assert!(error.contains("a/0.png: the file is empty") && error.contains("c/9.png: not an image"), "{error}");
}

#[test]
fn classes_in_another_order_than_the_folders_keep_their_labels() {
    let f = Folder::new("permuted");
    write_model(&f.at("cab.safetensors"), Backbone::Vgg16, 32, &["c", "a", "b"], DType::F32);
    f.stdout(&["evaluate", "cab.safetensors", "data", "--csv", "out.csv"], 0);
    let csv = std::fs::read_to_string(f.at("out.csv")).unwrap();
    assert!(csv.starts_with("path,label,predicted,c,a,b\nc/1.png,c,"), "{csv}");
}

#[test]
fn a_split_chooses_images_and_tells_of_those_that_were_trained_on() {
    let f = Folder::new("split");
    let plain = f.stderr(&["evaluate", "m.safetensors", "data", "--subset", "val"], 2);
    assert!(plain.contains("--split"), "{plain}");
    let hash = |name: &str| sha256_hex(&std::fs::read(f.at(&format!("data/{name}"))).unwrap());
    let row = |name: &str, subset: &str| format!("{name},{},{subset},{}\n", &name[..1], hash(name));
    let rows: String = ["a/1.png", "b/1.png", "c/1.png"].iter().map(|n| row(n, "train")).collect();
    let split = format!("path,class,subset,sha256\n{rows}{}{}", row("a/2.png", "val"), row("c/2.png", "val"));
    std::fs::create_dir(f.at("run")).unwrap();
    std::fs::rename(f.at("m.safetensors"), f.at("run/best.safetensors")).unwrap();
    std::fs::write(f.at("run/split.csv"), &split).unwrap();

    let warned = f.stderr(&["evaluate", "run/best.safetensors", "data"], 0);
    assert!(warned.contains("trained on 3 of these 6 images"), "{warned}");
    let val = ["evaluate", "run/best.safetensors", "data", "--subset", "val"];
    assert_eq!(f.stderr(&val, 0), "");
    let record = f.json(&[&val[..], &["--json"]].concat(), 0);
    let classes = record["classes"].as_array().unwrap();
    assert_eq!(classes.iter().map(|c| c["support"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 0, 1]);
    assert!(classes[1]["recall"].is_null() && classes[1]["auroc"].is_null() && record["auroc_macro"].is_f64());
    assert_eq!(f.json(&["evaluate", "run/best.safetensors", "data", "--subset", "train", "--json"], 0)["images"], 3);

    f.image("data/a/2.png", 77);
    let split = f.text("run/split.csv");
    assert!(f.stderr(&[&val[..], &["--split", &split]].concat(), 0).contains("1 images have changed"));
    std::fs::remove_file(f.at("data/a/2.png")).unwrap();
    assert!(f.stderr(&val, 2).contains("lacks 1 of the 2 images"));
}

#[test]
fn a_mapped_file_gives_the_bits_of_a_copied_one() {
    let f = Folder::new("mapped");
    for (backbone, size) in [(Backbone::Vgg16, 32), (Backbone::DenseNet121, 45)] {
        let [single, double] = [DType::F32, DType::F64].map(|dtype| {
            let path = f.at(&format!("{backbone}-{dtype}.safetensors"));
            write_model(&path, backbone, size, &["a", "b", "c"], dtype);
            let file = ModelFile::open(&path).unwrap();
            let spec = spec_of(&file).unwrap();
            let mut model = Opened::new(&file, &spec, Cpu::new(2).unwrap(), 2).unwrap();
            // Doubles cannot be mapped as floats, and hold the same numbers.
            assert_eq!(model.is_mapped(), dtype == DType::F32);
            let pixels: Vec<f32> = (0..2 * size * size * 3).map(|i| (i * i % 251) as f32).collect();
            let before = std::fs::read(&path).unwrap();
            let outputs = model.outputs(&pixels).unwrap();
            assert!(std::fs::read(&path).unwrap() == before, "a private map leaves the file alone");
            outputs
        });
        assert!(single.probabilities.iter().all(|p| p.is_finite()));
        assert_eq!(single, double, "{backbone}");
    }
}

#[test]
fn opening_a_model_takes_milliseconds() {
    let f = Folder::new("open");
    let path = f.at("m224.safetensors");
    write_model(&path, Backbone::Vgg16, 224, &["a", "b", "c"], DType::F32);
    let open = || {
        let start = Instant::now();
        let file = ModelFile::open(&path).unwrap();
        let spec = spec_of(&file).unwrap();
        assert!(Opened::new(&file, &spec, Cpu::new(2).unwrap(), 8).unwrap().is_mapped());
        start.elapsed().as_secs_f64() * 1e3
    };
    let best = (0..7).map(|_| open()).fold(f64::INFINITY, f64::min);
    let mib = std::fs::metadata(&path).unwrap().len() >> 20;
    eprintln!("opening a VGG16 of {mib} MiB, planned for batches of 8: {best:.2} ms");
    assert!(cfg!(debug_assertions) || best < 50.0, "{best} ms");
}

/// A JPEG of 48 x 40 pixels that says it lies on its side (EXIF orientation 6).
fn write_turned(path: &Path) {
    let mut jpeg = std::io::Cursor::new(Vec::new());
    let pixels = image::RgbImage::from_fn(48, 40, |x, y| image::Rgb([(x * 5) as u8, (y * 6) as u8, 90]));
    pixels.write_to(&mut jpeg, image::ImageFormat::Jpeg).unwrap();
    // APP1: Exif, a little-endian TIFF with one entry, tag 0x112 (orientation), a short.
    let tiff = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let app1 = [&[0xff, 0xe1, 0, tiff.len() as u8 + 2], &tiff[..]].concat();
    let jpeg = jpeg.into_inner();
    std::fs::write(path, [&jpeg[..2], &app1, &jpeg[2..]].concat()).unwrap();
}

#[test]
fn the_orientation_can_be_overridden_with_a_warning() {
    let f = Folder::new("exif");
    write_turned(&f.at("t.jpg"));
    let of = |flags: &[&str]| probabilities(&f.json(&[&["predict", "m.safetensors", "t.jpg", "--json"], flags].concat(), 0)[0]);
    assert!(of(&[]) == of(&["--no-exif"]) && of(&[]) != of(&["--exif"]));
    let said = |flags: &[&str]| f.stderr(&[&["evaluate", "m.safetensors", "data"], flags].concat(), 0);
    assert!(said(&["--exif"]).contains("the model says --exif off; it is now fed with on"));
    assert!(!said(&["--no-exif"]).contains("warning"));
    f.stderr(&["predict", "m.safetensors", "t.jpg", "--exif", "--no-exif"], 2);
}
