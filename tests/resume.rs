//! A run that is stopped, in whatever way, and resumed ends with the same bits as one that was left alone.

mod fixture;

use defrost::train::tfevents::{Event, What, records};
use fixture::Data;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Eight images of each class.
fn data(name: &str) -> Data {
    Data::new(&format!("resume-{name}"), 8)
}

impl Data {
    fn train(&self, out: &str, flags: &[&str]) -> Command {
        let mut command = defrost(&["train"]);
        // One thread: a pool's threads wait for each other where others compute too.
        command.arg(self.path("photos")).arg("--out").arg(self.path(out)).args(["--weights", "random", "--threads", "1"]).args(flags);
        command
    }

    fn resume(&self, out: &str) -> Command {
        let mut command = defrost(&["resume"]);
        command.arg(self.path(out));
        command
    }
}

fn defrost(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_defrost"));
    command.args(args).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ok(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    output
}

fn fails(mut command: Command, code: i32, parts: &[&str]) {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", text(&output));
    parts.iter().for_each(|part| assert!(text(&output).contains(part), "{part}: {}", text(&output)));
}

/// Every file of a run by name, without what tells the time: the seconds of a history, the text of a state (its tensors stay).
fn files(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: fs::DirEntry| {
        let (name, bytes) = (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
        let bytes = match name.as_str() {
            "history.csv" => {
                let text = String::from_utf8(bytes).unwrap();
                text.lines().flat_map(|l| [l.rsplit_once(',').unwrap().0, "\n"]).collect::<String>().into_bytes()
            }
            "state.safetensors" => bytes[8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize..].to_vec(),
            _ => bytes,
        };
        (name, bytes)
    };
    let (folders, plain): (Vec<_>, Vec<_>) = fs::read_dir(run).unwrap().map(Result::unwrap).partition(|entry| entry.path().is_dir());
    let mut files: BTreeMap<String, Vec<u8>> = plain.into_iter().map(file).collect();
    for folder in folders {
        assert_eq!(folder.file_name(), "tensorboard");
        files.insert("tensorboard".into(), scalars(&folder.path()).into_bytes());
    }
    files
}

/// The scalars that TensorBoard shows of a run, without the time; each is there once and in the order of its steps.
fn scalars(folder: &Path) -> String {
    let mut text = String::new();
    for subset in ["train", "validation"] {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder.join(subset)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for event in paths.iter().flat_map(|path| owned(&fs::read(path).unwrap())) {
            let What::Scalar { tag, value } = event.what else { continue };
            assert_eq!(last.insert(tag.clone(), event.step).unwrap_or(0) + 1, event.step, "{tag}");
            text += &format!("{subset} {tag} {} {value}\n", event.step);
        }
    }
    text
}

/// The events of a whole file.
fn owned(bytes: &[u8]) -> Vec<Event> {
    let records = records(bytes);
    assert_eq!(records.iter().map(|(record, _)| record.len()).sum::<usize>(), bytes.len());
    records.into_iter().map(|(_, event)| event).collect()
}

fn same(run: &Path, reference: &Path) {
    let (found, expected) = (files(run), files(reference));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{}", run.display());
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{} differs in {}", name, run.display());
    }
}

const DENSE: [&str; 6] = ["--backbone", "densenet121", "--input-size", "32", "--batch-size", "4"];
const VGG: [&str; 6] = ["--backbone", "vgg16", "--input-size", "32", "--batch-size", "6"];

fn flags<'a>(network: &[&'a str], epochs: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [network, &["--epochs", epochs], more].concat()
}

/// SplitMix64.
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*random ^ (*random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Kills runs with SIGKILL `kills` times in all, at moments spread evenly over the time that a whole run takes; each is taken up
/// again until it is done, and is then held against the run that was left alone. On a machine that is no longer as busy as
/// it was, a run ends before its moment: then that time is the one to go by.
fn killed(name: &str, flags: &[&str], kills: usize, mut random: u64) {
    let data = data(name);
    let start = Instant::now();
    ok(data.train("alone", flags));
    let mut whole = start.elapsed();
    let (mut left, mut runs) = (kills, 0);
    while left > 0 {
        runs += 1;
        let out = format!("run{runs}");
        loop {
            let begun = data.path(&out).join("config.toml").exists();
            let mut command = if begun { data.resume(&out) } else { data.train(&out, flags) };
            let moment = Duration::from_nanos(next(&mut random) % whole.as_nanos() as u64);
            let start = Instant::now();
            let mut child = command.stderr(Stdio::null()).spawn().unwrap();
            if left > 0 && !ends_within(&mut child, moment) {
                child.kill().unwrap();
                left -= 1;
                println!("{name}: run {runs} killed after {moment:?}");
            }
            let status = child.wait().unwrap();
            if status.code().is_some() {
                assert!(status.success(), "{out}: {status}");
                whole = if begun { whole } else { start.elapsed() };
                break;
            }
        }
        same(&data.path(&out), &data.path("alone"));
        fs::remove_dir_all(data.path(&out)).unwrap();
    }
}

fn ends_within(child: &mut Child, time: Duration) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1).min(end - Instant::now()));
    }
    child.try_wait().unwrap().is_some()
}

