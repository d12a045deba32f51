//! `import`: what is refused, and with which words. That imported models answer as Keras does is `scripts/keras-import.py`.

use super::Folder;
use defrost::models::import::{Options, examine, import};
use rawzip::{CompressionMethod, ZipArchiveWriter};
use std::io::Write;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hdf5").join(name)
}

/// The error of importing bytes, which must leave nothing behind.
fn refusal(folder: &Folder, bytes: &[u8]) -> String {
    let (path, out) = (folder.at("file"), folder.at("out.safetensors"));
    std::fs::write(&path, bytes).unwrap();
    let error = import(&path, &out, &Options::default()).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    assert!(!out.exists());
    error.to_string()
}

/// A zip of entries: name, bytes, whether deflated.
fn zip(entries: &[(&str, &[u8], bool)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut zip = ZipArchiveWriter::new(&mut bytes);
    for (name, data, deflated) in entries {
        let method = if *deflated { CompressionMethod::DEFLATE } else { CompressionMethod::STORE };
        // A verbatim name is not made harmless by the writer.
        let name = rawzip::path::EntryPath::verbatim(name.as_bytes());
        let (mut entry, options) = zip.new_file(name).compression_method(method).start().unwrap();
        let descriptor = if *deflated {
            let mut writer = options.wrap(flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast()));
            writer.write_all(data).unwrap();
            let (encoder, descriptor) = writer.finish().unwrap();
            encoder.finish().unwrap();
            descriptor
        } else {
            let mut writer = options.wrap(&mut entry);
            writer.write_all(data).unwrap();
            writer.finish().unwrap().1
        };
        entry.finish(descriptor).unwrap();
    }
    zip.finish().unwrap();
    bytes
}

const CONFIG: &[u8] = br#"{"config": {"layers": [{"class_name": "Dense", "config": {"name": "d"}}]}}"#;

#[test]
fn files_of_other_programs_are_named_for_what_they_are() {
    let folder = Folder::new("import-foreign");
    assert!(refusal(&folder, b"").contains("file: is empty"));
    assert!(refusal(&folder, b"no model at all, only text").contains("neither an HDF5 file"));
    assert!(refusal(&folder, &std::fs::read(golden("types_v0.h5")).unwrap()).contains("neither layer_names nor layers"));
    for pickle in [b"\x80\x02}q\x00.".to_vec(), zip(&[("archive/data.pkl", b"\x80\x02}q\x00.", false), ("archive/data/0", b"1234", false)])]
    {
        let error = refusal(&folder, &pickle);
        assert!(error.contains("pickle") && error.contains("safetensors.torch.save_file"), "{error}");
    }
    let error = import(Path::new("/nowhere/model.h5"), &folder.at("out"), &Options::default()).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/model.h5: ") && error.exit_code() == 2, "{error}");
    assert!(import(&folder.0, &folder.at("out"), &Options::default()).unwrap_err().what().contains("not a file"));
    let own = folder.at("file");
    assert!(import(&own, &own, &Options::default()).unwrap_err().what().contains("would replace"));
}

