//! Files that are cut or changed at random, and those that lie about their size: each is decoded or named, nothing panics, and
//! memory and time stay within bounds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use defrost::data::permutation::SplitMix64;

/// Files made.
const MUTATIONS: usize = 200;
/// Address space of the program, threads' stacks included, in KiB: what 100 megapixels take, decoded one at a time.
const ADDRESS_SPACE: usize = 3 << 20;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("defrost-damaged-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("a")).unwrap();
        fs::create_dir_all(path.join("b")).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `defrost check FOLDER --json` in little memory, and the time that it took.
fn check(folder: &Path) -> (Output, Duration) {
    let start = Instant::now();
    let mut command = if cfg!(target_os = "linux") {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {ADDRESS_SPACE}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_defrost")]);
        shell
    } else {
        Command::new(env!("CARGO_BIN_EXE_defrost"))
    };
    let output = command.args(["check", "--json", folder.to_str().unwrap()]).output().unwrap();
    (output, start.elapsed())
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// Real pictures where they are there, and always some of every format that are drawn here.
fn originals() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/images");
    if shared.is_dir() {
        let mut paths = Vec::new();
        files_below(&shared, &mut paths);
        let ending = |p: &Path| p.extension().unwrap().to_string_lossy().to_lowercase();
        found.extend(paths.iter().step_by(41).map(|p| (ending(p), fs::read(p).unwrap())));
    } else {
        println!("skipped: real pictures, {} is absent", shared.display());
    }
    let picture = image::RgbImage::from_fn(90, 70, |x, y| image::Rgb([(x * y) as u8, (x * 5) as u8 ^ y as u8, (y * 3) as u8]));
    for (ending, format) in [
        ("jpg", image::ImageFormat::Jpeg),
        ("png", image::ImageFormat::Png),
        ("gif", image::ImageFormat::Gif),
        ("bmp", image::ImageFormat::Bmp),
    ] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        found.extend(std::iter::repeat_n((ending.to_string(), bytes.into_inner()), 4));
    }
    found
}

/// Cut somewhere, some bytes changed anywhere or in the headers, a range of zeros, or a piece of another place.
fn mutate(bytes: &mut Vec<u8>, random: &mut SplitMix64) {
    let mut below = |n: usize| random.below(n.max(1) as u64) as usize;
    let length = bytes.len();
    match below(5) {
        0 => bytes.truncate(below(length)),
        kind @ (1 | 2) => {
            let reach = if kind == 1 { length } else { length.min(600) };
            for _ in 0..1 + below(20) {
                let at = below(reach);
                bytes[at] ^= 1 + below(255) as u8;
            }
        }
        3 => {
            let at = below(length);
            let end = (at + 1 + below(4000)).min(length);
            bytes[at..end].fill(0);
        }
        _ => {
            let (from, to) = (below(length), below(length));
            let piece = bytes[from..(from + 1 + below(3000)).min(length)].to_vec();
            let end = (to + piece.len()).min(length);
            bytes[to..end].copy_from_slice(&piece[..end - to]);
        }
    }
}

#[test]
fn two_hundred_damaged_files_are_each_decoded_or_named() {
    let folder = Folder::new("mutations");
    let originals = originals();
    let mut random = SplitMix64::new(2024);
    for i in 0..MUTATIONS {
        let (ending, mut bytes) = originals[i % originals.len()].clone();
        mutate(&mut bytes, &mut random);
        fs::write(folder.0.join(["a", "b"][i % 2]).join(format!("{i:03}.{ending}")), bytes).unwrap();
    }
    let (output, took) = check(&folder.0);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let bad = report["bad"].as_array().unwrap();
    let decoded = report["images"].as_u64().unwrap() as usize;
    assert_eq!(decoded + bad.len(), MUTATIONS);
    assert!(bad.iter().all(|b| !b["reason"].as_str().unwrap().is_empty()));
    // A byte changed in a JPEG's data is another picture; one that is cut never is.
    assert!(decoded > 20 && bad.len() > 60, "{decoded} decoded, {} named", bad.len());
    println!("{decoded} decoded, {} named, in {took:.1?}", bad.len());
    assert!(took < Duration::from_secs(120), "{took:?}");
}

/// The 65535 x 65535 pixels of a JPEG header, a PNG whose 30000 x 3000 zeros are 90 KB, a GIF frame beyond its screen, a BMP.
#[test]
fn headers_that_lie_cost_neither_memory_nor_time() {
    let folder = Folder::new("bombs");
    let mut jpeg = Vec::new();
    image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode(&[7; 8 * 8 * 3], 8, 8, image::ExtendedColorType::Rgb8).unwrap();
    let frame = jpeg.windows(2).position(|m| m == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    let mut bmp = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(8, 8).write_to(&mut bmp, image::ImageFormat::Bmp).unwrap();
    let mut bmp = bmp.into_inner();
    bmp[18..26].copy_from_slice(&[0xff, 0x7f, 0, 0, 0xff, 0x7f, 0, 0]);
    let mut gif = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(8, 8).write_to(&mut gif, image::ImageFormat::Gif).unwrap();
    let mut gif = gif.into_inner();
    gif[6..10].fill(0xff);
    // Just within the bounds, so decoded: one at a time.
    let mut large = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(9990, 9990).write_to(&mut large, image::ImageFormat::Png).unwrap();
    let large = large.into_inner();
    for (i, bytes) in [&jpeg, &bmp, &gif, &large].into_iter().enumerate() {
        for copy in 0..2 {
            fs::write(folder.0.join(["a", "b"][copy]).join(format!("{i}{copy}.png")), bytes).unwrap();
        }
    }
    let (output, took) = check(&folder.0);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let bad = report["bad"].as_array().unwrap();
    assert_eq!((report["images"].as_u64(), bad.len()), (Some(2), 6), "{bad:?}");
    assert!(bad.iter().all(|b| b["reason"].as_str().unwrap().contains("at most 20000 a side")), "{bad:?}");
    println!("in {took:.1?}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}