#[test]
fn unfrozen_with_momentum_killed_at_18_random_moments() {
    killed("momentum", &flags(&DENSE, "2", &["--momentum", "0.9", "--tensorboard"]), 18, 1);
}

#[test]
fn partly_frozen_with_adam_saving_every_step_killed_at_14_random_moments() {
    killed(
        "adam",
        &flags(&DENSE, "2", &["--optimizer", "adam", "--freeze", "conv5_block8_concat", "--augment", "--save-every", "0"]),
        14,
        2,
    );
}

#[test]
fn kept_features_saving_every_step_killed_at_14_random_moments() {
    killed(
        "features",
        &flags(&DENSE, "2", &["--momentum", "0.9", "--nesterov", "--freeze", "all", "--save-every", "0", "--tensorboard"]),
        14,
        3,
    );
}

#[test]
fn kept_features_whose_files_wait_killed_at_8_random_moments() {
    killed("waiting", &flags(&DENSE, "150", &["--momentum", "0.9", "--freeze", "all", "--tensorboard"]), 8, 5);
}

/// The epoch that a model file of a run says it is of.
#[cfg(unix)]
fn epoch_of(model: &Path) -> usize {
    let bytes = fs::read(model).unwrap();
    let header = &bytes[8..8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize];
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let ours: serde_json::Value = serde_json::from_str(header["__metadata__"]["defrost"].as_str().unwrap()).unwrap();
    ours["training"]["epoch"].as_u64().unwrap() as usize
}

/// Epochs of milliseconds, whose files wait for each other: those on the disk are of one epoch however the run ends, and an
/// interrupted run has lost none.
#[cfg(unix)]
#[test]
fn files_that_wait_are_of_one_epoch_and_written_when_the_run_stops() {
    let data = data("kept");
    let frozen = ["--momentum", "0.9", "--freeze", "all"];
    for (name, until, signal) in [("kill", "epoch 3/", "KILL"), ("int", "epoch 9/", "INT")] {
        let (code, said) = interrupted(data.train(name, &flags(&DENSE, ENDLESS, &frozen)), until, &[signal]);
        let history = fs::read_to_string(data.path(name).join("history.csv")).unwrap();
        let accuracies: Vec<f64> = history.lines().skip(1).map(|l| l.split(',').nth(4).unwrap().parse().unwrap()).collect();
        let best = (0..accuracies.len()).rev().max_by(|&a, &b| accuracies[a].total_cmp(&accuracies[b])).unwrap() + 1;
        let models = ["last", "best"].map(|model| epoch_of(&data.path(name).join(format!("{model}.safetensors"))));
        assert_eq!(models, [accuracies.len(), best], "{name}: {history}");
        if signal == "INT" {
            assert!(code == Some(130) && said.contains("the state is saved") && accuracies.len() >= 9, "{said}");
        }
        let alone = ending(&data, name, &DENSE, &frozen);
        let resumed = text(&ok(data.resume(name)));
        let steps = resumed.split("resumed after ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse::<usize>().unwrap();
        // 13 training images in batches of 4. An interrupt may come within an epoch, after its last batch at the latest.
        let (ended, within) = (4 * accuracies.len(), if signal == "INT" { 4 } else { 0 });
        assert!((ended..=ended + within).contains(&steps), "{resumed}");
        same(&data.path(name), &alone);
    }
}

#[test]
fn vgg_killed_at_4_random_moments() {
    killed("vgg", &flags(&VGG, "2", &[]), 4, 4);
}

/// Sends a signal by name.
#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    assert!(Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().unwrap().success());
}

/// Starts a command, waits until a line of its stderr contains `until`, sends `signals`, and returns the exit code with what
/// else was said.
#[cfg(unix)]
fn interrupted(mut command: Command, until: &str, signals: &[&str]) -> (Option<i32>, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let found = lines.by_ref().any(|line| line.unwrap().contains(until));
    assert!(found, "{until:?} never came");
    signals.iter().for_each(|name| signal(&child, name));
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    (child.wait().unwrap().code(), rest.join("\n"))
}

/// Epochs that no run comes to the end of: a signal finds it under way, however late a busy machine delivers it.
#[cfg(unix)]
const ENDLESS: &str = "1000000";

