//! What a run leaves, and what must not change it: files, kept features, frozen layers, memory, event files, comparisons.

use super::{VGG, bytes, column, data, defrost, ok, refused, said};
use defrost::train::tfevents::{Event, What, records};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_run_leaves_all_its_files_and_can_be_repeated_from_its_config() {
    let data = data("files");
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
fn kept_features_change_nothing() {
    let data = data("cache");
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
    let data = data("freeze");
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
fn what_does_not_fit_is_foreseen_with_the_batch_that_does() {
    let data = data("memory");
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

#[test]
fn a_comparison_goes_on_where_it_was() {
    let data = data("compare");
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

/// A terminal that was closed, or a reader that has had enough, must not end a run of hours.
#[test]
fn a_run_goes_on_when_nobody_reads_what_it_says() {
    let data = data("unread");
    let (photos, out) = (data.path("photos"), data.path("run"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_defrost"));
    command.args(["train", photos.to_str().unwrap(), "--out", out.to_str().unwrap()]).args(&VGG[..6]).args(["--epochs", "1"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(out.join("report.html").exists());
    // What goes wrong is still told by the exit code.
    let mut again = command.stderr(Stdio::piped()).spawn().unwrap();
    drop(again.stderr.take());
    assert_eq!(again.wait().unwrap().code(), Some(2));
}

#[test]
fn event_files_say_what_the_tables_say_and_change_nothing_else() {
    let data = data("tensorboard");
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
