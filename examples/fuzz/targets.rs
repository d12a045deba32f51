//! The four readers, each with sound files to start from.

use super::mutate::{Random, mutate, mutate_text};
use defrost::base::DType;
use defrost::error::Result;
use defrost::models::import::{Options, examine};
use defrost::models::{Backbone, Spec};
use defrost::train::Settings;
use defrost::weights::hdf5::{File, Group};
use defrost::weights::keras::{Archive, Config};
use defrost::weights::{Entry, ModelFile, TensorFile, torch};
use std::path::{Path, PathBuf};

/// What is read.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Hdf5,
    Keras,
    Safetensors,
    Config,
}

/// A reader and its sound files.
pub struct Target {
    kind: Kind,
    corpus: Vec<Vec<u8>>,
    /// Where readers of mapped files find the input.
    path: PathBuf,
}

/// A model of every kind of layer that the configuration's reader looks at.
const MODEL_CONFIG: &str = r#"{"module": "keras", "class_name": "Functional", "config": {"name": "m", "trainable": true, "layers": [
    {"class_name": "InputLayer", "config": {"batch_shape": [null, 32, 32, 3], "name": "input_layer"}},
    {"class_name": "Rescaling", "config": {"name": "r", "scale": 0.00784313725490196, "offset": -1.0}},
    {"class_name": "Functional", "config": {"name": "base", "layers": [
        {"class_name": "Conv2D", "config": {"name": "conv2d", "data_format": "channels_last", "activation": "relu"}},
        {"class_name": "BatchNormalization", "config": {"name": "bn", "epsilon": 0.001}},
        {"class_name": "MaxPooling2D", "config": {"name": "p"}}]}},
    {"class_name": "GlobalAveragePooling2D", "config": {"name": "g"}},
    {"class_name": "Dense", "config": {"name": "d", "units": 4, "activation": {"class_name": "ReLU", "config": {}}}},
    {"class_name": "Dense", "config": {"name": "e", "units": 2, "activation": "softmax"}}]}}"#;

impl Target {
    /// `h5`, `keras`, `safetensors` or `config`.
    pub fn new(name: &str) -> Option<Self> {
        let (kind, corpus) = match name {
            "h5" => (Kind::Hdf5, golden()),
            "keras" => (Kind::Keras, golden().into_iter().take(6).map(|h5| archive(MODEL_CONFIG.as_bytes(), &h5, false)).collect()),
            "safetensors" => (Kind::Safetensors, vec![model_file(), torch_file()]),
            "config" => (Kind::Config, vec![MODEL_CONFIG.into(), Settings::new("photos", Backbone::Vgg16).to_toml().into_bytes()]),
            _ => return None,
        };
        let path = std::env::temp_dir().join(format!("defrost-fuzz-{name}-{}", std::process::id()));
        Some(Target { kind, corpus, path })
    }

    /// The sound files must be read: else the mutations would test nothing.
    pub fn check_corpus(&self) -> std::result::Result<(), String> {
        let unread = self.corpus.iter().filter(|bytes| !self.read(bytes)).count();
        if unread == 0 && !self.corpus.is_empty() {
            Ok(())
        } else {
            Err(format!("{unread} of {} sound files are not read", self.corpus.len()))
        }
    }

    /// A sound file, changed.
    pub fn input(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = random.pick(&self.corpus).clone();
        match self.kind {
            Kind::Hdf5 => mutate(&mut bytes, random),
            // Half of the time the archive is sound and its contents are not.
            Kind::Keras if random.below(2) == 0 => {
                let (mut config, mut weights) = (MODEL_CONFIG.as_bytes().to_vec(), random.pick(&golden()).clone());
                if random.below(2) == 0 {
                    mutate_text(&mut config, random)
                } else {
                    mutate(&mut weights, random)
                }
                bytes = archive(&config, &weights, random.below(2) == 0);
            }
            Kind::Keras => mutate(&mut bytes, random),
            Kind::Safetensors => mutate_header(&mut bytes, random),
            Kind::Config if random.below(4) == 0 => mutate(&mut bytes, random),
            Kind::Config => mutate_text(&mut bytes, random),
        }
        bytes
    }

    /// Reads an input to its end; whether it was accepted.
    pub fn read(&self, bytes: &[u8]) -> bool {
        match self.kind {
            Kind::Hdf5 => {
                let matched = examine(bytes, &Options { backbone: Some(Backbone::Vgg16), ..Options::default() });
                let read = File::parse(bytes).and_then(|file| read_all(&file.root()?, 0));
                matched.is_ok() || read.is_ok()
            }
            Kind::Keras => {
                let _ = examine(bytes, &Options { backbone: Some(Backbone::Vgg16), ..Options::default() });
                Archive::open(bytes)
                    .and_then(|a| Config::parse(&a.config).and_then(|_| read_all(&File::parse(&a.weights)?.root()?, 0)))
                    .is_ok()
            }
            Kind::Safetensors => self.on_disk(bytes, |path| {
                let model = ModelFile::open(path).map(|file| {
                    let _ = defrost::train::opened::spec_of(&file)
                        .and_then(|spec| spec.build())
                        .and_then(|m| m.match_file(&file, &[]).map(|_| ()));
                });
                let tensors = TensorFile::open_any(path).map(|file| {
                    let spec = Spec { features_only: true, ..Spec::new(Backbone::Vgg16, 0) };
                    let _ = torch::TorchFile::recognise(&file).and_then(|torch| torch.convert(&spec.build()?.graph).map(|_| ()));
                });
                model.is_ok() || tensors.is_ok()
            }),
            Kind::Config => {
                let text = String::from_utf8_lossy(bytes);
                let model = Config::parse(&text).is_ok();
                self.on_disk(bytes, |path| defrost::cli::check_config(path).is_ok()) || model
            }
        }
    }