/// Has an endless run end with the epoch that it was interrupted in; a run of so many epochs that was left alone.
#[cfg(unix)]
fn ending(data: &Data, run: &str, network: &[&str], more: &[&str]) -> PathBuf {
    let (config, history) = (data.path(run).join("config.toml"), fs::read_to_string(data.path(run).join("history.csv")));
    let epochs = history.map_or(1, |text| text.lines().count()).to_string();
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(&format!("\nepochs = {ENDLESS}\n")), "{text}");
    fs::write(&config, text.replace(&format!("\nepochs = {ENDLESS}\n"), &format!("\nepochs = {epochs}\n"))).unwrap();
    let alone = format!("alone{epochs}");
    if !data.path(&alone).exists() {
        ok(data.train(&alone, &flags(network, &epochs, more)));
    }
    data.path(&alone)
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_itself_and_goes_on() {
    let data = data("interrupt");
    let momentum = ["--momentum", "0.9"];
    for (name, signals) in [("int", &["INT"][..]), ("term", &["TERM"]), ("twice", &["INT", "INT"])] {
        let (code, said) = interrupted(data.train(name, &flags(&DENSE, ENDLESS, &momentum)), "epoch 1/", signals);
        assert_eq!(code, Some(130), "{said}");
        let alone = ending(&data, name, &DENSE, &momentum);
        let out = ok(data.resume(name));
        // A second signal may come before the first state is written.
        if signals.len() == 1 {
            assert!(said.contains("the state is saved") && said.contains("defrost resume"), "{said}");
            assert!(text(&out).contains("resumed after"), "{}", text(&out));
        }
        same(&data.path(name), &alone);
        let again = ok(data.resume(name));
        assert!(text(&again).contains("the run has ended"), "{}", text(&again));
    }
}

#[cfg(unix)]
#[test]
fn before_the_first_step_an_interrupted_run_starts_anew() {
    let data = data("early");
    let (network, frozen) = (["--backbone", "densenet121", "--input-size", "96"], ["--freeze", "all"]);
    let (code, said) = interrupted(data.train("run", &flags(&network, ENDLESS, &frozen)), "device:", &["INT"]);
    assert_eq!(code, Some(130), "{said}");
    let alone = ending(&data, "run", &network, &frozen);
    ok(data.resume("run"));
    same(&data.path("run"), &alone);
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_old_state_whole_and_a_run_may_be_given_more_epochs() {
    let data = data("full");
    let (flags, one) = (flags(&DENSE, "2", &["--momentum", "0.9"]), flags(&DENSE, "1", &["--momentum", "0.9"]));
    ok(data.train("alone", &flags));
    // A limit for the size of a file, in blocks of 512 bytes: a model fits (28 MB), a state with its velocity (56 MB) does not.
    let limited = |command: Command| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; ulimit -f 80000; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
        shell
    };
    fails(limited(data.train("first", &flags)), 3, &["state.safetensors", "defrost resume"]);
    assert!(!data.path("first").join("state.safetensors").exists());
    ok(data.resume("first"));
    same(&data.path("first"), &data.path("alone"));

    let (config, state) = (data.path("second/config.toml"), data.path("second/state.safetensors"));
    ok(data.train("second", &one));
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("epochs = 1", "epochs = 2")).unwrap();
    let before = fs::read(&state).unwrap();
    fails(limited(data.resume("second")), 3, &["state.safetensors", "defrost resume"]);
    assert!(fs::read(&state).unwrap() == before, "the old state is whole");
    let names: Vec<String> = files(&data.path("second")).into_keys().collect();
    assert!(names.iter().all(|name| !name.ends_with(".tmp")), "{names:?}");
    ok(data.resume("second"));
    same(&data.path("second"), &data.path("alone"));
}

#[test]
fn a_step_that_is_not_finite_is_named_and_leaves_no_trace() {
    let data = data("diverge");
    for (network, lr, origin) in [(&VGG, "1e5", "the forward pass of block4_conv"), (&DENSE, "1e12", "the forward pass of conv2_block")] {
        let flags = flags(network, "2", &["--lr", lr, "--save-every", "0"]);
        let run = network[1];
        fails(data.train(run, &flags), 2, &["step 2: the loss is NaN; it first appears in", origin, "the batch: ", "--lr"]);
        // The state after the first step is there, whole and finite, and comes to the same end.
        let state = fs::read(data.path(run).join("state.safetensors")).unwrap();
        for (name, tensor) in safetensors::SafeTensors::deserialize(&state).unwrap().tensors() {
            let numbers = tensor.data().chunks(if tensor.dtype() == safetensors::Dtype::F64 { 8 } else { 4 });
            assert!(numbers.into_iter().all(finite), "{name}");
        }
        assert_eq!(fs::read_to_string(data.path(run).join("steps.csv")).unwrap().lines().count(), 2);
        fails(data.resume(run), 2, &["step 2: the loss is NaN", origin]);
        assert!(fs::read(data.path(run).join("state.safetensors")).unwrap() == state);
    }
}