#[test]
fn another_network_is_named_with_its_nearest() {
    let folder = Folder::new("import-network");
    for name in ["legacy.h5", "numbered.weights.h5"] {
        let error = refusal(&folder, &std::fs::read(golden(name)).unwrap());
        assert!(error.contains("layers with weights are those of none of vgg16, xception, inceptionv3, densenet121"), "{error}");
    }
    let backbone = Some("densenet121".parse().unwrap());
    let error = examine(&std::fs::read(golden("legacy.h5")).unwrap(), &Options { backbone, ..Options::default() }).unwrap_err();
    let expected = "conv2d: has shape [3, 3, 3, 4], expected conv1_conv (kernel [7, 7, 3, 64]) of densenet121";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn a_layer_that_lists_no_weights_is_named_unless_it_has_none() {
    let folder = Folder::new("import-unlisted");
    let good = std::fs::read(golden("legacy.h5")).unwrap();
    // The layers of the file in order, each with the attribute under another name.
    let places = good.windows(12).enumerate().filter(|(_, text)| text == b"weight_names").map(|(at, _)| at);
    for (at, layer) in places.zip(["input_1", "conv2d", "bn", "base", "dense"]) {
        let mut bytes = good.clone();
        bytes[at] = b'W';
        let error = refusal(&folder, &bytes);
        let expected = format!("{layer}: its attribute weight_names is missing; expected the paths of the layer's weights in order");
        assert_eq!(error.contains(&expected), layer != "input_1", "{layer}: {error}");
    }
}

#[test]
fn real_files_of_other_networks_end_with_the_difference() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/weights/keras-files");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: {} is not there", folder.display());
        return;
    };
    let mut seen = 0;
    for path in entries.map(|e| e.unwrap().path()) {
        let name = path.display().to_string();
        if name.contains("LICENSE") {
            continue;
        }
        let error = examine(&std::fs::read(&path).unwrap(), &Options::default()).unwrap_err().to_string();
        assert!(error.contains("holds another network: its ") && error.contains("of none of vgg16"), "{name}: {error}");
        assert!(error.contains("nearest to") || error.contains("; the first of them is "), "{name}: a layer is named: {error}");
        if name.contains("XCEPTION") {
            assert!(error.contains("it is nearest to xception, and there: conv2d_1: has shape [3, 3, 1, "), "{name}: {error}");
        }
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn hostile_archives_are_refused() {
    let folder = Folder::new("import-zip");
    let weights = std::fs::read(golden("numbered.weights.h5")).unwrap();
    let sound = [("config.json", CONFIG, false), ("model.weights.h5", &weights[..], false)];
    assert!(refusal(&folder, &zip(&sound)).contains("holds another network"), "a sound archive is read to its weights");
    let deflated = sound.map(|(name, data, _)| (name, data, true));
    assert!(refusal(&folder, &zip(&deflated)).contains("holds another network"));

    for name in ["../config.json", "/etc/passwd", "a/../../b", "..\\b", "C:b"] {
        let error = refusal(&folder, &zip(&[sound[0], sound[1], (name, b"x", false)]));
        assert!(error.contains("leads out of the archive's folder"), "{name}: {error}");
    }
    let nested = zip(&sound);
    assert!(refusal(&folder, &zip(&[sound[0], sound[1], ("assets/a.zip", &nested, false)])).contains("archive within the archive"));
    assert!(refusal(&folder, &zip(&[sound[0], sound[1], sound[0]])).contains("two entries of this name"));
    assert!(refusal(&folder, &zip(&[sound[0]])).contains("lacks config.json or model.weights.h5"));

    let zeros = vec![0; 8 << 20];
    let error = refusal(&folder, &zip(&[sound[0], ("model.weights.h5", &zeros, true)]));
    assert!(error.contains("model.weights.h5: inflates from") && error.contains("8388608 bytes, which is refused"), "{error}");
    let long = vec![b' '; 3 << 20];
    assert!(refusal(&folder, &zip(&[("config.json", &long, true), sound[1]])).contains("config.json: has 3145728 bytes; at most"));

    // A flipped bit in the weights is noticed by the checksum, a cut archive by its missing end.
    let mut flipped = zip(&sound);
    let at = flipped.windows(4).position(|w| w == b"\x89HDF").unwrap() + 2000;
    flipped[at] ^= 1;
    assert!(refusal(&folder, &flipped).contains("the archive is damaged"));
    assert!(refusal(&folder, &zip(&sound)[..3000]).contains("the zip archive is damaged"));
}

#[test]
fn a_configuration_that_is_no_model_is_refused() {
    let folder = Folder::new("import-config");
    let weights = std::fs::read(golden("numbered.weights.h5")).unwrap();
    let with = |config: &[u8]| refusal(&folder, &zip(&[("config.json", config, false), ("model.weights.h5", &weights, false)]));
    assert!(with(b"{\"config\": ").contains("config.json: the configuration is not JSON"));
    assert!(with("[".repeat(100_000).as_bytes()).contains("not JSON"));
    assert!(with(b"\xff\xfe").contains("config.json: is no text"));
}
