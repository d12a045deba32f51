//! What `defrost export` writes, read back by the program's own reader. That Keras opens it is `scripts/keras_export_check.py`.

use super::{Folder, hashed};
use defrost::base::{DType, Shape};
use defrost::models::export::keras_h5;
use defrost::models::import::{Options, import};
use defrost::models::{Backbone, Spec};
use defrost::train::opened::spec_of;
use defrost::weights::hdf5::File;
use defrost::weights::{Entry, Metadata, ModelFile, Profile, VERSION, save};
use serde_json::Value;
use std::path::Path;

/// Writes a model of hashed weights, variances around one.
pub fn write_model(path: &Path, spec: &Spec, classes: &[&str], dtype: DType) {
    let graph = spec.build().unwrap().graph;
    let bytes = |name: &str, shape: Shape| -> Vec<u8> {
        let offset = if name.ends_with("variance") { 1.5 } else { 0.0 };
        // Kernels by the root of their inputs, so that activations neither grow nor fade through a hundred layers.
        let scale = if shape.rank() > 1 { (shape.rows() as f64).sqrt().recip() } else { 1.0 };
        let values = hashed(name, shape.len()).into_iter().map(|x| x * scale + offset);
        match dtype {
            DType::F64 => values.flat_map(f64::to_le_bytes).collect(),
            _ => values.flat_map(|x| (x as f32).to_le_bytes()).collect(),
        }
    };
    let weights = graph.params.iter().chain(&graph.states).map(|&v| (graph.name(v).to_string(), graph.ty(v).shape));
    let tensors: Vec<_> = weights.map(|(name, shape)| (bytes(&name, shape), name, shape)).collect();
    let metadata = Metadata {
        backbone: spec.backbone.name().into(),
        classes: classes.iter().map(|c| c.to_string()).collect(),
        exif: false,
        hidden: spec.hidden.iter().map(ToString::to_string).collect(),
        input_size: spec.size,
        pixels: "f32".into(),
        preprocess: spec.preprocess.to_string(),
        profile: spec.profile,
        resize: "keras".into(),
        training: Value::Null,
        version: VERSION,
    };
    let entries = tensors.iter().map(|(bytes, name, shape)| Entry { name, shape: shape.dims(), bytes });
    save(path, &metadata, entries, dtype).unwrap();
}

fn export(model: &Path, preprocess: bool, out: &Path) {
    let file = ModelFile::open(model).unwrap();
    keras_h5(&file, &spec_of(&file).unwrap().build().unwrap(), preprocess, out).unwrap();
}

#[test]
fn an_exported_model_comes_back_to_the_bit() {
    let folder = Folder::new("export");
    let (ours, theirs, back) = (folder.at("m.safetensors"), folder.at("m.h5"), folder.at("back.safetensors"));
    for (backbone, module) in Backbone::ALL.into_iter().zip(["vgg16", "xception", "inception_v3", "densenet"]) {
        let hidden = vec!["6:sigmoid".parse().unwrap()];
        let spec = Spec { size: backbone.minimum_size() + 8, hidden, ..Spec::new(backbone, 3) };
        write_model(&ours, &spec, &["a", "b", "c"], DType::F32);
        export(&ours, false, &theirs);
        let own = format!("through keras.applications.{module}.preprocess_input");
        assert!(text(&theirs, "defrost_input").ends_with(&own), "{backbone}");
        let classes = ["a", "b", "c"].map(String::from).to_vec();
        let preprocess = Some("backbone".parse().unwrap());
        import(&theirs, &back, &Options { classes, preprocess, ..Options::default() }).unwrap();
        assert!(std::fs::read(&ours).unwrap() == std::fs::read(&back).unwrap(), "{backbone}");
    }
    // A backbone alone is a model of pooled features.
    write_model(&ours, &Spec { features_only: true, ..Spec::new(Backbone::DenseNet121, 0) }, &[], DType::F32);
    export(&ours, false, &theirs);
    import(&theirs, &back, &Options::default()).unwrap();
    assert!(std::fs::read(&ours).unwrap() == std::fs::read(&back).unwrap());
}

/// The attribute of an exported file.
fn text(path: &Path, name: &str) -> String {
    let bytes = std::fs::read(path).unwrap();
    let file = File::parse(&bytes).unwrap();
    file.root().unwrap().texts(name).unwrap().unwrap().remove(0)
}

/// The layers of an exported file's configuration: name and class.
fn layers(path: &Path) -> Vec<(String, String)> {
    let config: Value = serde_json::from_str(&text(path, "model_config")).unwrap();
    let layers = config["config"]["layers"].as_array().unwrap();
    layers.iter().map(|l| (l["name"].as_str().unwrap().into(), l["class_name"].as_str().unwrap().into())).collect()
}

#[test]
fn a_foreign_profile_is_written_with_the_layers_that_express_it() {
    let folder = Folder::new("export-profile");
    let (ours, theirs) = (folder.at("m.safetensors"), folder.at("m.h5"));
    let count = |class: &str| layers(&theirs).iter().filter(|(_, c)| c == class).count();
    let foreign = |backbone: Backbone, size| {
        let profile = Profile { epsilon: 0.25, gamma: true, count_padding: true, symmetric_pools: true, ..backbone.profile() };
        Spec { size, profile, ..Spec::new(backbone, 2) }
    };
    write_model(&ours, &foreign(Backbone::InceptionV3, 75), &[], DType::F64);
    export(&ours, false, &theirs);
    assert_eq!((count("ZeroPadding2D"), count("AveragePooling2D"), count("BatchNormalization")), (9, 9, 94));
    let config = text(&theirs, "model_config");
    assert!(config.contains(r#""epsilon":0.25"#) && config.contains(r#""scale":true"#) && !config.contains("float32"), "{config}");
    assert!(text(&theirs, "defrost").contains(r#""count_padding":true"#));

    // At 75 pixels the four pools of Xception see maps of 35, 18, 9 and 5: one is even.
    write_model(&ours, &foreign(Backbone::Xception, 75), &[], DType::F32);
    export(&ours, false, &theirs);
    assert_eq!((count("Cropping2D"), count("Concatenate"), count("MaxPooling2D")), (2, 2, 4));
    assert!(layers(&theirs).iter().any(|(name, _)| name == "block3_pool_first_row"));

    // Keras's own profile needs none of it; preprocessing inside is layers without weights.
    write_model(&ours, &Spec::new(Backbone::Vgg16, 2), &[], DType::F32);
    export(&ours, false, &theirs);
    assert_eq!(layers(&theirs).len(), 21);
    export(&ours, true, &theirs);
    assert_eq!((layers(&theirs).len(), count("Rescaling"), count("Permute"), count("Cropping2D")), (21 + 7, 1, 2, 3));
    assert!(text(&theirs, "defrost_input").ends_with("the model preprocesses them itself"));
    // A model that was trained on the pixels of another network says whose.
    write_model(&ours, &Spec { preprocess: Backbone::Xception.preprocess(), ..Spec::new(Backbone::Vgg16, 2) }, &[], DType::F32);
    export(&ours, false, &theirs);
    assert!(text(&theirs, "defrost_input").ends_with("keras.applications.inception_v3.preprocess_input"));
}
