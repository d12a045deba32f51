//! `scripts/gpu-check.sh` where there is no GPU: a dry run on the cpu goes through all of its parts, tables and ratios.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with images of two classes, a stand-in for PyTorch, and one for compute-sanitizer; removed when dropped.
struct Machine(PathBuf);

const PEER: &str = r#"
import argparse, json, os, pathlib, time
log = (pathlib.Path(__file__).parent / "peer.log").open("a")

def main():
    ap = argparse.ArgumentParser()
    for flag in ["model", "mode", "batch", "dtype", "device", "size", "steps", "warmup", "compile"]:
        ap.add_argument("--" + flag)
    a = ap.parse_args()
    if a.compile == "broken":
        raise SystemExit("no such mode")
    if a.compile == "dying":
        os._exit(7)
    time.sleep({"stuck": 60, "slow": 0.5}.get(a.compile, 0))
    print("warm", a.model, os.getpid(), file=log, flush=True)
    begun = time.perf_counter()
    print("begin", a.model, os.getpid(), file=log, flush=True)
    time.sleep(0.1)
    print("end", a.model, os.getpid(), file=log, flush=True)
    rate = {"": 4.0}.get(a.compile, 8.0)
    print(json.dumps(dict(peer="stand-in 1.0", model=a.model, mode=a.mode, images_per_s=rate, step_ms=1000 * int(a.batch) / rate)))
"#;

impl Machine {
    fn new() -> Machine {
        let root = std::env::temp_dir().join(format!("defrost-gpu-check-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for class in ["dark", "light"] {
            fs::create_dir_all(root.join("images").join(class)).unwrap();
            for i in 0..6u8 {
                let grey = if class == "dark" { 20 } else { 180 } + 3 * i;
                image::RgbImage::from_pixel(40, 36, image::Rgb([grey; 3])).save(root.join(format!("images/{class}/{i}.png"))).unwrap();
            }
        }
        fs::write(root.join("peer.py"), PEER).unwrap();
        fs::write(root.join("sanitizer"), "#!/bin/sh\nshift 4\n\"$@\" > /dev/null && echo '========= ERROR SUMMARY: 0 errors'\n").unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(root.join("sanitizer"), fs::Permissions::from_mode(0o755)).unwrap();
        Machine(root)
    }

    fn check(&self, more: &[&str]) -> Output {
        let place = |name: &str| self.0.join(name).display().to_string();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/gpu-check.sh");
        let mut run = Command::new("bash");
        run.arg(script).args(["--dry-run", "--nets", "densenet121"]).env("DEFROST", env!("CARGO_BIN_EXE_defrost"));
        run.args([
            "--images",
            &place("images"),
            "--peer",
            &place("peer.py"),
            "--sanitizer",
            &place("sanitizer"),
            "--results",
            &place("out"),
        ]);
        run.args(more).output().unwrap()
    }

    fn record(&self) -> Value {
        serde_json::from_slice(&fs::read(self.0.join("out/dry-run.json")).unwrap()).unwrap()
    }

    fn page(&self) -> String {
        fs::read_to_string(self.0.join("out/dry-run.md")).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn a_dry_run_fills_every_table_and_what_is_cut_off_keeps_what_it_had() {
    if Command::new("python3").arg("--version").output().is_err() {
        return println!("left out: there is no python3");
    }
    let machine = Machine::new();
    let whole = machine.check(&["--peers", "eager,default,broken"]);
    assert_eq!(whole.status.code(), Some(0), "{}", said(&whole));
    let (record, page) = (machine.record(), machine.page());
    let test = &record["selftest"];
    assert!(test["passed"].as_u64().unwrap() > 0 && test["passed"] == test["rows"], "{test}");
    for tool in ["memcheck", "racecheck"] {
        assert!(test["sanitizer"][tool].as_str().unwrap().ends_with("0 errors"), "{test}");
    }
    let trained = &record["train"]["densenet121"];
    assert!(trained["cpu"] == trained["cuda"] && trained["cpu"].as_array().unwrap().len() == 3 && trained["repeats_to_the_bit"] == true);
    assert!(record["runs"]["all"]["history"].as_str().unwrap().starts_with("epoch,loss") && record["runs"]["none"].is_object());
    let bench = record["bench"].as_array().unwrap();
    assert_eq!(bench.iter().map(|row| row["mode"].as_str().unwrap()).collect::<Vec<_>>(), ["train", "infer", "frozen"]);
    for row in bench {
        let own = row["defrost"]["images_per_s"].as_f64().unwrap();
        for (kind, rate) in [("eager", 4.0), ("default", 8.0)] {
            assert!((row["peers"][kind]["ratio"].as_f64().unwrap() - own / rate).abs() < 1e-3, "{row}");
        }
        // Against the better of the two.
        assert!(page.contains(&format!("| 4 | 8 | {:.2} |", row["peers"]["default"]["ratio"].as_f64().unwrap())), "{page}");
    }
    assert!(record["profile"]["densenet121"]["total_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(record["left_out"]["bench"].as_array().unwrap().len(), 3, "{}", record["left_out"]);
    assert!(page.contains("says nothing of any GPU") && page.contains("no such mode"), "{page}");

    // A part again, with no time for it: the rows of before stay.
    let late = machine.check(&["--parts", "bench", "--budget", "1"]);
    assert_eq!(late.status.code(), Some(0), "{}", said(&late));
    assert_eq!((&machine.record()["bench"], &machine.record()["train"]), (&record["bench"], &record["train"]));
    assert!(machine.record()["left_out"]["bench"][0].as_str().unwrap().contains("time"));

    // What is compiled is warm in all networks before anything is measured, and one is measured at a time, in the process that compiled it.
    let log = machine.0.join("peer.log");
    fs::remove_file(&log).unwrap();
    let turns = machine.check(&["--parts", "bench", "--modes", "infer", "--nets", "densenet121,vgg16", "--peers", "slow"]);
    assert_eq!(turns.status.code(), Some(0), "{}", said(&turns));
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let [warm, timed] = [&lines[..2], &lines[2..]];
    assert!(warm.iter().all(|line| line[0] == "warm") && warm[0][2] != warm[1][2], "{text}");
    let order: Vec<&str> = timed.iter().flat_map(|line| line[..2].to_vec()).collect();
    assert_eq!(order.join(" "), "begin densenet121 end densenet121 begin vgg16 end vgg16", "{text}");

    // A worker that dies or hangs costs its own row alone.
    let bad = machine.check(&["--parts", "bench", "--modes", "infer", "--peers", "dying,stuck,default", "--peer-limit", "5"]);
    assert_eq!(bad.status.code(), Some(0), "{}", said(&bad));
    let left_out = machine.record()["left_out"]["bench"].to_string();
    assert!(left_out.contains("dying of densenet121 infer 2 f32: exit code 7"), "{left_out}");
    assert!(left_out.contains("stuck of densenet121 infer 2 f32: not done in time") && !left_out.contains("default"), "{left_out}");

    // Something wrong makes the exit code 1 and stands on the page.
    let wrong = machine.check(&["--parts", "train", "--images", "/none"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", said(&wrong));
    assert!(machine.page().contains("## Failed") && machine.page().contains("exit code 2"), "{}", machine.page());
    let unknown = machine.check(&["--parts", "speed"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", said(&unknown));
}
