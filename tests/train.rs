//! Training through the program, on small images drawn here: files, refusals, repeatability, freezing.

use defrost::train::tfevents::{Event, What, records};
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
    for name in [
        "config.toml",
        "split.csv",
        "history.csv",
        "steps.csv",
        "metrics.json",
        "predictions_val.csv",
        "curves.svg",
        "confusion.svg",
        "reliability.svg",
    ] {
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

    // What the run says of its best model is, bit by bit, what the model says afterwards.
    let (model, photos, csv) = (a.join("best.safetensors"), data.path("photos"), data.path("again.csv"));
    let [model, photos, csv_path] = [&model, &photos, &csv].map(|p| p.to_str().unwrap());
    let again = defrost(&["evaluate", model, photos, "--subset", "val", "--json", "--csv", csv_path]);
    let json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
    assert_eq!(json(&again.stdout), json(&bytes(&a.join("metrics.json"))));
    assert_eq!(bytes(&csv), bytes(&a.join("predictions_val.csv")));

    let (config, out) = (a.join("config.toml"), data.path("b"));
    ok(defrost(&["train", "--config", config.to_str().unwrap(), "--out", out.to_str().unwrap()]));
    for name in ["best.safetensors", "last.safetensors", "steps.csv", "predictions_val.csv", "config.toml", "curves.svg"] {
        assert_eq!(bytes(&a.join(name)), bytes(&out.join(name)), "{name}");
    }
}

