//! Images on their way into a run: groups, folders of their own, bad files, pixels on disk, augmentation.

use super::{HEAD, ONE, VGG, bytes, data, defrost, ok, refused, said};
use std::fs;
use std::path::Path;

#[test]
fn groups_of_the_split_are_those_of_the_intervals_and_a_report_can_be_made_again() {
    let data = data("groups");
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

#[test]
fn groups_stay_together_and_a_folder_of_its_own_validates() {
    let data = data("sides");
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
    let data = data("bad");
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
    let data = data("pixels");
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
    let data = data("augment");
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
