//! The lines that `train` prints, as text.

use crate::train::folder::Row;
use crate::train::{Event, Summary};

/// What is about to happen: images, weights, parameters, memory.
pub fn planned_lines(event: &Event) -> Vec<String> {
    let Event::Planned { images, validation, trainable, parameters, bytes, weights, device } = event else { return Vec::new() };
    vec![
        format!("images: {images} to train, {validation} to validate"),
        format!("weights: {weights}"),
        format!("parameters: {parameters}, of which {trainable} are trained"),
        format!("device: {device}; planned peak memory {:.0} MiB besides the images", *bytes as f64 / f64::from(1 << 20)),
    ]
}

/// One epoch's result: `epoch 3/20  loss 0.8123  accuracy 0.7050  val loss 0.9012  val accuracy 0.6800  12.3 s  best`.
pub fn epoch_line(row: &Row, epochs: usize, best: bool) -> String {
    let validation = match (row.val_loss, row.val_accuracy) {
        (Some(loss), Some(accuracy)) => format!("  val loss {loss:.4}  val accuracy {accuracy:.4}"),
        _ => String::new(),
    };
    let mark = if best { "  best" } else { "" };
    format!("epoch {}/{epochs}  loss {:.4}  accuracy {:.4}{validation}  {:.1} s{mark}", row.epoch, row.loss, row.accuracy, row.seconds)
}

/// What a run ended with.
pub fn summary_lines(summary: &Summary) -> Vec<String> {
    let speed = match summary.features {
        // The head alone says little of the network's speed, so what the features took counts.
        Some((images, seconds)) => {
            format!("features of {images} images took {seconds:.1} s; with them {:.1} images/s in training", summary.images_per_second)
        }
        None => format!("{:.1} images/s in training", summary.images_per_second),
    };
    vec![best_line(&summary.best), speed]
}

/// `best: epoch 8, validation accuracy 0.7800`.
pub fn best_line(best: &Row) -> String {
    let score = best.val_accuracy.map_or(String::new(), |a| format!(", validation accuracy {a:.4}"));
    format!("best: epoch {}{score}", best.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_reads_on_one_line() {
        let row = Row { epoch: 3, loss: 0.81234, accuracy: 0.705, val_loss: Some(0.9), val_accuracy: Some(0.68), lr: 0.01, seconds: 12.34 };
        let line = "epoch 3/20  loss 0.8123  accuracy 0.7050  val loss 0.9000  val accuracy 0.6800  12.3 s  best";
        assert_eq!(epoch_line(&row, 20, true), line);
    }
}
