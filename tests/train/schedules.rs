//! Learning rates over a run: schedules, early stopping, thawing, the sweep that looks for one.

use super::{HEAD, column, data, defrost, ok, refused, said, tensors};
use std::fs;
use std::path::Path;

#[test]
fn rates_follow_their_schedule_and_nothing_better_ends_a_run() {
    let data = data("schedule");
    let rates = |out: &str, more: &[&str]| {
        ok(data.train(out, &[&HEAD[..], &["--epochs", "4", "--lr", "0.1"], more].concat()));
        column(&data.path(out), "lr")
    };
    // 16 training images, two steps an epoch: the rates of steps 1, 3, 5 and 7, counted from 0.
    let half = |t: f64| 0.05 * (1.0 + (std::f64::consts::PI * (t - 2.0) / 6.0).cos());
    assert_eq!(rates("cosine", &["--schedule", "cosine", "--warmup-steps", "2"]), [0.1, half(3.0), half(5.0), half(7.0)]);
    assert_eq!(rates("step", &["--schedule", "step", "--lr-step", "2", "--lr-gamma", "0.5", "--clip-norm", "1"]), [0.1, 0.1, 0.05, 0.05]);
    assert_eq!(rates("warm", &["--warmup-epochs", "2", "--clip-value", "0.1"]), [0.05, 0.1, 0.1, 0.1]);
    // At a rate of next to nothing, nothing gets better after the first epoch.
    let plateau = ["--epochs", "20", "--lr", "1e-30", "--schedule", "plateau", "--patience", "1", "--early-stop", "3"];
    let output = data.train("plateau", &[&HEAD[..], &plateau, &["--class-weight", "balanced"]].concat());
    let text = said(&output);
    ok(output);
    let falling = column(&data.path("plateau"), "lr");
    assert!(
        falling.len() == 4 && falling.iter().zip([1e-30, 1e-30, 1e-31, 1e-32]).all(|(a, b)| (a / b - 1.0).abs() < 1e-14),
        "{falling:?}"
    );
    assert!(text.contains("no progress for 1 epochs: the learning rate falls to 1.000e-31"), "{text}");
    assert!(text.contains("stopped early, after 4 of 20 epochs: 3 without a better validation accuracy"), "{text}");
    assert!(text.contains("class weights: lying "), "{text}");
    let config = fs::read_to_string(data.path("plateau/config.toml")).unwrap();
    for line in ["schedule = \"plateau\"", "patience = 1", "early-stop = 3", "class-weight = \"balanced\"", "clip-norm = 0.0"] {
        assert!(config.contains(line), "{config}");
    }
}

#[test]
fn the_head_first_and_then_everything_is_two_runs_in_one() {
    let data = data("thaw");
    let dense = ["--backbone", "densenet121", "--input-size", "32", "--batch-size", "6", "--no-shuffle", "--momentum", "0.9"];
    let train = |out: &str, more: &[&str]| {
        let output = data.train(out, &[&dense[..], more].concat());
        let text = said(&output);
        ok(output);
        text
    };
    let text = train("both", &["--weights", "random", "--epochs", "2", "--freeze-epochs", "1", "--unfreeze-lr", "0.001"]);
    assert!(text.contains("of which 2050 are trained") && text.contains("epoch 2: the backbone thaws, 6955906 parameters"), "{text}");
    assert_eq!(column(&data.path("both"), "lr"), [0.01, 0.001]);
    train("head", &["--weights", "random", "--epochs", "1", "--freeze", "all"]);
    let head = data.path("head/last.safetensors");
    train("rest", &["--weights", head.to_str().unwrap(), "--epochs", "1", "--lr", "0.001"]);
    assert!(tensors(&data.path("both/last.safetensors")) == tensors(&data.path("rest/last.safetensors")));
    // Statistics stand still with the backbone, as under Keras's trainable = False, and move when it thaws.
    let moving = |run: &str| tensors(&data.path(run).join("last.safetensors")).into_iter().find(|(n, _)| n == "bn/moving_mean").unwrap();
    assert!(moving("head").1.iter().all(|&b| b == 0), "they are new, all zero");
    assert!(moving("both").1.iter().any(|&b| b != 0));
    // On moving statistics, batch norm trains its scale and shift, and the statistics stay.
    train("moving", &["--weights", "random", "--epochs", "1", "--batch-norm", "moving", "--lr", "0.05"]);
    let (new, trained) = (tensors(&head), tensors(&data.path("moving/last.safetensors")));
    for ((name, before), (_, after)) in new.iter().zip(&trained) {
        assert_eq!(before == after, name.contains("moving_"), "{name}");
    }
    let refuse = |more: &[&str], with: &str| refused(data.train("x", &[&dense[..], &["--weights", "random"], more].concat()), with);
    refuse(&["--freeze-epochs", "1", "--freeze", "all"], "--freeze-epochs");
    refuse(&["--unfreeze-lr", "1"], "needs --freeze-epochs");
    refuse(&["--freeze-epochs", "1", "--freeze", "nowhere"], "no layer is called");
}

#[test]
fn a_sweep_over_learning_rates_leaves_a_table_and_a_picture_and_no_run() {
    let data = data("sweep");
    let (photos, out) = (data.path("photos"), data.path("rates"));
    let find = |out: &Path, more: &[&str]| {
        let args = ["lr-find", photos.to_str().unwrap(), "--out", out.to_str().unwrap(), "--steps", "40", "--from", "1e-4", "--to", "1e4"];
        defrost(&[&args[..], &HEAD, more].concat())
    };
    let output = find(&out, &["--momentum", "0.9"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ok(output);
    let suggested: f64 = said.split("--lr ").nth(1).unwrap_or_else(|| panic!("{said}")).split(' ').next().unwrap().parse().unwrap();
    let table = fs::read_to_string(out.join("lr-find.csv")).unwrap();
    let rows: Vec<Vec<f64>> = table.lines().skip(1).map(|l| l.split(',').map(|x| x.parse().unwrap()).collect()).collect();
    assert!(table.starts_with("lr,loss,smoothed\n") && rows.len() > 8 && rows.len() <= 40, "{table}");
    assert!(rows.iter().any(|row| (row[0] / suggested - 1.0).abs() < 0.01), "{said}");
    let names: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    // The same bits again, in the same folder; never in a run's.
    ok(find(&out, &["--momentum", "0.9"]));
    assert_eq!(fs::read_to_string(out.join("lr-find.csv")).unwrap(), table);
    fs::write(out.join("config.toml"), "").unwrap();
    refused(find(&out, &[]), "holds a run");
    refused(find(&data.path("x"), &["--lr", "0"]), "--lr");
}
