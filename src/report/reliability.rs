//! A reliability diagram: how often a model is right, against how sure it is; below it, how many images are that sure.

use super::svg::{Anchor, GREY, INK, RULE, Svg};
use crate::metrics::Calibration;
use crate::metrics::calibration::Bin;

/// Side of the diagram, and height of the histogram under it, in pixels.
const SIDE: f64 = 320.0;
const BARS: f64 = 64.0;
const LEFT: f64 = 64.0;
const BETWEEN: f64 = 22.0;
const WIDTH: f64 = LEFT + SIDE + 28.0;
const BLUE: &str = "#1f6fb4";
/// The gap to the diagonal.
const ORANGE: &str = "#d95f02";

/// The figure; `title` and the error stand above it, and neither without a title.
pub fn reliability(title: &str, calibration: &Calibration) -> String {
    let top = if title.is_empty() { 20.0 } else { 64.0 };
    let mut svg = Svg::new(WIDTH, top + SIDE + BETWEEN + BARS + 50.0);
    if !title.is_empty() {
        svg.text([20.0, 26.0], 16.0, Anchor::Start, INK, title);
        let ece = format!("expected calibration error {:.4}, {} bins", calibration.ece, calibration.reliability.len());
        svg.text([20.0, 46.0], 13.0, Anchor::Start, GREY, &ece);
    }
    diagram(&mut svg, top, &calibration.reliability);
    histogram(&mut svg, top + SIDE + BETWEEN + BARS, &calibration.reliability);
    svg.finish()
}

fn x(share: f64) -> f64 {
    LEFT + SIDE * share
}

/// Bars as high as the share that is right, and the mean confidence as a dot: it lies on the diagonal where both agree.
fn diagram(svg: &mut Svg, top: f64, bins: &[Bin]) {
    let y = |share: f64| top + SIDE * (1.0 - share);
    for tick in 0..=5 {
        let share = f64::from(tick) / 5.0;
        svg.line([LEFT, y(share)], [LEFT + SIDE, y(share)], RULE, 1.0);
        svg.text([LEFT - 8.0, y(share) + 4.5], 13.0, Anchor::End, GREY, &format!("{}%", 20 * tick));
    }
    for bin in bins {
        let (Some(confidence), Some(accuracy)) = (bin.confidence, bin.accuracy) else { continue };
        let title = describe(bin, confidence, accuracy);
        let (left, width) = (x(bin.from) + 0.5, x(bin.to) - x(bin.from) - 1.0);
        svg.rect([left, y(accuracy)], [width, y(0.0) - y(accuracy)], BLUE, &title);
        svg.line([x(confidence), y(accuracy)], [x(confidence), y(confidence)], ORANGE, 2.0);
        svg.dot([x(confidence), y(accuracy)], 4.0, ORANGE, &title);
    }
    svg.curve(&[[x(0.0), y(0.0)], [x(1.0), y(1.0)]], INK, true);
    svg.line([LEFT, y(0.0)], [LEFT + SIDE, y(0.0)], GREY, 1.0);
    svg.turned([18.0, top + SIDE / 2.0], -90.0, 13.0, Anchor::Middle, INK, "share that is right");
}

/// How many images lie in each bin.
fn histogram(svg: &mut Svg, base: f64, bins: &[Bin]) {
    let most = bins.iter().map(|b| b.images).max().unwrap_or(0).max(1);
    for bin in bins.iter().filter(|b| b.images > 0) {
        let height = (BARS * bin.images as f64 / most as f64).max(1.0);
        let (left, width) = (x(bin.from) + 0.5, x(bin.to) - x(bin.from) - 1.0);
        svg.rect([left, base - height], [width, height], GREY, &format!("{} images", bin.images));
    }
    svg.text([LEFT - 8.0, base - BARS + 10.0], 13.0, Anchor::End, GREY, &most.to_string());
    svg.line([LEFT, base], [LEFT + SIDE, base], GREY, 1.0);
    for tick in 0..=5 {
        svg.text([x(f64::from(tick) / 5.0), base + 18.0], 13.0, Anchor::Middle, GREY, &format!("{}%", 20 * tick));
    }
    svg.text([LEFT + SIDE / 2.0, base + 40.0], 13.0, Anchor::Middle, INK, "probability of the predicted class");
    svg.turned([18.0, base - BARS / 2.0], -90.0, 13.0, Anchor::Middle, INK, "images");
}

fn describe(bin: &Bin, confidence: f64, accuracy: f64) -> String {
    format!("{} images, on average {:.1}% sure, {:.1}% right", bin.images, 100.0 * confidence, 100.0 * accuracy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Predictions;

    #[test]
    fn every_bin_with_images_is_in_the_figure() {
        let p = Predictions {
            classes: vec!["a".into(), "b".into()],
            paths: vec!["1".into(), "2".into(), "3".into()],
            labels: vec![0, 1, 1],
            probabilities: vec![0.75, 0.25, 0.75, 0.25, 0.0, 1.0],
            losses: vec![0.0; 3],
            groups: None,
        };
        let text = reliability("t", &Calibration::new(&p));
        for part in ["2 images, on average 75.0% sure, 50.0% right", "1 images, on average 100.0% sure, 100.0% right", "error 0.1667"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("NaN"));
    }
}
