//! Training on the pages of a weight file: what is copied is what changes, and two processes share the rest. Linux tells how much
//! memory of a map is whose, in `/proc/PID/smaps`; elsewhere the tests say that they measure nothing.

use super::Folder;
use defrost::base::DType;
use defrost::device::cpu::Cpu;
use defrost::models::{Backbone, Purpose, Spec};
use defrost::ops::Sgd;
use defrost::train::trainer::Part;
use defrost::train::{Clip, Optimizer, Trainer};
use defrost::weights::{Entry, Metadata, ModelFile, VERSION, save};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Weights of a size that keeps activations in range.
fn small(name: &str, len: usize) -> Vec<f32> {
    super::hashed(name, len).into_iter().map(|x| x as f32 / 32.0).collect()
}

/// Writes VGG16 without head at random: 14,714,688 parameters, no moving statistics.
fn write_vgg16(path: &Path) -> usize {
    let spec = Spec { features_only: true, ..Spec::new(Backbone::Vgg16, 0) };
    let graph = spec.build().unwrap().graph;
    let bytes = |name: &str, len| small(name, len).into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let tensors: Vec<_> = graph.params.iter().map(|&v| (graph.name(v), graph.ty(v).shape)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, shape)| (name, shape, bytes(name, shape.len()))).collect();
    let metadata = Metadata {
        backbone: "vgg16".into(),
        classes: vec![],
        exif: false,
        hidden: vec![],
        input_size: 224,
        pixels: "f32".into(),
        preprocess: Backbone::Vgg16.preprocess().to_string(),
        profile: Backbone::Vgg16.profile(),
        resize: "keras".into(),
        training: serde_json::Value::Null,
        version: VERSION,
    };
    save(path, &metadata, tensors.iter().map(|(name, shape, bytes)| Entry { name, shape: shape.dims(), bytes }), DType::F32).unwrap();
    4 * graph.params.iter().map(|&v| graph.ty(v).shape.len()).sum::<usize>()
}

/// Bytes of a process's private writable maps of a file; several numbers of `smaps` added up.
#[derive(Clone, Copy, Debug, Default)]
struct Smaps {
    size: usize,
    rss: usize,
    pss: usize,
    shared_clean: usize,
    private_dirty: usize,
}

/// What a process has of a file, mapped as weights; `None` where the system does not tell.
fn smaps(process: &str, file: &Path) -> Option<Smaps> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps")).ok()?;
    let (mut sum, mut ours) = (Smaps::default(), false);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.len() >= 5 && words[0].contains('-') {
            // The map that is only read (a safetensors file in use) is `r--s`.
            ours = words[1] == "rw-p" && line.ends_with(file.to_str().unwrap());
        } else if ours && words.len() == 3 {
            let bytes = 1024 * words[1].parse::<usize>().unwrap();
            match words[0] {
                "Size:" => sum.size += bytes,
                "Rss:" => sum.rss += bytes,
                "Pss:" => sum.pss += bytes,
                "Shared_Clean:" => sum.shared_clean += bytes,
                "Private_Dirty:" => sum.private_dirty += bytes,
                _ => (),
            }
        }
    }
    (sum.size > 0).then_some(sum)
}

const CLASSES: usize = 3;

/// VGG16 in training, planned for batches of two.
fn trainer(freeze: &str) -> Trainer<Cpu> {
    let spec = Spec { size: 32, purpose: Purpose::Train, freeze: freeze.into(), ..Spec::new(Backbone::Vgg16, CLASSES) };
    let sgd = Optimizer::Sgd(Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 });
    let mut trainer = Trainer::new(Cpu::new(2).unwrap(), spec, sgd, Clip::None, false).unwrap();
    trainer.program(2, Part::whole(2)).unwrap();
    trainer
}

/// Starts on a file's backbone with a new head of three classes.
fn start(trainer: &mut Trainer<Cpu>, file: &ModelFile) {
    let classes = ["a", "b", "c"].map(String::from);
    assert!(trainer.start(2, Some(file), &classes, 1).unwrap().contains("a new head for 3 classes starts"));
}

