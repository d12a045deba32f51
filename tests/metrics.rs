//! The measures held against scikit-learn's; `golden/make_metrics.py` says how the predictions are drawn.

use defrost::ir::Init;
use defrost::metrics::{Metrics, Predictions, argmax};
use defrost::weights::Draw;
use serde_json::Value;

const GOLDEN: &str = include_str!("golden/metrics.json");

/// Numbers in 0..1 that depend on a name and their position alone.
fn hashed(name: &str, len: usize) -> Vec<f64> {
    let draw = Draw::new(42, name, Init::GlorotUniform { fan_in: 3, fan_out: 3 });
    (0..len).map(|i| (f64::from(draw.at(i)) + 1.0) / 2.0).collect()
}

fn measured(case: &Value) -> Metrics {
    let (name, expected) = (case["name"].as_str().unwrap(), &case["metrics"]);
    let (n, k) = (expected["images"].as_u64().unwrap() as usize, expected["confusion"].as_array().unwrap().len());
    let (levels, present) = (case["levels"].as_f64().unwrap(), case["present"].as_u64().unwrap() as usize);
    let mut weights: Vec<f64> = hashed(&format!("{name}/weights"), n * k).into_iter().map(|u| 1.0 + (u * levels).floor()).collect();
    if case["silent"] == true {
        weights.iter_mut().skip(k - 1).step_by(k).for_each(|w| *w = 1.0);
    }
    let (draw, keep) = (hashed(&format!("{name}/labels"), n), hashed(&format!("{name}/keep"), n));
    let texts = |count: usize| (0..count).map(|i| i.to_string());
    let mut predictions = Predictions { classes: texts(k).collect(), paths: texts(n).collect(), ..Predictions::default() };
    if let Some(size) = case["group"].as_u64().filter(|&size| size > 0) {
        predictions.groups = Some((0..n).map(|i| (i / size as usize).to_string()).collect());
    }
    for (i, row) in weights.chunks(k).enumerate() {
        let preferred = argmax(row);
        predictions.labels.push(if keep[i] < 0.5 && preferred < present { preferred } else { (draw[i] * present as f64) as usize });
        // The softmax of log w is w / sum(w).
        predictions.push(&row.iter().map(|w| w.ln()).collect::<Vec<_>>());
        // Divided here as there, so that equal weights are ties there and here.
        let sum: f64 = row.iter().sum();
        predictions.probabilities[i * k..].iter_mut().zip(row).for_each(|(p, w)| *p = w / sum);
    }
    Metrics::new(&predictions).unwrap()
}

/// Same keys, same texts and whole numbers, fractions within 1e-12.
fn agree(at: &str, found: &Value, expected: &Value) {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{at}");
            a.iter().for_each(|(key, value)| agree(&format!("{at}.{key}"), value, &b[key]));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{at}");
            a.iter().zip(b).enumerate().for_each(|(i, (a, b))| agree(&format!("{at}[{i}]"), a, b));
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-12, "{at}: {a}, scikit-learn has {b}");
        }
        _ => assert_eq!(found, expected, "{at}"),
    }
}

#[test]
fn the_measures_are_scikit_learns() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 7);
    for case in cases {
        let metrics = measured(case);
        let mut found = serde_json::to_value(&metrics).unwrap();
        let worst = found.as_object_mut().unwrap().remove("worst").unwrap();
        assert_eq!(worst.as_array().unwrap().len(), metrics.images.min(20));
        agree(case["name"].as_str().unwrap(), &found, &case["metrics"]);
    }
}
