//! `defrost weights` against a server of this test's own: good and bad files, broken connections, servers of all manners.

use super::Folder;
use super::export::write_model;
use defrost::base::DType;
use defrost::models::export::keras_h5;
use defrost::models::{Backbone, Spec};
use defrost::train::opened::spec_of;
use defrost::weights::ModelFile;
use defrost::weights::digest::md5;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does with a request.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Serves the file, or the part that is asked for.
    Good,
    /// Breaks off after so many bytes of the body.
    Cut(usize),
    /// Serves the whole file whatever is asked for.
    NoRanges,
    /// As if the file had another version: the tag does not match.
    Changed,
    /// This status and nothing else.
    Status(&'static str),
    /// Half of the body, then silence.
    Stall,
}

/// A server that treats each request in its own manner, the last one from then on.
struct Server {
    port: u16,
    /// The `Range` and `If-Range` headers of every request.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(body: Vec<u8>, manners: &[Manner]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let (manners, log) = (manners.to_vec(), asked.clone());
        std::thread::spawn(move || {
            for (i, stream) in listener.incoming().enumerate() {
                let manner = manners[i.min(manners.len() - 1)];
                let _ = answer(stream.unwrap(), manner, &body, &log);
            }
        });
        Server { port, asked }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/weights.h5", self.port)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, manner: Manner, body: &[u8], log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut conditions = Vec::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        conditions.extend((line.starts_with("range") || line.starts_with("if-range")).then_some(line));
    }
    conditions.sort();
    conditions.reverse();
    log.lock().unwrap().push(conditions.join(", "));
    let tag = if matches!(manner, Manner::Changed) { "\"second\"" } else { "\"first\"" };
    let from = conditions.iter().find_map(|c| c.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let same = conditions.iter().all(|c| !c.starts_with("if-range") || c.ends_with(tag));
    let from = from.filter(|_| same && !matches!(manner, Manner::NoRanges)).unwrap_or(0);
    let status = match manner {
        Manner::Status(status) => status,
        _ if from > 0 => "206 Partial Content",
        _ => "200 OK",
    };
    let sent = if matches!(manner, Manner::Status(_)) { &body[..0] } else { &body[from..] };
    let range = format!("Content-Range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: {tag}\r\n{}Connection: close\r\n\r\n",
        sent.len(),
        if from > 0 { &range } else { "" }
    );
    stream.write_all(head.as_bytes())?;
    match manner {
        Manner::Cut(bytes) => stream.write_all(&sent[..bytes.min(sent.len())]),
        Manner::Stall => {
            stream.write_all(&sent[..sent.len() / 2])?;
            // In a thread of its own, so that the server answers the next request meanwhile.
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(60));
                drop(stream);
            });
            Ok(())
        }
        _ => stream.write_all(sent),
    }
}

/// A file as Keras would serve it, of hashed weights, its sum, and the folder of the test.
struct Case {
    folder: Folder,
    file: PathBuf,
    md5: String,
}

