//! Loss and accuracy over the epochs, side by side: training solid, validation dashed, the epoch of the best model marked.

use super::svg::{Anchor, GREY, INK, RULE, Svg};

/// One epoch; what was not measured is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: usize,
    pub loss: f64,
    /// Between 0 and 1.
    pub accuracy: f64,
    pub val_loss: Option<f64>,
    pub val_accuracy: Option<f64>,
}

/// Size of a plot's area, in pixels.
const PLOT: [f64; 2] = [380.0, 260.0];
const TOP: f64 = 68.0;
const LEFT: f64 = 64.0;
/// Between the two plots, room for the second one's numbers.
const BETWEEN: f64 = 84.0;
const RIGHT: f64 = 28.0;
const BOTTOM: f64 = 56.0;
/// Blue and orange, apart for every kind of colour vision.
const TRAIN: &str = "#1f6fb4";
const VAL: &str = "#d95f02";

/// One panel's data: a title, both series by epoch, the range of the axis and how its numbers are printed.
struct Panel<'a> {
    title: &'a str,
    train: Vec<(usize, f64)>,
    val: Vec<(usize, f64)>,
    percent: bool,
    /// The epoch whose model is kept.
    best: Option<usize>,
    /// The epoch at the right end.
    last: usize,
}

/// The figure; `title` stands above it. `best` is the epoch whose model is kept.
pub fn curves(title: &str, history: &[Epoch], best: Option<usize>) -> String {
    let width = LEFT + 2.0 * PLOT[0] + BETWEEN + RIGHT;
    let mut svg = Svg::new(width, TOP + PLOT[1] + BOTTOM);
    svg.text([LEFT, 24.0], 16.0, Anchor::Start, INK, title);
    let [loss, accuracy] = both(history, best);
    panel(&mut svg, [LEFT, TOP], &loss);
    panel(&mut svg, [LEFT + PLOT[0] + BETWEEN, TOP], &accuracy);
    legend(&mut svg, width - RIGHT, history.iter().any(|e| e.val_loss.is_some()));
    svg.finish()
}

/// Loss and accuracy as figures of their own, without title and legend, for a page that says both.
pub fn panels(history: &[Epoch], best: Option<usize>) -> [String; 2] {
    both(history, best).map(|data| {
        let top = TOP - 36.0;
        let mut svg = Svg::new(LEFT + PLOT[0] + RIGHT, top + PLOT[1] + BOTTOM);
        panel(&mut svg, [LEFT, top], &data);
        svg.finish()
    })
}

fn both(history: &[Epoch], best: Option<usize>) -> [Panel<'static>; 2] {
    let finite = |series: Vec<(usize, f64)>| series.into_iter().filter(|(_, y)| y.is_finite()).collect::<Vec<_>>();
    let val = |f: fn(&Epoch) -> Option<f64>| finite(history.iter().filter_map(|e| Some((e.epoch, f(e)?))).collect());
    let train = |f: fn(&Epoch) -> f64| finite(history.iter().map(|e| (e.epoch, f(e))).collect());
    let last = history.iter().map(|e| e.epoch).max().unwrap_or(1).max(1);
    [
        Panel { title: "loss", train: train(|e| e.loss), val: val(|e| e.val_loss), percent: false, best, last },
        Panel { title: "accuracy", train: train(|e| e.accuracy), val: val(|e| e.val_accuracy), percent: true, best, last },
    ]
}

fn legend(svg: &mut Svg, right: f64, has_val: bool) {
    let mut x = right;
    for (name, colour, dashed) in [("validation", VAL, true), ("training", TRAIN, false)].into_iter().filter(|e| has_val || !e.2) {
        svg.text([x, 24.0], 13.0, Anchor::End, INK, name);
        let start = x - super::svg::text_width(name, 13.0) - 34.0;
        svg.curve(&[[start, 19.5], [start + 28.0, 19.5]], colour, dashed);
        x = start - 20.0;
    }
}

