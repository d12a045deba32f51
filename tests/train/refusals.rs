//! What is refused before anything is written.

use super::{HEAD, VGG, data, defrost, ok, refused};
use std::fs;

#[test]
fn wrong_settings_are_refused_before_anything_is_written() {
    let data = data("refusals");
    refused(data.train("x", &["--backbone", "resnet50", "--weights", "random"]), "vgg16, xception, inceptionv3, densenet121");
    refused(data.train("x", &[&VGG[..], &["--lr", "0"]].concat()), "--lr");
    refused(data.train("x", &[&VGG[..], &["--freeze", "block9_conv1"]].concat()), "no layer is called");
    refused(data.train("x", &["--backbone", "vgg16", "--weights", "random", "--input-size", "31"]), "32");
    refused(data.train("x", &["--backbone", "vgg16", "--weights", "nowhere.safetensors"]), "--weights: nowhere.safetensors: ");
    refused(data.train("x", &["--backbone", "vgg16", "--weights", "imagnet"]), "expected imagenet, random, or a model file");
    assert!(!data.path("x").exists(), "nothing was written");
    fs::create_dir(data.path("full")).unwrap();
    fs::write(data.path("full/notes.txt"), "mine").unwrap();
    refused(data.train("full", &VGG), "not empty");
    // A folder that nobody may write to, root included, is known before the images are looked for.
    #[cfg(target_os = "linux")]
    refused(defrost(&[&["train", "nowhere", "--out", "/proc/defrost/run"][..], &VGG].concat()), "--out: /proc/defrost/run: ");
    fs::write(data.path("wrong.toml"), "backbone = \"vgg16\"\nepoch = 3\n").unwrap();
    let config = data.path("wrong.toml");
    refused(data.train("y", &["--config", config.to_str().unwrap()]), "line 2");
    fs::write(data.path("photos/lying/broken.jpg"), b"no image").unwrap();
    refused(data.train("z", &VGG), "broken.jpg");
    assert!(!data.path("z").exists(), "nothing was written");
}

#[test]
fn weights_of_another_network_leave_no_folder_and_a_diverged_run_its_losses() {
    let data = data("wrong-weights");
    ok(data.train("vgg", &[&VGG[..6], &["--epochs", "1", "--steps", "1"]].concat()));
    let file = data.path("vgg/last.safetensors");
    refused(data.train("x", &["--backbone", "xception", "--weights", file.to_str().unwrap()]), "expected xception");
    assert!(!data.path("x").exists());
    let wild = data.train("wild", &[&VGG[..], &["--lr", "1e30", "--batch-size", "2"]].concat());
    assert_eq!(wild.status.code(), Some(2));
    assert!(fs::read_to_string(data.path("wild/steps.csv")).unwrap().lines().count() > 1, "the losses up to then are kept");
    assert!(!data.path("wild/best.safetensors").exists(), "no file holds a number that is not finite");
    let config = data.path("cuda.toml");
    fs::write(&config, fs::read_to_string(data.path("vgg/config.toml")).unwrap().replace("device = \"auto\"", "device = \"cuda:1023\""))
        .unwrap();
    let out = data.path("cuda");
    let cuda = defrost(&["train", "--config", config.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(matches!(cuda.status.code(), Some(2 | 3)), "the config's device counts: {}", String::from_utf8_lossy(&cuda.stderr));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let data = data("contradictions");
    let refuses = |more: &[&str], with: &str| refused(data.train("x", &[&HEAD[..], more].concat()), with);
    refuses(&["--early-stop", "2", "--val-split", "0"], "--early-stop");
    refuses(&["--schedule", "plateau", "--val-split", "0"], "--schedule plateau");
    refuses(&["--clip-norm", "1", "--clip-value", "1"], "--clip-norm");
    refuses(&["--clip-norm=-1"], "--clip-norm");
    refuses(&["--lr-gamma", "1"], "--lr-gamma");
    refuses(&["--lr-min", "1"], "--lr-min");
    refuses(&["--class-weight", "nowhere.csv"], "none, balanced, or a file");
    fs::write(data.path("weights.csv"), "lying,2\n").unwrap();
    refuses(&["--class-weight", data.path("weights.csv").to_str().unwrap()], "class \"standing\" has no weight");
    assert!(!data.path("x").exists(), "nothing was written");
}
