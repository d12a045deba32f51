use super::*;
use crate::data::resize::Resize;
use crate::data::testing::{Folder, png, shared};
use std::fs;
use std::path::Path;
use std::sync::Mutex;

/// Two classes with images of noise, and a file that is none.
fn collection(name: &str) -> Folder {
    let f = Folder::new(name);
    let mut random = crate::data::permutation::SplitMix64::new(5);
    for i in 0..9u32 {
        let (width, height) = (5 + i % 3, 4 + i % 4);
        let pixels: Vec<u8> = (0..width * height * 3).map(|_| random.next_u64() as u8).collect();
        f.write(&format!("photos/{}/{i}.png", if i < 4 { "a" } else { "b" }), &png(width, height, &pixels));
    }
    f.write("photos/a/none.jpg", b"<html>");
    f
}

fn listing(f: &Folder) -> Listing {
    Listing::read(&f.path().join("photos"), None).unwrap()
}

/// Loads, and notes the stages that there were.
fn loaded(f: &Folder, how: &Loading) -> Result<(Dataset, Vec<Stage>)> {
    let stages = Mutex::new(Vec::new());
    let note = |stage, _, _| {
        let mut stages = stages.lock().unwrap();
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    };
    let data = load(&listing(f), how, &note)?;
    Ok((data, stages.into_inner().unwrap()))
}

fn on_disk(f: &Folder, options: Options) -> Loading {
    Loading { keep: Keep::Disk, cache_dir: Some(f.path().join("cache")), skip_bad: true, ..Loading::new(options) }
}

fn images(data: &Dataset) -> Vec<Vec<u32>> {
    let one = |i| {
        let mut out = vec![0.0; data.options().image_len()];
        data.copy_image(i, &mut out);
        out.iter().map(|v: &f32| v.to_bits()).collect()
    };
    (0..data.len()).map(one).collect()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    found.sort();
    found
}

#[test]
fn memory_and_disk_hold_the_same_bits_and_a_second_run_decodes_nothing() {
    let f = collection("load-bits");
    for pixels in Pixels::ALL {
        let options = Options { pixels, ..Options::keras(6) };
        let memory = load(&listing(&f), &Loading { keep: Keep::Memory, skip_bad: true, ..Loading::new(options) }, &|_, _, _| ()).unwrap();
        let (made, first) = loaded(&f, &on_disk(&f, options)).unwrap();
        let (found, second) = loaded(&f, &on_disk(&f, options)).unwrap();
        assert_eq!((first, second), (vec![Stage::Decoding], vec![Stage::Reading, Stage::Verifying]));
        assert_eq!((images(&memory), &images(&made)), (images(&found), &images(&found)));
        // All that is known of the images is the same too, the bad one included.
        assert!((memory.len(), memory.bad.len(), found.bad[0].path.as_str()) == (9, 1, "a/none.jpg"));
        assert!(*memory == *made && *memory == *found);
        assert!(memory.cache_file().is_none() && found.cache_file().is_some());
    }
}

#[test]
fn a_cache_file_is_of_these_bytes_made_in_this_way() {
    let f = collection("load-key");
    let mut kept = 0;
    let mut is_new = |options| {
        loaded(&f, &on_disk(&f, options)).unwrap();
        let before = std::mem::replace(&mut kept, files(&f.path().join("cache")).len());
        kept == before + 1
    };
    let options = Options::keras(6);
    assert!(is_new(options) && !is_new(options));
    assert!(is_new(Options { size: 7, ..options }) && is_new(Options { resize: Resize::Nearest, ..options }));
    assert!(is_new(Options { pixels: Pixels::U8, ..options }) && is_new(Options { exif: true, ..options }));
    f.write("photos/a/0.png", &png(2, 2, &[8; 12]));
    assert!(is_new(options) && !is_new(options));
    // What the bad file holds counts as well: it may be mended.
    f.write("photos/a/none.jpg", b"<html></html>");
    assert!(is_new(options));
}

#[test]
fn a_damaged_cache_is_noticed_wherever_it_is_and_made_anew() {
    let f = collection("load-damage");
    let how = on_disk(&f, Options::keras(6));
    let expected = images(&loaded(&f, &how).unwrap().0);
    let path = files(&f.path().join("cache")).remove(0);
    let whole = fs::read(&path).unwrap();
    let broken = |bytes: &[u8]| {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let (data, stages) = loaded(&f, &how).unwrap();
        assert!(stages.contains(&Stage::Decoding), "{stages:?}");
        assert!(data.warnings.len() == 1 && data.warnings[0].contains("damaged"), "{:?}", data.warnings);
        assert_eq!(images(&data), expected);
        drop(data);
        assert!(fs::read(&path).unwrap() == whole, "made anew");
    };
    for length in [0, 1, 71, 4000, 5000, whole.len() / 2, whole.len() - 1] {
        broken(&whole[..length]);
    }
    broken(&[&whole[..], &[0]].concat());
    // A byte of the header, of a record, of the first and of the last image.
    for at in [0, 9, 13, 40, 64, 70, 72, 100, 1200, 12288, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        broken(&bytes);
    }
}