fn finite(bytes: &[u8]) -> bool {
    match bytes.try_into() {
        Ok(four) => f32::from_le_bytes(four).is_finite(),
        Err(_) => f64::from_le_bytes(bytes.try_into().unwrap()).is_finite(),
    }
}

#[test]
fn what_does_not_belong_to_the_run_is_refused_by_name() {
    let data = data("refuse");
    let flags = flags(&DENSE, "1", &["--freeze", "all"]);
    ok(data.train("run", &flags));
    let (config, state) = (data.path("run/config.toml"), data.path("run/state.safetensors"));
    let settings = fs::read_to_string(&config).unwrap().replace("epochs = 1", "epochs = 2");
    fs::write(&config, settings.replace("batch-size = 4", "batch-size = 5")).unwrap();
    fails(data.resume("run"), 2, &["config.toml", "batch-size is 5, the run was begun with 4"]);
    fs::write(&config, settings).unwrap();

    let photo = |name: &str| data.path("photos").join(name);
    fs::rename(photo("lying/03.png"), photo("standing/99.png")).unwrap();
    fs::copy(photo("lying/01.png"), photo("lying/02.png")).unwrap();
    fails(data.resume("run"), 2, &["1 is gone (lying/03.png)", "1 is new (standing/99.png)", "1 is changed (lying/02.png)"]);

    let good = fs::read(&state).unwrap();
    fs::write(&state, b"").unwrap();
    fails(data.resume("run"), 2, &["state.safetensors", "nearly so", "best.safetensors"]);
    let mut random = 7;
    for _ in 0..12 {
        let at = (next(&mut random) % good.len() as u64) as usize;
        let mut bad = good.clone();
        if at.is_multiple_of(2) {
            bad.truncate(at)
        } else {
            bad[at] ^= 1 << (at % 8)
        }
        fs::write(&state, &bad).unwrap();
        fails(data.resume("run"), 2, &["state.safetensors"]);
    }
    fs::copy(data.path("run/best.safetensors"), &state).unwrap();
    fails(data.resume("run"), 2, &["is not the state of a run"]);
    fails(data.resume("photos"), 2, &["has no config.toml"]);
    fails(data.resume("nowhere"), 2, &["nowhere"]);
    fails(data.train("run", &flags), 2, &["holds a run", "defrost resume"]);
}

/// Everything that decides how a run learns, stopped after every step by a time limit of nothing.
#[test]
fn stopped_after_every_step_a_run_learns_as_if_left_alone() {
    let data = data("learning");
    let rate = ["--schedule", "plateau", "--patience", "1", "--plateau-on", "val-accuracy", "--min-delta", "0.6", "--warmup-steps", "3"];
    let rest = ["--optimizer", "adam", "--freeze-epochs", "2", "--unfreeze-lr", "0.001", "--accumulate", "2", "--class-weight", "balanced"];
    let flags = flags(&DENSE, "5", &[&rate[..], &rest, &["--clip-norm", "0.5", "--lr-gamma", "0.5"]].concat());
    ok(data.train("alone", &flags));
    let halting = [&flags[..], &["--time-limit", "0s"]].concat();
    let first = text(&ok(data.train("halting", &halting)));
    assert!(first.contains("time limit of 0s reached after 1 steps, 0 whole epochs; last.safetensors: val loss"), "{first}");
    assert!(data.path("halting/best.safetensors").exists(), "a model from the first step on");
    // 13 training images in batches of 4, two to a step: two steps an epoch, five epochs.
    for step in 2..=10 {
        let said = text(&ok(data.resume("halting")));
        assert!(said.contains(&format!("resumed after {} steps", step - 1)), "{said}");
        assert_eq!(said.contains("time limit of 0s reached"), step < 10, "{said}");
        assert_eq!(said.contains("epoch 3: the backbone thaws"), step == 5, "{said}");
    }
    assert!(text(&ok(data.resume("halting"))).contains("the run has ended"));
    let config = data.path("halting/config.toml");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("time-limit = \"0s\"", "time-limit = \"none\"")).unwrap();
    // These two tell of the limit and of the stops.
    for name in ["report.html", "run.json"] {
        for run in ["alone", "halting"] {
            fs::remove_file(data.path(run).join(name)).unwrap();
        }
    }
    same(&data.path("halting"), &data.path("alone"));
    let history = fs::read_to_string(data.path("alone/history.csv")).unwrap();
    let rates: Vec<f64> = history.lines().skip(1).map(|l| l.split(',').nth(5).unwrap().parse().unwrap()).collect();
    assert!(rates[1] == 0.01 && rates[2] <= 0.001 && rates[4] < rates[2], "{rates:?}");
}