#[test]
fn training_copies_the_pages_that_it_changes() {
    let folder = Folder::new("mapped");
    let path = folder.at("vgg16.safetensors");
    let bytes = write_vgg16(&path);
    let before = std::fs::read(&path).unwrap();
    let file = ModelFile::open(&path).unwrap();
    let mut trainer = trainer("block5_conv2");
    start(&mut trainer, &file);
    // A new head and the end of the file share a page; one more may be touched where the map begins.
    let head = 4 * CLASSES * (512 + 1);
    let slack = 2 * 4096;
    let started = smaps("self", &path);

    let pixels: Vec<f32> = (0..2 * 32 * 32 * 3).map(|i| (i * i % 251) as f32).collect();
    let found = trainer.step((&pixels[..]).into(), &[0, 2], Part::whole(2), 1e-3, &|| true).unwrap();
    assert!(found.is_finite());
    assert!(std::fs::read(&path).unwrap() == before, "nothing flows back");
    let (session, program) = trainer.weights().unwrap();
    let unchanged = |name: &str| {
        let now = session.get(program, name).unwrap();
        now.iter().zip(small(name, now.len())).all(|(now, then)| *now == f64::from(then))
    };
    assert!(unchanged("block1_conv1/kernel") && unchanged("block5_conv2/kernel") && !unchanged("block5_conv3/kernel"));

    let (Some(started), Some(trained)) = (started, smaps("self", &path)) else {
        if cfg!(target_os = "linux") {
            panic!("the weights are not mapped");
        }
        return println!("not measured: this system has no /proc/self/smaps");
    };
    println!("{bytes} bytes of weights; started: {started:?}; trained: {trained:?}");
    assert!(started.size >= bytes && started.size < bytes + slack);
    assert!(started.rss <= head + slack, "opening touches nothing but the place of the head");
    let trainable = 4 * (3 * 3 * 512 * 512 + 512);
    assert!(trained.private_dirty <= trainable + head + slack, "block5_conv3 alone is copied");
    assert!(trained.private_dirty + slack >= trainable, "it is trained where it lies");
    assert!(trained.rss <= bytes + slack);
}

#[test]
fn a_weight_file_opens_in_milliseconds() {
    let folder = Folder::new("mapped-open");
    let path = folder.at("vgg16.safetensors");
    let bytes = write_vgg16(&path);
    let open = |mut trainer: Trainer<Cpu>| {
        let begun = Instant::now();
        start(&mut trainer, &ModelFile::open(&path).unwrap());
        begun.elapsed()
    };
    let best = (0..5).map(|_| open(trainer("none"))).min().unwrap();
    println!("{} MiB opened to be trained, a head started: {best:.1?}", bytes >> 20);
    assert!(cfg!(debug_assertions) || best < Duration::from_millis(50), "{best:?}");
}

/// `defrost train` on a frozen backbone, which goes on until it is killed.
struct Endless(Child);

impl Endless {
    fn start(folder: &Folder, out: &str) -> Self {
        let args = ["train", "data", "--backbone", "vgg16", "--weights", "vgg16.safetensors", "--input-size", "32", "--freeze", "all"];
        let more = ["--no-feature-cache", "--epochs", "1000000", "--val-split", "0", "--threads", "1", "--out", out];
        let mut command = Command::new(env!("CARGO_BIN_EXE_defrost"));
        command.current_dir(&folder.0).args(args).args(more).stdout(Stdio::null()).stderr(Stdio::null());
        Endless(command.spawn().unwrap())
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn two_processes_share_the_pages() {
    if !cfg!(target_os = "linux") {
        return println!("not measured: this system has no /proc/PID/smaps");
    }
    let folder = Folder::new("mapped-two");
    let path = folder.at("vgg16.safetensors");
    let bytes = write_vgg16(&path);
    for i in 0..3u8 {
        std::fs::create_dir_all(folder.at(&format!("data/{i}"))).unwrap();
        image::RgbImage::from_pixel(32, 32, image::Rgb([80 * i; 3])).save(folder.at(&format!("data/{i}/1.png"))).unwrap();
    }
    let mut both = ["first", "second"].map(|out| Endless::start(&folder, out));
    let begun = Instant::now();
    let shared = loop {
        std::thread::sleep(Duration::from_millis(20));
        let found = both.each_ref().map(|one| smaps(&one.0.id().to_string(), &path));
        if let [Some(first), Some(second)] = found
            && first.shared_clean.min(second.shared_clean) > bytes * 9 / 10
        {
            break [first, second];
        }
        assert!(both.iter_mut().all(|one| one.0.try_wait().unwrap().is_none()), "a run ended: {found:?}");
        assert!(begun.elapsed() < Duration::from_secs(120), "not shared: {found:?}");
    };
    println!("{bytes} bytes of weights in two processes: {shared:?}");
    for one in shared {
        assert!(one.private_dirty <= 4 * CLASSES * 513 + 2 * 4096, "a frozen network copies nothing but its head's pages: {one:?}");
        assert!(one.pss <= one.rss * 6 / 10, "each has half of what both have: {one:?}");
    }
}
