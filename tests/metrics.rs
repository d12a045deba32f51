//! The measures held against scikit-learn's; `golden/make_metrics.py` says how the predictions are drawn.

use defrost::ir::Init;
use defrost::train::metrics::{Metrics, argmax, cross_entropy};
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
    let weights: Vec<f64> = hashed(&format!("{name}/weights"), n * k).into_iter().map(|u| 1.0 + (u * levels).floor()).collect();
    let (draw, keep) = (hashed(&format!("{name}/labels"), n), hashed(&format!("{name}/keep"), n));
    let mut labels = Vec::new();
    let (mut probabilities, mut losses) = (Vec::new(), Vec::new());
    for (i, row) in weights.chunks(k).enumerate() {
        let preferred = argmax(row);
        labels.push(if keep[i] < 0.5 && preferred < present { preferred } else { (draw[i] * present as f64) as usize });
        let sum: f64 = row.iter().sum();
        probabilities.extend(row.iter().map(|w| w / sum));
        // The softmax of log w is w / sum(w).
        losses.push(cross_entropy(&row.iter().map(|w| w.ln()).collect::<Vec<_>>(), labels[i]));
    }
    let names: Vec<String> = (0..k).map(|c| c.to_string()).collect();
    Metrics::new(&names, &labels, &probabilities, &losses).unwrap()
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
    assert_eq!(cases.len(), 6);
    for case in cases {
        agree(case["name"].as_str().unwrap(), &serde_json::to_value(measured(case)).unwrap(), &case["metrics"]);
    }
}