impl Case {
    fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let (model, file) = (folder.at("model.safetensors"), folder.at("keras.h5"));
        write_model(&model, &Spec { features_only: true, ..Spec::new(Backbone::DenseNet121, 0) }, &[], DType::F32);
        let opened = ModelFile::open(&model).unwrap();
        keras_h5(&opened, &spec_of(&opened).unwrap().build().unwrap(), false, &file).unwrap();
        Case { md5: md5(&file).unwrap(), folder, file }
    }

    fn serve(&self, manners: &[Manner]) -> Server {
        Server::new(std::fs::read(&self.file).unwrap(), manners)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_defrost"));
        for proxy in ["ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
            command.env_remove(proxy);
        }
        command.args(args).env("KERAS_HOME", self.folder.at("keras-home")).env("DEFROST_WEIGHTS", self.cache());
        command
    }

    fn defrost(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn fetch(&self, server: &Server, more: &[&str]) -> Output {
        let url = server.url();
        let args = [&["weights", "fetch", "densenet121", "--url", &url, "--md5", &self.md5, "--timeout", "2"][..], more].concat();
        self.defrost(&args)
    }

    fn cache(&self) -> PathBuf {
        self.folder.at("cache")
    }

    /// The converted model, whose tensors must be those of the file; nothing else but its record and the lock may be left.
    fn check_done(&self) {
        let done = std::fs::read(self.cache().join("densenet121.safetensors")).unwrap();
        let model = std::fs::read(self.folder.at("model.safetensors")).unwrap();
        let data = |bytes: &[u8]| bytes[8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize..].to_vec();
        assert!(data(&done) == data(&model), "the tensors differ");
        assert_eq!(names(&self.cache()), [".densenet121.lock", "densenet121.safetensors", "densenet121.safetensors.sha256"]);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).to_string() + &String::from_utf8_lossy(&output.stdout)
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

#[test]
fn a_good_file_is_fetched_once_found_and_verified() {
    let case = Case::new("fetch-good");
    let server = case.serve(&[Manner::Good]);
    let list = |state: &str| {
        let listed = text(&case.defrost(&["weights", "list", "--json"]));
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        assert_eq!((listed[0]["state"].as_str(), listed[3]["state"].as_str()), (Some("absent"), Some(state)), "{listed}");
    };
    list("absent");
    let missing = case.defrost(&["weights", "verify", "densenet121"]);
    assert!(code(&missing) == 2 && text(&missing).contains("weights fetch densenet121"), "{}", text(&missing));
    let output = case.fetch(&server, &[]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    case.check_done();
    list("ready");
    // The second time nothing is asked for.
    let again = case.fetch(&server, &[]);
    assert!(code(&again) == 0 && text(&again).contains("ready") && server.asked().len() == 1, "{}", text(&again));
    let info = text(&case.defrost(&["weights", "info", "densenet121"]));
    assert!(info.contains("7,037,504 numbers") && info.contains(&case.md5) && info.contains("epsilon 1.001e-5"), "{info}");

    // Every byte counts.
    let path = case.cache().join("densenet121.safetensors");
    assert_eq!(code(&case.defrost(&["weights", "verify", "all"])), 0);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = case.defrost(&["weights", "verify", "densenet121"]);
    assert!(code(&damaged) == 2 && text(&damaged).contains("SHA-256"), "{}", text(&damaged));
    let output = case.fetch(&server, &[]);
    assert!(code(&output) == 0 && text(&output).contains("made anew"), "{}", text(&output));
    case.check_done();
}

#[test]
fn a_cut_download_is_resumed_where_it_ended() {
    let case = Case::new("fetch-cut");
    let server = case.serve(&[Manner::Cut(5_000_000), Manner::Good]);
    let output = case.fetch(&server, &[]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    assert_eq!(server.asked(), ["", "range: bytes=5000000-, if-range: \"first\""]);
    case.check_done();

    // Also by the next command, after one that gave up.
    let case = Case::new("fetch-cut-later");
    let server = case.serve(&[Manner::Cut(3_000_000), Manner::Status("503 Service Unavailable"), Manner::Good]);
    let output = case.fetch(&server, &["--retries", "1"]);
    assert!(code(&output) == 3 && text(&output).contains("goes on from there"), "{}", text(&output));
    let listed = text(&case.defrost(&["weights", "list"]));
    assert!(listed.contains("partly downloaded"), "{listed}");
    assert!(!case.cache().join("densenet121.safetensors").exists());
    let output = case.fetch(&server, &[]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    assert_eq!(server.asked().last().unwrap(), "range: bytes=3000000-, if-range: \"first\"");
    case.check_done();
}

#[test]
fn servers_without_ranges_or_with_another_version_start_anew() {
    for manner in [Manner::NoRanges, Manner::Changed] {
        let case = Case::new(&format!("fetch-anew-{manner:?}"));
        let server = case.serve(&[Manner::Cut(4_000_000), manner]);
        let output = case.fetch(&server, &[]);
        assert!(code(&output) == 0 && server.asked().len() == 2, "{manner:?}: {}", text(&output));
        case.check_done();
    }
    // A part that came from something else: the whole does not have the sum, and is brought anew once.
    let case = Case::new("fetch-patched");
    let server = case.serve(&[Manner::Good]);
    std::fs::create_dir_all(case.cache()).unwrap();
    let part = case.cache().join("densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5.part");
    std::fs::write(&part, vec![7; 1_000_000]).unwrap();
    std::fs::write(part.with_extension("origin"), format!("{}\n\"first\"\n", server.url())).unwrap();
    let output = case.fetch(&server, &[]);
    assert!(code(&output) == 0 && text(&output).contains("downloaded anew"), "{}", text(&output));
    assert_eq!(server.asked(), ["range: bytes=1000000-, if-range: \"first\"", ""]);
    case.check_done();
}

#[test]
fn what_is_wrong_is_said_and_leaves_nothing_behind() {
    let case = Case::new("fetch-wrong");
    let mut wrong = std::fs::read(&case.file).unwrap();
    wrong[20_000_000] ^= 1;
    let server = Server::new(wrong, &[Manner::Good]);
    let output = case.fetch(&server, &[]);
    assert!(code(&output) == 2 && text(&output).contains("has the MD5") && text(&output).contains(&case.md5), "{}", text(&output));
    assert_eq!(names(&case.cache()), [".densenet121.lock"]);

    for (status, expected, requests) in [("404 Not Found", 2, 1), ("403 Forbidden", 2, 1), ("500 Internal Server Error", 3, 3)] {
        let server = case.serve(&[Manner::Status(status)]);
        let output = case.fetch(&server, &["--retries", "2"]);
        assert!(code(&output) == expected && text(&output).contains(status), "{}", text(&output));
        // Of what helps: not the address that was just tried.
        let advice = text(&output).lines().last().unwrap().to_string();
        assert!(advice.contains("is the address right") && advice.contains("put https://storage.googleapis.com/"), "{advice}");
        assert_eq!(server.asked().len(), requests);
    }
    // The official file has another size: seen before a byte of it is read.
    let server = case.serve(&[Manner::Good]);
    let output = case.defrost(&["weights", "fetch", "densenet121", "--url", &server.url()]);
    assert!(code(&output) == 2 && text(&output).contains("29084464"), "{}", text(&output));
    // The right sum of the wrong network.
    let args = ["weights", "fetch", "vgg16", "--url", &server.url(), "--md5", &case.md5];
    let output = case.defrost(&args);
    assert!(code(&output) == 2 && text(&output).contains("block1_conv1"), "{}", text(&output));
    assert!(!case.cache().join("vgg16.safetensors").exists());
    // Nobody listens.
    let output = case.defrost(&["weights", "fetch", "vgg16", "--url", "http://127.0.0.1:9/w.h5", "--retries", "0"]);
    assert!(code(&output) == 3 && text(&output).contains("127.0.0.1:9/w.h5: Connection refused"), "{}", text(&output));
    assert_eq!(code(&case.defrost(&["weights", "fetch", "all", "--url", "http://127.0.0.1:9/w.h5"])), 2);
    let output = case.defrost(&["weights", "fetch", "vgg16", "--url", "mirror/w.h5"]);
    assert!(code(&output) == 2 && text(&output).contains("begins with https://"), "{}", text(&output));
    // The official address out of reach, by a proxy that is none.
    let output = case.command(&["weights", "fetch", "vgg16", "--retries", "0"]).env("HTTPS_PROXY", "http://127.0.0.1:9").output().unwrap();
    assert!(code(&output) == 3 && text(&output).contains("run the same command, or name a mirror with --url"), "{}", text(&output));
}

#[test]
fn passing_trouble_passes() {
    let case = Case::new("fetch-trouble");
    let server = case.serve(&[Manner::Status("500 Internal Server Error"), Manner::Status("429 Too Many Requests"), Manner::Good]);
    let output = case.fetch(&server, &[]);
    assert!(code(&output) == 0 && server.asked().len() == 3, "{}", text(&output));
    case.check_done();

    // A connection that falls silent is given up after --timeout, and the rest is asked for.
    let case = Case::new("fetch-stall");
    let server = case.serve(&[Manner::Stall, Manner::Good]);
    let start = std::time::Instant::now();
    let output = case.fetch(&server, &[]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    assert!(server.asked()[1].starts_with("range: bytes=") && start.elapsed() < Duration::from_secs(40), "{:?}", server.asked());
    case.check_done();
}

#[test]
fn two_at_once_fetch_once_and_keras_own_file_is_used() {
    let case = Case::new("fetch-two");
    let server = case.serve(&[Manner::Good]);
    let url = server.url();
    let args = ["weights", "fetch", "densenet121", "--url", &url, "--md5", &case.md5];
    let both = [case.command(&args).spawn().unwrap(), case.command(&args).spawn().unwrap()];
    for child in both {
        assert_eq!(code(&child.wait_with_output().unwrap()), 0);
    }
    assert_eq!(server.asked().len(), 1);
    case.check_done();

    // Keras's folder is looked at before the network; a file there with another sum is passed over.
    let case = Case::new("fetch-keras");
    let models = case.folder.at("keras-home").join("models");
    std::fs::create_dir_all(&models).unwrap();
    let own = models.join("densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5");
    std::fs::copy(&case.file, &own).unwrap();
    let server = case.serve(&[Manner::Status("404 Not Found")]);
    let output = case.fetch(&server, &[]);
    assert!(code(&output) == 0 && text(&output).contains("converted from") && server.asked().is_empty(), "{}", text(&output));
    case.check_done();
    std::fs::remove_file(case.cache().join("densenet121.safetensors")).unwrap();
    std::fs::write(&own, "not what it was").unwrap();
    let output = case.fetch(&server, &[]);
    assert!(code(&output) == 2 && text(&output).contains("passed over"), "{}", text(&output));
}

#[test]
fn training_without_weights_says_what_brings_them() {
    let case = Case::new("fetch-none");
    let photos = case.folder.at("photos");
    for class in ["a", "b"] {
        std::fs::create_dir_all(photos.join(class)).unwrap();
        for i in 0..3 {
            image::RgbImage::from_pixel(40, 40, image::Rgb([i * 50, 9, 9])).save(photos.join(class).join(format!("{i}.png"))).unwrap();
        }
    }
    let (photos, out) = (photos.display().to_string(), case.folder.at("run").display().to_string());
    let train = ["train", &photos, "--backbone", "densenet121", "--input-size", "32", "--freeze", "all", "--epochs", "1", "--out", &out];
    let output = case.defrost(&train);
    let said = text(&output);
    assert!(code(&output) == 2 && said.contains("defrost weights fetch densenet121"), "{said}");
    assert!(said.contains("storage.googleapis.com") && said.contains("keras-home"), "{said}");
    // And with them it trains on them.
    assert_eq!(code(&case.fetch(&case.serve(&[Manner::Good]), &[])), 0);
    let output = case.defrost(&train);
    assert!(code(&output) == 0 && text(&output).contains("backbone kept; a new head"), "{}", text(&output));

    // A variance below zero makes every feature NaN: said before the first step, with the layer, and no epoch is trained.
    let path = case.folder.at("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&(-1.0f32).to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let (weights, out) = (path.display().to_string(), case.folder.at("spoilt").display().to_string());
    let args = [&train[..train.len() - 1], &[&out, "--weights", &weights]].concat();
    let said = text(&case.defrost(&args));
    assert!(said.contains("features under the frozen backbone are not finite; that begins in bn"), "{said}");
}
