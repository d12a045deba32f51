//! Whole models written to a file, read back, and matched with graphs of other heads.

use defrost::base::DType;
use defrost::ir::Role;
use defrost::models::{Backbone, Freeze, Hidden, Model, Purpose, Spec};
use defrost::weights::{Draw, Entry, Head, Metadata, ModelFile, Source, VERSION, save};
use std::path::PathBuf;

/// A folder of its own that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("defrost-model-file-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn names(classes: &[&str]) -> Vec<String> {
    classes.iter().map(|c| c.to_string()).collect()
}

fn spec(classes: usize) -> Spec {
    Spec { size: 32, ..Spec::new(Backbone::DenseNet121, classes) }
}

/// The name and shape under which a tensor is written, if at all.
type Keep = dyn Fn(&str, &[usize]) -> Option<(String, Vec<usize>)>;

/// Writes the initial weights of a model; `keep` drops or renames tensors and changes shapes.
fn write(path: &PathBuf, model: &Model, classes: &[String], keep: impl Fn(&str, &[usize]) -> Option<(String, Vec<usize>)>) {
    let graph = &model.graph;
    let mut tensors = Vec::new();
    for &v in graph.params.iter().chain(&graph.states) {
        let (Role::Param { init, .. } | Role::State { init }) = graph.role(v) else { panic!("a parameter or a state") };
        if let Some((name, shape)) = keep(graph.name(v), graph.ty(v).shape.dims()) {
            let bytes = Draw::new(1, graph.name(v), init).bytes(DType::F32, shape.iter().product());
            tensors.push((name, shape, bytes));
        }
    }
    let metadata = Metadata {
        backbone: model.spec.backbone.name().into(),
        classes: classes.to_vec(),
        exif: false,
        hidden: model.spec.hidden.iter().map(Hidden::to_string).collect(),
        input_size: model.spec.size,
        pixels: "f32".into(),
        preprocess: model.spec.preprocess.to_string(),
        profile: model.spec.profile,
        resize: "keras".into(),
        training: serde_json::Value::Null,
        version: VERSION,
    };
    let entries = tensors.iter().map(|(name, shape, bytes)| Entry { name, shape, bytes });
    save(path, &metadata, entries, DType::F32).unwrap();
}

fn as_is(name: &str, shape: &[usize]) -> Option<(String, Vec<usize>)> {
    Some((name.into(), shape.to_vec()))
}

#[test]
fn the_data_of_a_file_is_the_image_of_the_arenas() {
    let folder = Folder::new("image");
    let path = folder.0.join("m.safetensors");
    let (model, classes) = (spec(2).build().unwrap(), names(&["a", "b"]));
    write(&path, &model, &classes, as_is);
    let file = ModelFile::open(&path).unwrap();
    let matched = model.match_file(&file, &classes).unwrap();
    assert_eq!(matched.head, Head::Kept);
    assert!(matched.sentence.contains("backbone and head kept"), "{}", matched.sentence);
    let order: Vec<_> = model.graph.params.iter().chain(&model.graph.states).copied().collect();
    assert_eq!(matched.sources.iter().map(|(v, _)| *v).collect::<Vec<_>>(), order);
    // Parameters, then statistics, in graph order without gaps.
    let mut offset = file.tensors().data_offset();
    for (v, source) in &matched.sources {
        let Source::File(tensor) = source else { panic!("everything is in the file") };
        assert_eq!((tensor.name, tensor.offset), (model.graph.name(*v), offset));
        offset += model.graph.ty(*v).bytes();
    }
    assert_eq!(offset as u64, std::fs::metadata(&path).unwrap().len());
}

