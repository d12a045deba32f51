//! Training through the program, on small images drawn here: files, refusals, repeatability, freezing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder of two classes, stripes lying and standing, removed when dropped.
struct Data(PathBuf);

impl Data {
    fn new(name: &str) -> Data {
        let root = std::env::temp_dir().join(format!("defrost-train-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (c, class) in ["lying", "standing"].iter().enumerate() {
            fs::create_dir_all(root.join("photos").join(class)).unwrap();
            for i in 0..10u32 {
                let image = image::RgbImage::from_fn(40, 36, |x, y| {
                    let along = if c == 0 { y } else { x } + i;
                    image::Rgb([(along % 8 * 30) as u8, (x * 3 + i * 7) as u8, (y * 5) as u8])
                });
                image.save(root.join("photos").join(class).join(format!("{i:02}.png"))).unwrap();
            }
        }
        Data(root)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn train(&self, out: &str, more: &[&str]) -> Output {
        let (photos, out) = (self.path("photos"), self.path(out));
        let fixed = ["train", photos.to_str().unwrap(), "--out", out.to_str().unwrap()];
        defrost(&[&fixed[..], more].concat())
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn defrost(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_defrost")).args(args).output().unwrap()
}

fn ok(output: Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn refused(output: Output, with: &str) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(with), "{text}");
}

const VGG: [&str; 8] = ["--backbone", "vgg16", "--weights", "random", "--input-size", "32", "--epochs", "2"];

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_run_leaves_all_its_files_and_can_be_repeated_from_its_config() {
    let data = Data::new("files");
    ok(data.train("a", &[&VGG[..], &["--momentum", "0.9", "--batch-size", "6"]].concat()));
    let a = data.path("a");
    for name in
        ["config.toml", "split.csv", "history.csv", "steps.csv", "metrics.json", "predictions_val.csv", "curves.svg", "confusion.svg"]
    {
        assert!(a.join(name).exists(), "{name}");
    }
    let history = fs::read_to_string(a.join("history.csv")).unwrap();
    assert_eq!(history.lines().next().unwrap(), "epoch,loss,accuracy,val_loss,val_accuracy,lr,seconds");
    assert_eq!(history.lines().count(), 3);
    // 16 training images in batches of 6, 6 and 4, twice.
    assert_eq!(fs::read_to_string(a.join("steps.csv")).unwrap().lines().count(), 7);
    let split = fs::read_to_string(a.join("split.csv")).unwrap();
    assert_eq!(split.lines().next().unwrap(), "path,class,subset,sha256");
    assert_eq!(split.lines().filter(|l| l.contains(",val,")).count(), 4);

    let (config, out) = (a.join("config.toml"), data.path("b"));
    ok(defrost(&["train", "--config", config.to_str().unwrap(), "--out", out.to_str().unwrap()]));
    for name in ["best.safetensors", "last.safetensors", "steps.csv", "predictions_val.csv", "config.toml", "curves.svg"] {
        assert_eq!(bytes(&a.join(name)), bytes(&out.join(name)), "{name}");
    }
}

#[test]
fn kept_features_change_nothing() {
    let data = Data::new("cache");
    let dense =
        ["--backbone", "densenet121", "--weights", "random", "--input-size", "32", "--epochs", "2", "--freeze", "all", "--batch-size", "6"];
    ok(data.train("kept", &dense));
    ok(data.train("anew", &[&dense[..], &["--no-feature-cache"]].concat()));
    for name in ["history.csv", "predictions_val.csv"] {
        let without_seconds = |text: Vec<u8>| {
            let text = String::from_utf8(text).unwrap();
            let cut = |l: &str| if name == "history.csv" { l.rsplit_once(',').unwrap().0.to_string() } else { l.to_string() };
            text.lines().map(cut).collect::<Vec<_>>()
        };
        assert_eq!(without_seconds(bytes(&data.path("kept").join(name))), without_seconds(bytes(&data.path("anew").join(name))), "{name}");
    }
    assert_eq!(bytes(&data.path("kept/best.safetensors")), bytes(&data.path("anew/best.safetensors")));
}

#[test]
fn frozen_layers_keep_their_bits_and_the_others_move() {
    let data = Data::new("freeze");
    ok(data.train("start", &[&VGG[..6], &["--epochs", "1", "--steps", "1"]].concat()));
    let start = data.path("start/last.safetensors");
    let from = ["--backbone", "vgg16", "--input-size", "32", "--epochs", "1", "--weights", start.to_str().unwrap()];
    ok(data.train("upper", &[&from[..], &["--freeze", "block5_conv1"]].concat()));
    let tensors = |path: &Path| {
        let file = defrost::weights::ModelFile::open(path).unwrap();
        let names = file.tensors().names().to_vec();
        names.into_iter().map(|n| (n.clone(), file.tensor(&n).unwrap().bytes.to_vec())).collect::<Vec<_>>()
    };
    for ((name, before), (_, after)) in tensors(&start).iter().zip(&tensors(&data.path("upper/last.safetensors"))) {
        let trained = name.starts_with("block5_conv2") || name.starts_with("block5_conv3") || name.starts_with("dense");
        assert_eq!(before != after, trained, "{name}");
    }
}

#[test]
fn wrong_settings_are_refused_before_anything_is_written() {
    let data = Data::new("refusals");
    refused(data.train("x", &["--backbone", "resnet50", "--weights", "random"]), "vgg16, xception, inceptionv3, densenet121");
    refused(data.train("x", &[&VGG[..], &["--lr", "0"]].concat()), "--lr");
    refused(data.train("x", &[&VGG[..], &["--freeze", "block9_conv1"]].concat()), "no layer is called");
    refused(data.train("x", &["--backbone", "vgg16", "--weights", "random", "--input-size", "31"]), "32");
    refused(data.train("x", &["--backbone", "vgg16", "--weights", "nowhere.safetensors"]), "nowhere.safetensors");
    assert!(!data.path("x").exists(), "nothing was written");
    fs::create_dir(data.path("full")).unwrap();
    fs::write(data.path("full/notes.txt"), "mine").unwrap();
    refused(data.train("full", &VGG), "not empty");
    fs::write(data.path("wrong.toml"), "backbone = \"vgg16\"\nepoch = 3\n").unwrap();
    let config = data.path("wrong.toml");
    refused(data.train("y", &["--config", config.to_str().unwrap()]), "line 2");
    fs::write(data.path("photos/lying/broken.jpg"), b"no image").unwrap();
    refused(data.train("z", &VGG), "broken.jpg");
    assert!(!data.path("z").exists(), "nothing was written");
}

#[test]
fn weights_of_another_network_leave_no_folder_and_a_diverged_run_its_losses() {
    let data = Data::new("wrong-weights");
    ok(data.train("vgg", &[&VGG[..6], &["--epochs", "1", "--steps", "1"]].concat()));
    let file = data.path("vgg/last.safetensors");
    refused(data.train("x", &["--backbone", "xception", "--weights", file.to_str().unwrap()]), "expected xception");
    assert!(!data.path("x").exists());
    let wild = data.train("wild", &[&VGG[..], &["--lr", "1e30", "--batch-size", "2"]].concat());
    assert_eq!(wild.status.code(), Some(2));
    assert!(fs::read_to_string(data.path("wild/steps.csv")).unwrap().lines().count() > 1, "the losses up to then are kept");
    assert!(!data.path("wild/best.safetensors").exists(), "no file holds a number that is not finite");
    let config = data.path("cuda.toml");
    fs::write(&config, fs::read_to_string(data.path("vgg/config.toml")).unwrap().replace("device = \"auto\"", "device = \"cuda\""))
        .unwrap();
    let out = data.path("cuda");
    let cuda = defrost(&["train", "--config", config.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert_eq!(cuda.status.code(), Some(3), "the config's device counts: {}", String::from_utf8_lossy(&cuda.stderr));
}