#[test]
fn groups_of_the_split_are_those_of_the_intervals_and_a_report_can_be_made_again() {
    let data = Data::new("groups");
    fs::rename(data.path("photos/lying"), data.path("photos/<script>")).unwrap();
    ok(data.train("run", &[&VGG[..6], &["--epochs", "1", "--split", "group", "--group-regex", r"/\d(\d)", "--val-split", "0.4"]].concat()));
    let run = data.path("run");
    let json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
    let metrics = json(&bytes(&run.join("metrics.json")));
    assert_eq!((&metrics["intervals"]["unit"], &metrics["intervals"]["units"]), (&"group".into(), &4.into()));
    let (model, photos) = (run.join("best.safetensors"), data.path("photos"));
    let again = defrost(&["evaluate", model.to_str().unwrap(), photos.to_str().unwrap(), "--subset", "val", "--json"]);
    assert_eq!(json(&again.stdout), metrics);

    let report = bytes(&run.join("report.html"));
    let html = String::from_utf8(report.clone()).unwrap();
    assert!(html.contains("&lt;script&gt;") && !html.contains("<script"));
    assert!(html.contains("<section id=\"gradcam\">") && html.contains("all weights are new"));
    fs::remove_file(run.join("report.html")).unwrap();
    ok(defrost(&["report", run.to_str().unwrap()]));
    assert_eq!(bytes(&run.join("report.html")), report);
    // The images have moved.
    fs::rename(&photos, data.path("moved")).unwrap();
    let lost = defrost(&["report", run.to_str().unwrap()]);
    assert_eq!(lost.status.code(), Some(1), "{}", String::from_utf8_lossy(&lost.stderr));
    assert!(String::from_utf8(bytes(&run.join("report.html"))).unwrap().contains("cannot be read"));
    ok(defrost(&["report", run.to_str().unwrap(), "--data", data.path("moved").to_str().unwrap()]));
    assert_eq!(bytes(&run.join("report.html")), report);
    refused(defrost(&["report", data.path("moved").to_str().unwrap()]), "config.toml");
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
    fs::write(&config, fs::read_to_string(data.path("vgg/config.toml")).unwrap().replace("device = \"auto\"", "device = \"cuda:1023\""))
        .unwrap();
    let out = data.path("cuda");
    let cuda = defrost(&["train", "--config", config.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(matches!(cuda.status.code(), Some(2 | 3)), "the config's device counts: {}", String::from_utf8_lossy(&cuda.stderr));
}

const HEAD: [&str; 10] = ["--backbone", "vgg16", "--weights", "random", "--input-size", "32", "--freeze", "all", "--batch-size", "8"];

/// A column of `history.csv`.
fn column(run: &Path, name: &str) -> Vec<f64> {
    let text = fs::read_to_string(run.join("history.csv")).unwrap();
    let at = text.lines().next().unwrap().split(',').position(|c| c == name).unwrap();
    text.lines().skip(1).map(|l| l.split(',').nth(at).unwrap().parse().unwrap()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn rates_follow_their_schedule_and_nothing_better_ends_a_run() {
    let data = Data::new("schedule");
    let rates = |out: &str, more: &[&str]| {
        ok(data.train(out, &[&HEAD[..], &["--epochs", "4", "--lr", "0.1"], more].concat()));
        column(&data.path(out), "lr")
    };
    // 16 training images, two steps an epoch: the rates of steps 1, 3, 5 and 7, counted from 0.
    let half = |t: f64| 0.05 * (1.0 + (std::f64::consts::PI * (t - 2.0) / 6.0).cos());
    assert_eq!(rates("cosine", &["--schedule", "cosine", "--warmup-steps", "2"]), [0.1, half(3.0), half(5.0), half(7.0)]);
    assert_eq!(rates("step", &["--schedule", "step", "--lr-step", "2", "--lr-gamma", "0.5", "--clip-norm", "1"]), [0.1, 0.1, 0.05, 0.05]);
    assert_eq!(rates("warm", &["--warmup-epochs", "2", "--clip-value", "0.1"]), [0.05, 0.1, 0.1, 0.1]);
    // At a rate of next to nothing, nothing gets better after the first epoch.
    let plateau = ["--epochs", "20", "--lr", "1e-30", "--schedule", "plateau", "--patience", "1", "--early-stop", "3"];
    let output = data.train("plateau", &[&HEAD[..], &plateau, &["--class-weight", "balanced"]].concat());
    let text = said(&output);
    ok(output);
    let falling = column(&data.path("plateau"), "lr");
    assert!(
        falling.len() == 4 && falling.iter().zip([1e-30, 1e-30, 1e-31, 1e-32]).all(|(a, b)| (a / b - 1.0).abs() < 1e-14),
        "{falling:?}"
    );
    assert!(text.contains("no progress for 1 epochs: the learning rate falls to 1.000e-31"), "{text}");
    assert!(text.contains("stopped early, after 4 of 20 epochs: 3 without a better validation accuracy"), "{text}");
    assert!(text.contains("class weights: lying "), "{text}");
    let config = fs::read_to_string(data.path("plateau/config.toml")).unwrap();
    for line in ["schedule = \"plateau\"", "patience = 1", "early-stop = 3", "class-weight = \"balanced\"", "clip-norm = 0.0"] {
        assert!(config.contains(line), "{config}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let data = Data::new("contradictions");
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

/// The tensors of a model file, without what it says about itself.
fn tensors(path: &Path) -> Vec<(String, Vec<u8>)> {
    let file = defrost::weights::ModelFile::open(path).unwrap();
    file.tensors().names().iter().map(|n| (n.clone(), file.tensor(n).unwrap().bytes.to_vec())).collect()
}

#[test]
fn the_head_first_and_then_everything_is_two_runs_in_one() {
    let data = Data::new("thaw");
    let dense = ["--backbone", "densenet121", "--input-size", "32", "--batch-size", "6", "--no-shuffle", "--momentum", "0.9"];
    let train = |out: &str, more: &[&str]| {
        let output = data.train(out, &[&dense[..], more].concat());
        let text = said(&output);
        ok(output);
        text
    };
    let text = train("both", &["--weights", "random", "--epochs", "2", "--freeze-epochs", "1", "--unfreeze-lr", "0.001"]);
    assert!(text.contains("of which 2050 are trained") && text.contains("epoch 2: the backbone thaws, 6955906 parameters"), "{text}");
    assert_eq!(column(&data.path("both"), "lr"), [0.01, 0.001]);
    train("head", &["--weights", "random", "--epochs", "1", "--freeze", "all"]);
    let head = data.path("head/last.safetensors");
    train("rest", &["--weights", head.to_str().unwrap(), "--epochs", "1", "--lr", "0.001"]);
    assert!(tensors(&data.path("both/last.safetensors")) == tensors(&data.path("rest/last.safetensors")));
    // Statistics stand still with the backbone, as under Keras's trainable = False, and move when it thaws.
    let moving = |run: &str| tensors(&data.path(run).join("last.safetensors")).into_iter().find(|(n, _)| n == "bn/moving_mean").unwrap();
    assert!(moving("head").1.iter().all(|&b| b == 0), "they are new, all zero");
    assert!(moving("both").1.iter().any(|&b| b != 0));
    // On moving statistics, batch norm trains its scale and shift, and the statistics stay.
    train("moving", &["--weights", "random", "--epochs", "1", "--batch-norm", "moving", "--lr", "0.05"]);
    let (new, trained) = (tensors(&head), tensors(&data.path("moving/last.safetensors")));
    for ((name, before), (_, after)) in new.iter().zip(&trained) {
        assert_eq!(before == after, name.contains("moving_"), "{name}");
    }
    let refuse = |more: &[&str], with: &str| refused(data.train("x", &[&dense[..], &["--weights", "random"], more].concat()), with);
    refuse(&["--freeze-epochs", "1", "--freeze", "all"], "--freeze-epochs");
    refuse(&["--unfreeze-lr", "1"], "needs --freeze-epochs");
    refuse(&["--freeze-epochs", "1", "--freeze", "nowhere"], "no layer is called");
}

#[test]
fn what_does_not_fit_is_foreseen_with_the_batch_that_does() {
    let data = Data::new("memory");
    let (photos, out) = (data.path("photos"), data.path("run"));
    let args = ["train", photos.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let network = ["--backbone", "densenet121", "--weights", "random", "--input-size", "64", "--epochs", "1"];
    let train = |memory: &str, more: &[&str]| {
        let all = [&args[..], &network, more].concat();
        Command::new(env!("CARGO_BIN_EXE_defrost")).args(all).env("DEFROST_MEMORY", memory).output().unwrap()
    };
    let none = said(&train("1M", &[]));
    assert!(none.contains("not even one image fits"), "{none}");
    let needs: f64 = none.split("needs ").nth(1).unwrap().split(" MiB").next().unwrap().parse().unwrap();
    let less = format!("{}M", needs as usize - 10);
    let output = train(&less, &[]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("a batch of 16 images needs") && text.contains("MiB are available"), "{text}");
    let largest: usize = text.split("fits is ").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    let advice = text.split("; --batch-size ").nth(1).unwrap();
    let [size, accumulate] = [0, 2].map(|i| advice.split(' ').nth(i).unwrap().parse::<usize>().unwrap());
    assert!(largest < 16 && size <= largest && size * accumulate == 16, "{text}");
    assert!(!out.exists(), "nothing was written");
    let (just, more) = (largest.to_string(), (largest + 1).to_string());
    assert_eq!(train(&less, &["--batch-size", &more, "--accumulate", "2"]).status.code(), Some(3));
    assert_eq!(train(&less, &["--batch-size", &just, "--accumulate", "2", "--steps", "1"]).status.code(), Some(0));
}

/// The rows of a `split.csv`: path and subset.
fn split(run: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(run.join("split.csv")).unwrap();
    let row = |l: &str| l.split(',').map(String::from).collect::<Vec<_>>();
    text.lines().skip(1).map(row).map(|r| (r[0].clone(), r[2].clone())).collect()
}

/// Loss and number of images by `evaluate`.
fn evaluated(model: &Path, data: &Path, more: &[&str]) -> (f64, usize) {
    let output = defrost(&[&["evaluate", model.to_str().unwrap(), data.to_str().unwrap(), "--json"], more].concat());
    assert!(output.status.success(), "{}", said(&output));
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (record["loss"].as_f64().unwrap(), record["images"].as_u64().unwrap() as usize)
}

const ONE: [&str; 4] = ["--epochs", "1", "--lr", "0.1"];

#[test]
fn groups_stay_together_and_a_folder_of_its_own_validates() {
    let data = Data::new("sides");
    // The last digit is the patient, who is in both classes.
    let by_group = ["--split", "group", "--group-regex", r"(\d)\.png", "--val-split", "0.3"];
    ok(data.train("group", &[&HEAD[..], &ONE, &by_group].concat()));
    let rows = split(&data.path("group"));
    let patient = |path: &str| path[path.len() - 5..path.len() - 4].to_string();
    let side = |subset: &str| rows.iter().filter(|r| r.1 == subset).map(|r| patient(&r.0)).collect::<std::collections::BTreeSet<_>>();
    assert!(side("train").is_disjoint(&side("val")) && side("val").len() == 3, "{rows:?}");
    let (loss, images) = evaluated(&data.path("group/best.safetensors"), &data.path("photos"), &["--subset", "val"]);
    let metrics: serde_json::Value = serde_json::from_slice(&bytes(&data.path("group/metrics.json"))).unwrap();
    assert!(images == 6 && (loss - metrics["loss"].as_f64().unwrap()).abs() < 1e-9);

    fs::write(data.path("classes.txt"), "standing\nlying\n").unwrap();
    for class in ["lying", "standing"] {
        fs::create_dir_all(data.path("more").join(class)).unwrap();
        for i in 0..3 {
            let (from, to) =
                (data.path("photos").join(class).join(format!("0{i}.png")), data.path("more").join(class).join(format!("n{i}.png")));
            image::open(&from).unwrap().flipv().save(to).unwrap();
            fs::remove_file(from).unwrap();
        }
    }
    let (more, classes) = (data.path("more"), data.path("classes.txt"));
    let by_folder = ["--val-dir", more.to_str().unwrap(), "--classes", classes.to_str().unwrap()];
    ok(data.train("folder", &[&HEAD[..], &ONE, &by_folder].concat()));
    let rows = split(&data.path("folder"));
    assert_eq!((rows.len(), rows.iter().filter(|r| r.1 == "val" && r.0.starts_with("../more/")).count()), (20, 6), "{rows:?}");
    let model = data.path("folder/best.safetensors");
    assert_eq!(defrost::weights::ModelFile::open(&model).unwrap().class_names(), ["standing", "lying"]);
    // The folder itself, and the split's side of DATA, are the same images.
    assert_eq!(evaluated(&model, &more, &[]), evaluated(&model, &data.path("photos"), &["--subset", "val"]));
    assert_eq!(evaluated(&model, &data.path("photos"), &["--subset", "train"]).1, 14);

    fs::write(&classes, "standing\nlying\nsitting\n").unwrap();
    refused(data.train("x", &[&HEAD[..], &by_folder].concat()), "missing: sitting");
    refused(data.train("x", &[&HEAD[..], &["--split", "group"]].concat()), "--group-regex");
    refused(data.train("x", &[&HEAD[..], &["--split", "group", "--group-regex", r"p(\d+)_"]].concat()), "does not match");
    refused(data.train("x", &[&HEAD[..], &["--group-regex", r"(\d)\.png"]].concat()), "does not keep them together");
}

#[test]
fn bad_images_stop_a_run_or_are_left_out() {
    let data = Data::new("bad");
    fs::write(data.path("photos/lying/b.jpg"), "").unwrap();
    fs::write(data.path("photos/standing/w.png"), "<html>").unwrap();
    let output = data.train("x", &[&HEAD[..], &ONE].concat());
    let text = said(&output);
    refused(output, "2 of 22 images cannot be read");
    for part in ["lying/b.jpg: the file is empty", "standing/w.png: the content is a web page", "--on-bad-image skip"] {
        assert!(text.contains(part), "{text}");
    }
    let output = data.train("skip", &[&HEAD[..], &ONE, &["--on-bad-image", "skip"]].concat());
    let text = said(&output);
    ok(output);
    assert!(
        text.contains("2 images that cannot be read, left out (first: lying/b.jpg)") && text.contains("images: 16 to train, 4 to"),
        "{text}"
    );
    // The others are split as if those had never been there.
    fs::remove_file(data.path("photos/lying/b.jpg")).unwrap();
    fs::remove_file(data.path("photos/standing/w.png")).unwrap();
    ok(data.train("clean", &[&HEAD[..], &ONE].concat()));
    assert_eq!(bytes(&data.path("skip/split.csv")), bytes(&data.path("clean/split.csv")));
    assert_eq!(bytes(&data.path("skip/best.safetensors")), bytes(&data.path("clean/best.safetensors")));
    let found: serde_json::Value = serde_json::from_slice(&bytes(&data.path("skip/check.json"))).unwrap();
    assert_eq!((&found["images"], &found["bad"][1]["path"]), (&20.into(), &"standing/w.png".into()));
}

#[test]
fn pixels_on_disk_train_the_same_model() {
    let data = Data::new("pixels");
    let cache = data.path("cache");
    let flags = [&VGG[..6], &["--epochs", "1", "--cache-dir", cache.to_str().unwrap()]].concat();
    let train = |out: &str, more: &[&str]| {
        let output = data.train(out, &[&flags[..], more].concat());
        let text = said(&output);
        ok(output);
        (bytes(&data.path(out).join("last.safetensors")), text)
    };
    let (expected, _) = train("memory", &["--pixel-cache", "memory"]);
    assert!(!cache.exists());
    let (made, text) = train("made", &["--pixel-cache", "disk"]);
    let file = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    assert!(made == expected && text.contains(file.to_str().unwrap()), "{text}");
    let mut broken = bytes(&file);
    *broken.last_mut().unwrap() ^= 16;
    fs::remove_file(&file).unwrap();
    fs::write(&file, broken).unwrap();
    let (mended, text) = train("mended", &["--pixel-cache", "disk"]);
    assert!(mended == expected && text.contains("was damaged (the pixels of 1 images"), "{text}");
}

#[test]
fn augmentation_changes_training_and_is_repeated_to_the_bit() {
    let data = Data::new("augment");
    let train = |out: &str, more: &[&str]| {
        let output = data.train(out, &[&HEAD[..], &ONE, more].concat());
        let text = said(&output);
        ok(output);
        text
    };
    let text = train("plain", &[]);
    assert!(!text.contains("augmentation") && !data.path("plain/augment.png").exists(), "{text}");
    let text = train("one", &["--augment", "--rotate", "20"]);
    assert!(text.contains("augmentation changes images in every epoch"), "{text}");
    train("two", &["--augment", "--rotate", "20", "--threads", "1"]);
    // One image alone would do; the losses of all steps tell of every one.
    assert_eq!(bytes(&data.path("one/augment.png")), bytes(&data.path("two/augment.png")));
    assert_ne!(bytes(&data.path("one/steps.csv")), bytes(&data.path("plain/steps.csv")));
    let config = data.path("one/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    for line in ["augment = true", "flip = \"h\"", "rotate = 20.0", "shift = 0.05"] {
        assert!(text.contains(line), "{text}");
    }
    let again = data.path("again");
    ok(defrost(&["train", "--config", config.to_str().unwrap(), "--out", again.to_str().unwrap()]));
    for name in ["steps.csv", "best.safetensors", "config.toml", "augment.png"] {
        assert_eq!(bytes(&data.path("one").join(name)), bytes(&again.join(name)), "{name}");
    }
    refused(data.train("x", &[&HEAD[..], &["--zoom", "2"]].concat()), "--zoom");
}

#[test]
fn a_sweep_over_learning_rates_leaves_a_table_and_a_picture_and_no_run() {
    let data = Data::new("sweep");
    let (photos, out) = (data.path("photos"), data.path("rates"));
    let find = |out: &Path, more: &[&str]| {
        let args = ["lr-find", photos.to_str().unwrap(), "--out", out.to_str().unwrap(), "--steps", "40", "--from", "1e-4", "--to", "1e4"];
        defrost(&[&args[..], &HEAD, more].concat())
    };
    let output = find(&out, &["--momentum", "0.9"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ok(output);
    let suggested: f64 = said.split("--lr ").nth(1).unwrap_or_else(|| panic!("{said}")).split(' ').next().unwrap().parse().unwrap();
    let table = fs::read_to_string(out.join("lr-find.csv")).unwrap();
    let rows: Vec<Vec<f64>> = table.lines().skip(1).map(|l| l.split(',').map(|x| x.parse().unwrap()).collect()).collect();
    assert!(table.starts_with("lr,loss,smoothed\n") && rows.len() > 8 && rows.len() <= 40, "{table}");
    assert!(rows.iter().any(|row| (row[0] / suggested - 1.0).abs() < 0.01), "{said}");
    let names: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    // The same bits again, in the same folder; never in a run's.
    ok(find(&out, &["--momentum", "0.9"]));
    assert_eq!(fs::read_to_string(out.join("lr-find.csv")).unwrap(), table);
    fs::write(out.join("config.toml"), "").unwrap();
    refused(find(&out, &[]), "holds a run");
    refused(find(&data.path("x"), &["--lr", "0"]), "--lr");
}

#[test]
fn a_comparison_goes_on_where_it_was() {
    let data = Data::new("compare");
    let (photos, out) = (data.path("photos"), data.path("compared"));
    let compare = |backbones: &str, more: &[&str]| {
        let fixed = ["compare", photos.to_str().unwrap(), "--backbones", backbones, "--out", out.to_str().unwrap()];
        defrost(&[&fixed[..], &["--weights", "random", "--input-size", "32", "--epochs", "1"], more].concat())
    };
    ok(compare("vgg16", &[]));
    let results = fs::read_to_string(out.join("results.csv")).unwrap();
    let rows: Vec<&str> = results.lines().collect();
    assert_eq!(rows[0], "backbone,freeze,best_val_accuracy,val_loss,epoch,seconds,images_per_s");
    assert!(rows.len() == 3 && rows[1].starts_with("vgg16,frozen,") && rows[2].starts_with("vgg16,unfrozen,"), "{results}");
    // Both rows have one split; the frozen backbone is untouched.
    let split = |run: &str| bytes(&out.join(run).join("split.csv"));
    assert_eq!(split("vgg16-frozen"), split("vgg16-unfrozen"));
    for file in ["compare.svg", "compare.html"] {
        assert!(fs::read_to_string(out.join(file)).unwrap().contains("unfrozen"), "{file}");
    }

    // Finished rows stand, an unfinished one is made, the table has all.
    let before = bytes(&out.join("vgg16-frozen/best.safetensors"));
    fs::remove_dir_all(out.join("vgg16-unfrozen")).unwrap();
    fs::create_dir_all(out.join("vgg16-unfrozen")).unwrap();
    ok(compare("vgg16", &[]));
    assert_eq!(before, bytes(&out.join("vgg16-frozen/best.safetensors")));
    let again = fs::read_to_string(out.join("results.csv")).unwrap();
    let measured = |text: &str| text.lines().map(|l| l.rsplitn(3, ',').nth(2).unwrap().to_string()).collect::<Vec<_>>();
    assert_eq!(measured(&results), measured(&again));

    refused(compare("vgg16", &["--lr", "0.5"]), "lr = 0.01");
    refused(compare("vgg16", &["--freeze", "all"]), "--freeze");
    refused(compare("vgg61", &[]), "vgg61");
    fs::create_dir_all(data.path("other/photos")).unwrap();
    let strange = data.path("other");
    refused(
        defrost(&["compare", photos.to_str().unwrap(), "--backbones", "vgg16", "--weights", "random", "--out", strange.to_str().unwrap()]),
        "holds something that is no comparison",
    );
}

#[test]
fn event_files_say_what_the_tables_say_and_change_nothing_else() {
    let data = Data::new("tensorboard");
    let flags = [&VGG[..], &["--freeze", "all", "--batch-size", "4"]].concat();
    ok(data.train("plain", &flags));
    ok(data.train("logged", &[&flags[..], &["--tensorboard"]].concat()));
    let (plain, logged) = (data.path("plain"), data.path("logged"));
    for name in ["best.safetensors", "last.safetensors", "steps.csv", "predictions_val.csv", "metrics.json", "split.csv"] {
        assert!(bytes(&plain.join(name)) == bytes(&logged.join(name)), "{name}");
    }
    assert!(!plain.join("tensorboard").exists());
    assert!(fs::read_to_string(logged.join("config.toml")).unwrap().contains("tensorboard = true"));

    let events = |subset: &str| {
        let bytes = bytes(&logged.join(format!("tensorboard/{subset}/events.out.tfevents.0000000001.defrost")));
        let events: Vec<Event> = records(&bytes).into_iter().map(|(_, event)| event).collect();
        assert_eq!((&events[0].what, events[0].step), (&What::Version, 0));
        assert!(events.windows(2).all(|pair| pair[0].wall_time <= pair[1].wall_time));
        events
    };
    let of = |subset: &str, tag: &str| {
        let found = events(subset).into_iter().filter_map(|event| match event.what {
            What::Scalar { tag: name, value } if name == tag => Some((event.step, value)),
            _ => None,
        });
        found.enumerate().map(|(i, (step, value))| (step == i as u64 + 1).then_some(value).unwrap()).collect::<Vec<f32>>()
    };
    let table = |name: &str| column(&logged, name).into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    for (subset, tag, name) in [
        ("train", "epoch_loss", "loss"),
        ("train", "epoch_accuracy", "accuracy"),
        ("train", "epoch_learning_rate", "lr"),
        ("validation", "epoch_loss", "val_loss"),
        ("validation", "epoch_accuracy", "val_accuracy"),
    ] {
        assert_eq!((of(subset, tag).len(), of(subset, tag)), (2, table(name)), "{subset} {tag}");
    }
    let steps: Vec<f32> = fs::read_to_string(logged.join("steps.csv"))
        .unwrap()
        .lines()
        .skip(1)
        .map(|l| l.split_once(',').unwrap().1.parse().unwrap())
        .collect();
    assert_eq!((of("train", "batch_loss").len(), of("train", "batch_loss")), (8, steps));
    assert_eq!((of("train", "batch_learning_rate"), of("train", "batch_accuracy").len()), (vec![0.01; 8], 8));
    assert_eq!(events("train").len() + events("validation").len(), 1 + 8 * 3 + 2 * 3 + 1 + 2 * 2);
}