#[test]
fn the_head_is_kept_when_the_classes_agree_and_starts_new_otherwise() {
    let folder = Folder::new("head");
    let path = folder.0.join("m.safetensors");
    let (ab, ba, abc) = (names(&["a", "b"]), names(&["b", "a"]), names(&["a", "b", "c"]));
    let two = spec(2).build().unwrap();
    let matched = |model: &Model, classes: &[String]| {
        let file = ModelFile::open(&path).unwrap();
        let matched = model.match_file(&file, classes).unwrap();
        let new: Vec<&str> =
            matched.sources.iter().filter(|(_, s)| matches!(s, Source::New(_))).map(|(v, _)| model.graph.name(*v)).collect();
        assert!(new.is_empty() || (matched.head == Head::New && new == ["dense/kernel", "dense/bias"]), "{new:?}");
        (matched.head, matched.sentence.clone())
    };

    write(&path, &two, &ab, as_is);
    assert_eq!(matched(&two, &ab).0, Head::Kept);
    let (head, sentence) = matched(&two, &ba);
    assert_eq!(head, Head::New);
    assert!(sentence.contains("class names differ"), "{sentence}");
    let (head, sentence) = matched(&spec(3).build().unwrap(), &abc);
    assert_eq!(head, Head::New);
    assert!(sentence.contains("2 classes, the data has 3"), "{sentence}");

    // Only the number is known.
    write(&path, &two, &[], as_is);
    assert_eq!(ModelFile::open(&path).unwrap().class_names(), ["0", "1"]);
    assert_eq!(matched(&two, &ba).0, Head::Kept);
    assert_eq!(matched(&spec(3).build().unwrap(), &abc).0, Head::New);

    // Without head; and the backbone alone of a model with one.
    let bare = Spec { features_only: true, ..spec(0) }.build().unwrap();
    assert_eq!(matched(&bare, &[]).0, Head::Absent);
    write(&path, &bare, &[], as_is);
    let (head, sentence) = matched(&two, &ab);
    assert_eq!(head, Head::New);
    assert!(sentence.contains("has no head"), "{sentence}");
    assert_eq!(ModelFile::open(&path).unwrap().class_count(), None);
}

#[test]
fn another_hidden_layer_is_another_head() {
    let folder = Folder::new("hidden");
    let path = folder.0.join("m.safetensors");
    let ab = names(&["a", "b"]);
    let with = |hidden: &[&str]| Spec { hidden: hidden.iter().map(|h| h.parse().unwrap()).collect(), ..spec(2) }.build().unwrap();
    write(&path, &with(&["16:sigmoid"]), &ab, as_is);
    let file = ModelFile::open(&path).unwrap();
    assert_eq!(file.class_count(), Some(2));
    let head = |model: &Model| model.match_file(&file, &ab).unwrap().head;
    assert_eq!(head(&with(&["16:sigmoid"])), Head::Kept);
    assert_eq!(head(&with(&["16:relu"])), Head::New, "the weights fit, the function differs");
    assert_eq!(head(&with(&["8:sigmoid"])), Head::New);
    assert_eq!(head(&with(&[])), Head::New);
    assert_eq!(head(&with(&["16:sigmoid", "16:sigmoid"])), Head::New);
}

#[test]
fn a_head_alone_takes_its_weights_from_a_whole_model() {
    let folder = Folder::new("alone");
    let path = folder.0.join("m.safetensors");
    let ab = names(&["a", "b"]);
    write(&path, &spec(2).build().unwrap(), &ab, as_is);
    let head = Spec { from_features: true, purpose: Purpose::Train, freeze: Freeze::All, ..spec(2) }.build().unwrap();
    let file = ModelFile::open(&path).unwrap();
    let matched = head.match_file(&file, &ab).unwrap();
    assert_eq!((matched.head, matched.sources.len()), (Head::Kept, 2));
}

#[test]
fn a_file_that_does_not_fit_is_refused_with_the_tensor() {
    let folder = Folder::new("misfit");
    let path = folder.0.join("m.safetensors");
    let (model, ab) = (spec(2).build().unwrap(), names(&["a", "b"]));
    let error = |keep: &Keep, model: &Model| {
        write(&path, &spec(2).build().unwrap(), &ab, keep);
        let error = model.match_file(&ModelFile::open(&path).unwrap(), &ab).unwrap_err().to_string();
        assert!(error.contains("m.safetensors"), "{error}");
        error
    };
    let missing = error(&|name, shape| as_is(name, shape).filter(|_| name != "bn/gamma"), &model);
    assert!(missing.contains("bn/gamma: the file has no such tensor"), "{missing}");
    let reshaped = |name: &str, shape: &[usize]| Some((name.into(), if name == "bn/beta" { vec![512, 2] } else { shape.to_vec() }));
    let reshaped = error(&reshaped, &model);
    assert!(reshaped.contains("bn/beta: has shape [512, 2], expected [1024]"), "{reshaped}");
    let renamed = error(&|name, shape| as_is(&name.replace("dense/bias", "extra/bias"), shape), &model);
    assert!(renamed.contains("extra/bias: densenet121 has no such weight"), "{renamed}");
    let other = error(&as_is, &Spec::new(Backbone::Vgg16, 2).build().unwrap());
    assert!(other.contains("holds weights of densenet121, expected vgg16"), "{other}");
}
