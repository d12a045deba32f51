//! Grad-CAM through the program: one overlay for each image and class, and what is refused.

use super::Folder;

#[test]
fn heat_maps_are_written_for_each_image_and_class() {
    let f = Folder::new("gradcam");
    let base = ["predict", "m.safetensors", "data/a", "data/b/1.png", "data/c/1.png"];
    let plain = f.json(&[&base[..], &["--json"]].concat(), 0);
    let records = f.json(&[&base[..], &["--json", "--gradcam", "heat", "--batch-size", "3"]].concat(), 0);
    for (i, (record, plain)) in records.as_array().unwrap().iter().zip(plain.as_array().unwrap()).enumerate() {
        assert_eq!(record["probabilities"], plain["probabilities"]);
        // Images of an argument folder keep their names below it; the third and the fourth are both called 1.
        let (name, class) = (["1", "2", "1", "1"][i], record["class"].as_str().unwrap());
        let path = record["gradcam"][0].as_str().unwrap();
        let stem = path.strip_prefix("heat/").unwrap().strip_suffix(&format!(".{class}.png")).unwrap();
        assert_eq!(stem.split('-').next(), Some(name), "{path}");
        let picture = image::open(f.at(path)).unwrap().to_rgb8();
        // 40 x 36 is enlarged to 320 x 288; the caption stands below.
        assert!(picture.width() == 320 && picture.height() > 288, "{:?}", picture.dimensions());
    }
    assert_eq!(std::fs::read_dir(f.at("heat")).unwrap().count(), 4);

    // The batch changes no pixel; the layer does.
    let one = ["data/a/1.png", "--gradcam", "one", "--gradcam-class", "b"];
    let all = ["data", "--gradcam", "all", "--gradcam-class", "all"];
    let other = ["data/a/1.png", "--gradcam", "other", "--gradcam-class", "b", "--gradcam-layer", "block4_conv1"];
    let told = f.stderr(&[&["predict", "m.safetensors"], &one[..]].concat(), 0);
    assert!(told.starts_with("1 heat map in one (Grad-CAM at block4_conv3, 4 x 4 places"), "{told}");
    f.stderr(&[&["predict", "m.safetensors"], &all[..]].concat(), 0);
    f.stderr(&[&["predict", "m.safetensors"], &other[..]].concat(), 0);
    let bytes = |name: &str| std::fs::read(f.at(name)).unwrap();
    assert!(bytes("one/1.b.png") == bytes("all/a/1.b.png") && bytes("one/1.b.png") != bytes("other/1.b.png"));
    assert_eq!(std::fs::read_dir(f.at("all/c")).unwrap().count(), 6);

    let lines = f.stdout(&["explain", "m.safetensors", "--image", "data/a/1.png", "--class", "b", "--out", "explained"], 0);
    assert!(lines.starts_with("explained/1.b.png  b  0.") && lines.lines().count() == 1, "{lines}");
    assert!(bytes("one/1.b.png") == bytes("explained/1.b.png"));
}

#[test]
fn heat_maps_that_cannot_be_made_are_refused_or_named() {
    let f = Folder::new("gradcam-refused");
    let cam = |more: &[&str], code| f.stderr(&[&["predict", "m.safetensors", "data/a/1.png", "--gradcam", "heat"], more].concat(), code);
    assert!(cam(&["--gradcam-class", "aa"], 2).contains("--gradcam-class: no class is called \"aa\""));
    assert!(cam(&["--gradcam-layer", "block5_conv"], 2).contains("did you mean block5_conv"));
    assert!(cam(&["--gradcam-layer", "dense"], 2).contains("--gradcam-layer: dense has no feature maps"));
    assert!(!f.at("heat").exists());
    f.stderr(&["predict", "m.safetensors", "data/a/1.png", "--gradcam-class", "a"], 2);
    assert!(f.stderr(&["explain", "vgg16", "--image", "data/a/1.png"], 2).contains("knows no classes"));
    assert!(f.stderr(&["explain", "vgg16", "--device", "naive"], 2).contains("--image"));
    f.stderr(&["explain", "m.safetensors", "--image", "data/a/1.png", "--grad", "--layer", "block5_conv3"], 2);

    // Where the folder's name is a file, nothing can be written; a file that is no image leaves the others alone.
    assert!(cam(&["--gradcam", "m.safetensors"], 2).contains("cannot be used multiple times"));
    let taken = f.stderr(&["predict", "m.safetensors", "data/a/1.png", "--gradcam", "data/a/2.png"], 2);
    assert!(taken.contains("data/a/2.png: is no folder"), "{taken}");
    std::fs::write(f.at("data/a/0.png"), "text").unwrap();
    let records = f.json(&["predict", "m.safetensors", "data/a", "--json", "--gradcam", "heat"], 1);
    assert!(records[0]["error"].is_string() && records[2]["gradcam"][0].is_string(), "{records}");
    let explain = ["explain", "m.safetensors", "--out", "heat", "--image", "data/a/0.png"];
    assert!(f.stderr(&explain, 2).contains("data/a/0.png: "));
    assert!(f.stderr(&[&explain[..], &["--image", "data/a/1.png"]].concat(), 1).contains("1 of 2 images"));
    // An image that is called like an overlay is never written over.
    let record = f.json(&["predict", "m.safetensors", "data/a/1.png", "--json", "--gradcam", "heat"], 0);
    let overlay = record[0]["gradcam"][0].as_str().unwrap();
    let before = std::fs::read(f.at(overlay)).unwrap();
    let again = f.json(&["predict", "m.safetensors", overlay, "data/a/1.png", "--json", "--gradcam", "heat"], 0);
    assert!(again[1]["gradcam"][0].as_str().unwrap().starts_with("heat/1-2."), "{again}");
    assert!(std::fs::read(f.at(overlay)).unwrap() == before);
}