    fn on_disk(&self, bytes: &[u8], read: impl Fn(&Path) -> bool) -> bool {
        std::fs::write(&self.path, bytes).expect("the folder for temporary files can be written");
        read(&self.path)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The golden HDF5 files that are sound, smallest first.
fn golden() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hdf5");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    files.retain(|path| !path.display().to_string().contains("refused"));
    files.sort();
    let mut files: Vec<Vec<u8>> = files.iter().filter_map(|path| std::fs::read(path).ok()).collect();
    files.sort_by_key(Vec::len);
    files
}

/// Everything below a group; of the data sets those of a small shape, as a caller would choose.
fn read_all(group: &Group, depth: usize) -> Result<()> {
    for name in group.names().filter(|_| depth < 8) {
        group.texts(name)?;
        if group.is_group(name)? {
            group.group(name)?.map_or(Ok(()), |g| read_all(&g, depth + 1))?;
        } else if let Some(data) = group.dataset(name)? {
            let len = data.shape().iter().try_fold(1u64, |n, &d| n.checked_mul(d));
            if len.is_some_and(|n| n < 1 << 20) && data.elements() != "8-byte integers" {
                data.read()?;
            }
        }
    }
    ["layer_names", "weight_names", "fixed", "variable", "a7"].iter().try_for_each(|name| group.texts(name).map(|_| ()))
}

/// A zip as Keras writes it, stored or deflated.
fn archive(config: &[u8], weights: &[u8], deflated: bool) -> Vec<u8> {
    use std::io::Write;
    let mut bytes = Vec::new();
    let mut zip = rawzip::ZipArchiveWriter::new(&mut bytes);
    for (name, data) in [("metadata.json", &b"{}"[..]), ("config.json", config), ("model.weights.h5", weights)] {
        let method = if deflated { rawzip::CompressionMethod::DEFLATE } else { rawzip::CompressionMethod::STORE };
        let (mut entry, options) = zip.new_file(name).compression_method(method).start().expect("a name");
        let descriptor = if deflated {
            let mut writer = options.wrap(flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast()));
            writer.write_all(data).expect("memory");
            let (encoder, descriptor) = writer.finish().expect("memory");
            encoder.finish().expect("memory");
            descriptor
        } else {
            let mut writer = options.wrap(&mut entry);
            writer.write_all(data).expect("memory");
            writer.finish().expect("memory").1
        };
        entry.finish(descriptor).expect("memory");
    }
    zip.finish().expect("memory");
    bytes
}

/// Bytes of a model file with a backbone's first tensors.
fn model_file() -> Vec<u8> {
    let spec = Spec::new(Backbone::Vgg16, 2);
    let metadata = defrost::weights::Metadata {
        backbone: "vgg16".into(),
        classes: vec!["a".into(), "b".into()],
        exif: false,
        hidden: vec!["4:relu".into()],
        input_size: 32,
        pixels: "f32".into(),
        preprocess: "caffe".into(),
        profile: spec.profile,
        resize: "keras".into(),
        training: serde_json::json!({"seed": 1}),
        version: 1,
    };
    let values = [0u8; 4 * 3 * 3 * 3 * 4];
    let kernel = Entry { name: "block1_conv1/kernel", shape: &[3, 3, 3, 4], bytes: &values };
    let bias = Entry { name: "dense/bias", shape: &[2], bytes: &values[..8] };
    written(|path| defrost::weights::save(path, &metadata, [kernel, bias], DType::F32))
}

/// Bytes of a file with a few of torchvision's names.
fn torch_file() -> Vec<u8> {
    let tensor = Entry { name: "features.28.weight", shape: &[2, 2], bytes: &[0; 16] };
    let more = Entry { name: "features.28.bias", shape: &[2], bytes: &[0; 8] };
    written(|path| defrost::weights::save_tensors(path, &[("defrost", "{}"), ("format", "pt")], [(tensor, DType::F32), (more, DType::F32)]))
}

fn written(write: impl FnOnce(&Path) -> Result<()>) -> Vec<u8> {
    let path = std::env::temp_dir().join(format!("defrost-fuzz-corpus-{}", std::process::id()));
    write(&path).expect("the folder for temporary files can be written");
    let bytes = std::fs::read(&path).expect("it was just written");
    let _ = std::fs::remove_file(&path);
    bytes
}

/// Changes the JSON header of a safetensors file; half of the time its length stays true.
fn mutate_header(bytes: &mut Vec<u8>, random: &mut Random) {
    let len = u64::from_le_bytes(bytes[..8].try_into().expect("a header")) as usize;
    let mut header = bytes[8..8 + len].to_vec();
    match random.below(3) {
        0 => return mutate(bytes, random),
        1 => mutate(&mut header, random),
        _ => mutate_text(&mut header, random),
    }
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend_from_slice(&bytes[8 + len..]);
    *bytes = file;
}
