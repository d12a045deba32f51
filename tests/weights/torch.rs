//! Files with the names of torchvision and timm against what these libraries' own networks compute in double precision.
//! `golden/make_torch_numbers.py` says how weights and pixels are drawn.

use super::{Folder, hashed};
use defrost::device::cpu::Cpu;
use defrost::device::naive::Naive;
use defrost::exec::{Passes, Program, Session};
use defrost::models::{Backbone, Spec};
use defrost::ops::Backend;
use defrost::weights::TensorFile;
use defrost::weights::torch::{TorchFile, is_torch};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::Path;

const NAMES: &str = include_str!("../golden/torch_names.txt");
const NUMBERS: &str = include_str!("../golden/torch_numbers.txt");

type Tensors = BTreeMap<String, (Vec<usize>, Dtype, Vec<u8>)>;

/// All tensors that a library saves of its network with eight classes.
fn state_dict(network: &str, library: &str) -> Tensors {
    let lines = NAMES.lines().map(|l| l.split(' ').collect::<Vec<_>>());
    let mut tensors = Tensors::new();
    let shapes: BTreeMap<&str, Vec<usize>> = lines
        .filter(|w| w[0] == network && (w[1] == "both" || w[1] == library))
        .map(|w| (w[2], w[3].split('x').map(|d| d.parse().unwrap()).collect()))
        .collect();
    for (&name, shape) in &shapes {
        let (module, kind) = name.rsplit_once('.').unwrap();
        let norm = shapes.contains_key(&*format!("{module}.running_mean"));
        if kind == "running_mean" {
            tensors.insert(format!("{module}.num_batches_tracked"), (vec![], Dtype::I64, 7i64.to_le_bytes().to_vec()));
        }
        let separable = name.contains("pointwise") || (name.contains(".conv1.") && shape.get(1) == Some(&1));
        let (offset, factor) = match kind {
            _ if shape.len() > 1 => {
                let fan = shape[1..].iter().product::<usize>() as f64;
                (0.0, (if separable { 3.0 } else { 6.0 } / fan).sqrt() * if shape.len() == 2 { 0.2 } else { 1.0 })
            }
            "weight" if norm => (1.0, 0.4),
            "running_var" => (1.0, 0.5),
            _ => (0.0, 0.1),
        };
        let len: usize = shape.iter().product();
        // VGG16's classifier is known by its names alone; its hundred million numbers are spared.
        let values = if len > 20 << 20 { vec![0.0; len] } else { hashed(name, len) };
        let bytes = values.into_iter().flat_map(|u| ((offset + factor * u) as f32).to_le_bytes()).collect();
        tensors.insert(name.into(), (shape.clone(), Dtype::F32, bytes));
    }
    tensors
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (shape, dtype, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The logits of the image of hashed pixels; of a network without head, its first eight features.
fn answer<D: Backend>(device: D, file: &TorchFile, size: usize) -> Vec<f64> {
    let backbone: Backbone = file.backbone().parse().unwrap();
    let classes = file.class_count();
    let profile = file.profile();
    let spec = Spec { size, profile, preprocess: profile.preprocess, features_only: classes.is_none(), ..Spec::new(backbone, 0) };
    let graph = Spec { classes: classes.unwrap_or(0), ..spec }.build().unwrap().graph;
    let weights = file.convert(&graph).unwrap();
    let mut session = Session::new(device).unwrap();
    let mut program = Program::compile(graph, session.device(), Passes::default()).unwrap();
    session.reserve(&program).unwrap();
    for weight in &weights {
        session.set(&program, &weight.name, &weight.values[..]).unwrap();
    }
    let pixels: Vec<f64> = hashed("pixels", size * size * 3).into_iter().map(|u| 127.5 + 127.5 * u).collect();
    session.set(&program, "pixels", &pixels[..]).unwrap();
    session.replay(&mut program, None).unwrap();
    session.get(&program, if classes.is_some() { "logits" } else { "features" }).unwrap()[..8].to_vec()
}

/// Compares with every recorded line of a network; in double precision at the first size.
fn compare(network: &str, library: &str) {
    let folder = Folder::new(&format!("{network}-{library}"));
    let path = folder.at("torch.safetensors");
    write(&path, &state_dict(network, library));
    let file = TensorFile::open_any(&path).unwrap();
    assert!(is_torch(&file));
    let file = TorchFile::recognise(&file).unwrap();
    assert_eq!((file.backbone(), file.class_count()), (network, if network == "vgg16" { None } else { Some(8) }));
    let mut lines = 0;
    for words in NUMBERS.lines().map(|l| l.split(' ').collect::<Vec<_>>()).filter(|w| w[0] == network && w[1] == library) {
        let size = words[2].parse().unwrap();
        let theirs: Vec<f64> = words[3..].iter().map(|n| n.parse().unwrap()).collect();
        let scale = theirs.iter().fold(1f64, |a, x| a.max(x.abs()));
        let worst = |ours: Vec<f64>| ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let single = worst(answer(Cpu::new(2).unwrap(), &file, size));
        assert!(single <= 1e-4, "{network} of {library} at {size}: off by {single}");
        // 120 layers of roundoffs, a factor of 32 for their growth: the budget of the comparison with Keras.
        let double = (lines == 0).then(|| worst(answer(Naive, &file, size)));
        assert!(double.is_none_or(|d| d <= 120.0 * 32.0 * f64::EPSILON * scale), "{network} of {library} at {size}: off by {double:?}");
        println!("{network} of {library} at {size}: {single:.1e} in f32, {double:?} in f64");
        lines += 1;
    }
    assert!(lines > 0);
}

#[test]
fn vgg16_answers_as_in_torchvision_and_timm() {
    compare("vgg16", "torchvision");
    compare("vgg16", "timm");
}

#[test]
fn xception_answers_as_in_timm() {
    compare("xception", "timm");
}

#[test]
fn inception_v3_answers_as_in_torchvision_and_timm() {
    compare("inceptionv3", "torchvision");
    compare("inceptionv3", "timm");
}

#[test]
fn densenet121_answers_as_in_torchvision_and_timm() {
    compare("densenet121", "torchvision");
    compare("densenet121", "timm");
}

/// What recognising and converting a file says.
fn refusal(folder: &Folder, tensors: &Tensors) -> String {
    let path = folder.at("wrong.safetensors");
    write(&path, tensors);
    let file = TensorFile::open_any(&path).unwrap();
    let convert = |file: TorchFile| {
        let backbone: Backbone = file.backbone().parse().unwrap();
        file.convert(&Spec { profile: file.profile(), ..Spec::new(backbone, file.class_count().unwrap_or(8)) }.build().unwrap().graph)
    };
    TorchFile::recognise(&file).and_then(convert).unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_is_named() {
    let folder = Folder::new("torch-wrong");
    let good = state_dict("densenet121", "torchvision");
    let changed = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = good.clone();
        change(&mut tensors);
        refusal(&folder, &tensors)
    };
    let text = changed(&|t| drop(t.remove("features.transition2.norm.running_var")));
    assert!(text.contains("features.transition2.norm.running_var") && text.contains("pool3_bn/moving_variance"), "{text}");
    // DenseNet169 begins alike and has more layers in the third block.
    let text = changed(&|t| {
        let layer = t["features.denseblock3.denselayer24.conv2.weight"].clone();
        t.insert("features.denseblock3.denselayer25.conv2.weight".into(), layer);
    });
    assert!(text.contains("features.denseblock3.denselayer25.conv2.weight") && text.contains("no such weight"), "{text}");
    let text = changed(&|t| t.get_mut("features.conv0.weight").unwrap().0 = vec![64, 7, 7, 3]);
    assert!(text.contains("features.conv0.weight: has shape [64, 7, 7, 3], expected [64, 3, 7, 7]"), "{text}");
    let text = changed(&|t| t.get_mut("features.norm5.bias").unwrap().1 = Dtype::I32);
    assert!(text.contains("features.norm5.bias") && text.contains("I32"), "{text}");
    let text = changed(&|t| t.get_mut("classifier.weight").unwrap().0 = vec![16, 512]);
    assert!(text.contains("classifier.weight: has shape [16, 512], expected [classes, 1024]"), "{text}");
    let text = changed(&|t| drop(t.remove("classifier.bias")));
    assert!(text.contains("classifier.bias"), "{text}");

    let text = refusal(&folder, &Tensors::from([("layer1.0.conv1.weight".into(), (vec![1], Dtype::F32, vec![0; 4]))]));
    assert!(text.contains("layer1.0.conv1.weight") && text.contains("DenseNet121 of torchvision or timm"), "{text}");
}

/// A densenet file after a change, converted; also the notes.
fn converted(change: impl Fn(Tensors) -> Tensors) -> (Vec<defrost::weights::torch::Converted>, Option<usize>, Vec<String>) {
    let folder = Folder::new("torch-variant");
    let path = folder.at("variant.safetensors");
    write(&path, &change(state_dict("densenet121", "torchvision")));
    let file = TensorFile::open_any(&path).unwrap();
    let file = TorchFile::recognise(&file).unwrap();
    let classes = file.class_count();
    let spec = Spec { profile: file.profile(), features_only: classes.is_none(), ..Spec::new(Backbone::DenseNet121, classes.unwrap_or(0)) };
    (file.convert(&spec.build().unwrap().graph).unwrap(), classes, file.notes().to_vec())
}

#[test]
fn variants_of_a_file_give_the_same_weights() {
    let (plain, classes, notes) = converted(|t| t);
    assert_eq!((classes, notes.len()), (Some(8), 0));
    // Old torchvision's names below a wrapper's prefix.
    let old = |name: &str| {
        let old = ["norm1.", "norm2.", "conv1.", "conv2."].iter().fold(name.to_string(), |name, now| {
            let (kind, number) = now.trim_end_matches('.').split_at(4);
            if name.contains(".denselayer") { name.replace(now, &format!("{kind}.{number}.")) } else { name }
        });
        format!("module.{old}")
    };
    assert_eq!(old("features.denseblock1.denselayer2.norm1.bias"), "module.features.denseblock1.denselayer2.norm.1.bias");
    assert_eq!(converted(|t| t.into_iter().map(|(name, tensor)| (old(&name), tensor)).collect()).0, plain);

    // Without the classifier, and with a class for the background in front.
    let (body, classes, _) = converted(|t| t.into_iter().filter(|(name, _)| !name.starts_with("classifier")).collect());
    let head = |w: &defrost::weights::torch::Converted| w.name.starts_with("dense/");
    assert_eq!((body, classes), (plain.iter().filter(|w| !head(w)).cloned().collect(), None));
    let (all, classes, notes) = converted(|mut t| {
        for (name, row) in [("classifier.weight", 1024 * 4), ("classifier.bias", 4)] {
            let (shape, _, bytes) = t.get_mut(name).unwrap();
            shape[0] = 1001;
            *bytes = (0..1001u32).flat_map(|class| (class as f32).to_le_bytes().repeat(row / 4)).collect();
        }
        t
    });
    assert!(classes == Some(1000) && notes[0].contains("background"), "{notes:?}");
    let kernel = all.iter().find(|w| w.name == "dense/kernel").unwrap();
    assert_eq!((&kernel.shape[..], kernel.values[0], kernel.values[1], kernel.values[999]), (&[1024, 1000][..], 1.0, 2.0, 1000.0));

    // Half precision is rounded once, when it was saved.
    let (half, ..) = converted(|mut t| {
        for (_, dtype, bytes) in t.values_mut().filter(|(_, dtype, _)| *dtype == Dtype::F32) {
            *bytes = bytes.as_chunks::<4>().0.iter().flat_map(|b| half::f16::from_f32(f32::from_le_bytes(*b)).to_le_bytes()).collect();
            *dtype = Dtype::F16;
        }
        t
    });
    for (a, b) in half.iter().zip(&plain) {
        let rounded: Vec<f32> = b.values.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect();
        assert!(a.name == b.name && a.values == rounded, "{}", a.name);
    }
}