fn panel(svg: &mut Svg, [left, above]: [f64; 2], panel: &Panel) {
    let last = panel.last;
    let values = || panel.train.iter().chain(&panel.val).map(|&(_, y)| y);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    // A loss far above the others (random weights, first epoch) would press all of them onto the axis.
    let largest = high;
    let high = if panel.percent { high } else { high.min(3.0 * upper_quartile(values().collect())) };
    // A loss starts at zero; an accuracy shows at least a fifth of its range, or noise would look like progress.
    let ticks =
        if panel.percent { ticks(low.min(high - 0.2).max(0.0), high.min(1.0), Some([0.0, 1.0])) } else { ticks(low.min(0.0), high, None) };
    let (bottom, top) = (ticks[0], ticks[ticks.len() - 1]);
    // A single epoch stands in the middle, more reach from edge to edge.
    let x = |epoch: usize| left + PLOT[0] * if last == 1 { 0.5 } else { (epoch.max(1) - 1) as f64 / (last - 1) as f64 };
    let y = |value: f64| above + PLOT[1] * (top - value.min(top)) / (top - bottom);

    let off_scale = if largest > top { format!(" (up to {})", label(largest, largest / 10.0, false)) } else { String::new() };
    svg.text([left, above - 12.0], 14.0, Anchor::Start, GREY, &format!("{}{off_scale}", panel.title));
    for &tick in &ticks {
        svg.line([left, y(tick)], [left + PLOT[0], y(tick)], RULE, 1.0);
        svg.text([left - 8.0, y(tick) + 4.5], 13.0, Anchor::End, GREY, &label(tick, ticks[1] - ticks[0], panel.percent));
    }
    for epoch in epochs(last) {
        svg.line([x(epoch), above + PLOT[1]], [x(epoch), above + PLOT[1] + 5.0], GREY, 1.0);
        svg.text([x(epoch), above + PLOT[1] + 20.0], 13.0, Anchor::Middle, GREY, &epoch.to_string());
    }
    svg.line([left, above + PLOT[1]], [left + PLOT[0], above + PLOT[1]], GREY, 1.0);
    svg.text([left + PLOT[0] / 2.0, above + PLOT[1] + 42.0], 13.0, Anchor::Middle, INK, "epoch");

    for (name, series, colour, dashed) in [("training", &panel.train, TRAIN, false), ("validation", &panel.val, VAL, true)] {
        let points: Vec<[f64; 2]> = series.iter().map(|&(e, v)| [x(e), y(v)]).collect();
        if points.len() > 1 {
            svg.curve(&points, colour, dashed);
        }
        for (point, &(epoch, value)) in points.iter().zip(series) {
            let best = panel.best == Some(epoch) && dashed;
            let radius = if best {
                5.0
            } else if last <= 30 {
                3.0
            } else {
                1.5
            };
            let value = if panel.percent { format!("{:.1}%", 100.0 * value) } else { format!("{value:.4}") };
            svg.dot(*point, radius, colour, &format!("epoch {epoch}, {name} {} {value}", panel.title));
        }
    }
    let best = panel.best.and_then(|best| panel.val.iter().find(|(epoch, _)| *epoch == best));
    if let Some(&(epoch, value)) = best {
        let value = if panel.percent { format!("{:.1}%", 100.0 * value) } else { format!("{value:.3}") };
        let text = format!("best model, epoch {epoch}: {value}");
        svg.text([left + PLOT[0], above - 12.0], 13.0, Anchor::End, VAL, &text);
    }
}

/// The value that three quarters of the values do not exceed; 1 if there are none.
fn upper_quartile(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() * 3 / 4).or(values.last()).copied().unwrap_or(1.0).max(1e-9)
}

/// Up to seven round numbers (1, 2 or 5 times a power of ten apart) that enclose a range, not beyond `bounds`.
pub(super) fn ticks(low: f64, high: f64, bounds: Option<[f64; 2]>) -> Vec<f64> {
    let span = if high - low > 1e-9 * high.abs() { high - low } else { high.abs().max(0.1) * 0.2 };
    let (low, high) = if high - low < span { (low - span / 2.0, high + span / 2.0) } else { (low, high) };
    let raw = span / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= raw * 0.999).unwrap_or(10.0 * power);
    let (first, last) = ((low / step + 1e-6).floor() as i64, (high / step - 1e-6).ceil() as i64);
    let ticks: Vec<f64> = (first..=last).map(|i| i as f64 * step).collect();
    match bounds {
        Some([min, max]) => ticks.into_iter().filter(|t| (min - 1e-9..=max + 1e-9).contains(t)).collect(),
        None => ticks,
    }
}

/// A tick's number with as many decimals as the step between ticks needs.
pub(super) fn label(tick: f64, step: f64, percent: bool) -> String {
    let (tick, step) = if percent { (100.0 * tick, 100.0 * step) } else { (tick, step) };
    let decimals = (-(step * 1.0001).log10().floor()).max(0.0) as usize;
    let tick = if tick.abs() < step * 1e-6 { 0.0 } else { tick };
    format!("{tick:.decimals$}{}", if percent { "%" } else { "" })
}

/// The epochs that get a number: all up to 10, then multiples of 2, 5, 10, ..., always beginning with 1.
pub(super) fn epochs(last: usize) -> Vec<usize> {
    let step = [1, 2, 5, 10, 20, 25, 50].into_iter().find(|step| last <= 10 * step).unwrap_or(last.div_ceil(10));
    let mut epochs = vec![1];
    epochs.extend((step..=last).step_by(step).filter(|&e| e > 1 && (step <= 2 || e >= step)));
    epochs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_enclose_the_range_with_round_numbers() {
        let close = |a: Vec<f64>, b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close(ticks(0.13, 2.08, None), &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5]), "{:?}", ticks(0.13, 2.08, None));
        assert!(close(ticks(0.55, 0.98, Some([0.0, 1.0])), &[0.5, 0.6, 0.7, 0.8, 0.9, 1.0]));
        for (low, high) in [(1.0, 1.0), (0.0, 0.0), (1e-7, 3e-7), (0.2, 2e5)] {
            let ticks = ticks(low, high, None);
            assert!((2..=8).contains(&ticks.len()) && ticks[0] <= low && ticks[ticks.len() - 1] >= high, "{low} {high} {ticks:?}");
        }
        assert!(ticks(1.0, 1.0, Some([0.0, 1.0])).len() >= 2);
    }

    #[test]
    fn epochs_are_numbered_sparsely() {
        assert_eq!(epochs(1), [1]);
        assert_eq!(epochs(5), [1, 2, 3, 4, 5]);
        assert_eq!(epochs(20), [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20]);
        assert_eq!(epochs(100), [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
    }

    #[test]
    fn a_figure_survives_missing_and_infinite_numbers() {
        let epoch = |epoch, loss| Epoch { epoch, loss, accuracy: 0.5, val_loss: None, val_accuracy: None };
        for history in [vec![], vec![epoch(1, 0.7)], vec![epoch(1, f64::NAN), epoch(2, f64::INFINITY)]] {
            let text = curves("t", &history, Some(1));
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }
}