#[test]
fn caches_that_were_used_longest_ago_make_room() {
    let f = collection("load-room");
    let size = |size| on_disk(&f, Options::keras(size));
    let cache = f.path().join("cache");
    let named = |start: &str| files(&cache).iter().any(|file| file.file_name().unwrap().to_string_lossy().starts_with(start));
    for (at, hours) in [(6, 3), (7, 2), (8, 1)] {
        let path = loaded(&f, &size(at)).unwrap().0.cache_file().unwrap().to_path_buf();
        let used = std::time::SystemTime::now() - std::time::Duration::from_secs(3600 * hours);
        fs::File::open(path).unwrap().set_modified(used).unwrap();
    }
    f.write("cache/of-the-user.txt", &[0; 5000]);
    // The oldest is opened once more, so that the next one is the first to go.
    assert!(loaded(&f, &size(6)).unwrap().0.notes.is_empty());
    let held: u64 = files(&cache).iter().filter(|p| p.extension().unwrap() == "pixels").map(|p| fs::metadata(p).unwrap().len()).sum();
    let notes = loaded(&f, &Loading { limit: held, ..size(5) }).unwrap().0.notes;
    assert!(notes.len() == 1 && notes[0].starts_with("pixels: 1 pixel cache ("), "{notes:?}");
    assert_eq!(["5-", "6-", "7-", "8-", "of-the-user"].map(named), [true, true, false, true, true]);
    // Less than the new one needs: all others go, and it is written all the same.
    assert!(loaded(&f, &Loading { limit: 1, ..size(9) }).unwrap().0.notes[0].contains("3 pixel caches"));
    assert_eq!(["5-", "6-", "8-", "9-", "of-the-user"].map(named), [false, false, false, true, true]);
}

#[test]
fn two_at_once_do_each_other_no_harm() {
    let f = collection("load-two");
    let how = on_disk(&f, Options::keras(6));
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| images(&loaded(&f, &how).unwrap().0))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(results.windows(2).all(|two| two[0] == two[1]));
    let left = files(&f.path().join("cache"));
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn what_ends_early_leaves_nothing_and_what_others_left_is_swept() {
    let f = collection("load-sweep");
    let how = Loading { skip_bad: false, ..on_disk(&f, Options::keras(6)) };
    assert!(loaded(&f, &how).err().unwrap().to_string().contains("a/none.jpg: the content is a web page"));
    assert!(files(&f.path().join("cache")).is_empty());
    for name in ["cache/.7-0.tmp", "cache/.8-0.tmp"] {
        f.write(name, b"unfinished");
    }
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(f.path().join("cache/.7-0.tmp")).unwrap().set_modified(old).unwrap();
    loaded(&f, &Loading { skip_bad: true, ..how }).unwrap();
    let left = files(&f.path().join("cache"));
    assert!(left.len() == 2 && left[0].ends_with(".8-0.tmp"), "{left:?}");
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_of_the_machine_with_advice() {
    let f = collection("load-nowhere");
    f.write("cache", b"a file");
    let error = loaded(&f, &on_disk(&f, Options::keras(6))).err().unwrap();
    assert!(error.exit_code() == 3 && error.to_string().contains("--cache-dir"), "{error}");
}

#[test]
fn pixels_go_to_disk_when_memory_is_needed_for_something_else() {
    let how = Loading { reserve: u64::MAX / 2, ..Loading::new(Options::keras(6)) };
    assert_eq!(how.fits(1), memory::available().is_none());
    assert!(Loading::new(Options::keras(6)).fits(1));
}

#[test]
fn too_little_memory_is_an_error_of_the_machine() {
    let e = allocate::<f32>(1 << 50).err().unwrap();
    assert_eq!(e.exit_code(), 3);
    assert!(e.to_string().contains("--pixel-cache disk") && e.to_string().contains("--pixels u8"), "{e}");
}

#[test]
fn nothing_but_bad_files_is_an_error_and_a_thousand_are_named() {
    let f = Folder::new("load-bad");
    for i in 0..1002 {
        f.touch(&[&format!("photos/{}/{i:04}.png", if i % 2 == 0 { "a" } else { "b" })]);
    }
    let error = loaded(&f, &Loading { skip_bad: true, ..Loading::new(Options::keras(6)) }).err().unwrap().to_string();
    assert!(error.contains("1002 of 1002 images cannot be read") && error.contains("and 2 more"), "{error}");
    assert_eq!(error.matches("the file is empty").count(), 1000);
}

#[test]
fn real_images_have_the_same_bits_from_a_file() {
    let Some(path) = shared("data/images/chest-xray-3") else { return };
    let f = Folder::new("load-real");
    let listing = Listing::read(&path, None).unwrap();
    let some: Vec<usize> = (0..listing.files.len()).step_by(6).collect();
    let listing = listing.only(&some);
    let memory = load(&listing, &Loading::new(Options::keras(48)), &|_, _, _| ()).unwrap();
    let disk = load(&listing, &on_disk(&f, Options::keras(48)), &|_, _, _| ()).unwrap();
    assert!(images(&memory) == images(&disk) && *memory == *disk);
}
