//! The loss over the learning rates of a sweep, on a logarithmic axis: every trial a dot, their smoothed course a line.

use super::curves::{label, ticks};
use super::svg::{Anchor, GREY, INK, RULE, Svg, text_width};

/// One learning rate that was tried, with the loss of its step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    pub lr: f64,
    pub loss: f64,
    pub smoothed: f64,
}

/// A rate to be marked, with what is said of it.
pub type Mark<'a> = (f64, &'a str);

/// Size of the plot's area, in pixels.
const PLOT: [f64; 2] = [680.0, 340.0];
const TOP: f64 = 92.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 28.0;
const BOTTOM: f64 = 56.0;
const LINE: &str = "#1f6fb4";
const DOTS: &str = "#a9c8e2";
const MARKS: [&str; 2] = ["#d95f02", "#666666"];

/// The figure; `title` stands above it. The first mark is the one that counts.
pub fn rates(title: &str, trials: &[Trial], marks: &[Mark]) -> String {
    let mut svg = Svg::new(LEFT + PLOT[0] + RIGHT, TOP + PLOT[1] + BOTTOM);
    svg.text([LEFT, 24.0], 16.0, Anchor::Start, INK, title);
    let trials: Vec<Trial> = trials.iter().copied().filter(|t| t.smoothed.is_finite() && t.lr > 0.0).collect();
    let range = |f: fn(&Trial) -> f64| trials.iter().map(f).fold([f64::INFINITY, f64::NEG_INFINITY], |[a, b], x| [a.min(x), b.max(x)]);
    let [from, to] = if trials.is_empty() { [1e-7, 10.0] } else { range(|t| t.lr) };
    let to = to.max(from * 10.0);
    let [low, high] = if trials.is_empty() { [0.0, 1.0] } else { range(|t| t.smoothed) };
    // The steps at which training falls apart would press the valley onto the axis.
    let start = trials.first().map_or(high, |t| t.smoothed);
    let ticks = ticks(low, high.min(start + (start - low).max(0.1 * start.abs())), None);
    let (bottom, top) = (ticks[0], ticks[ticks.len() - 1]);
    let x = |lr: f64| LEFT + PLOT[0] * (lr / from).log10() / (to / from).log10();
    let y = |value: f64| TOP + PLOT[1] * (top - value) / (top - bottom);

    svg.text([LEFT, TOP - 12.0], 14.0, Anchor::Start, GREY, "loss");
    for &tick in &ticks {
        svg.line([LEFT, y(tick)], [LEFT + PLOT[0], y(tick)], RULE, 1.0);
        svg.text([LEFT - 8.0, y(tick) + 4.5], 13.0, Anchor::End, GREY, &label(tick, ticks[1] - ticks[0], false));
    }
    for power in from.log10().ceil() as i32..=(to.log10() + 1e-9).floor() as i32 {
        let at = x(10f64.powi(power));
        svg.line([at, TOP + PLOT[1]], [at, TOP + PLOT[1] + 5.0], GREY, 1.0);
        svg.text([at, TOP + PLOT[1] + 20.0], 13.0, Anchor::Middle, GREY, &power_of_ten(power));
    }
    svg.line([LEFT, TOP + PLOT[1]], [LEFT + PLOT[0], TOP + PLOT[1]], GREY, 1.0);
    svg.text([LEFT + PLOT[0] / 2.0, TOP + PLOT[1] + 42.0], 13.0, Anchor::Middle, INK, "learning rate");

    for t in trials.iter().filter(|t| (bottom..=top).contains(&t.loss)) {
        svg.dot([x(t.lr), y(t.loss)], 2.5, DOTS, &format!("rate {:.2e}: loss {:.4}", t.lr, t.loss));
    }
    svg.curve(&inside(&trials, top).map(|(lr, value)| [x(lr), y(value)]).collect::<Vec<_>>(), LINE, false);
    for (i, &(lr, text)) in marks.iter().enumerate().filter(|(_, (lr, _))| (from..=to).contains(lr)) {
        let (colour, at, line) = (MARKS[i.min(1)], x(lr), TOP - 30.0 - 18.0 * i as f64);
        svg.line([at, line + 5.0], [at, TOP + PLOT[1]], colour, if i == 0 { 1.5 } else { 1.0 });
        let text = format!("{text} {}", short(lr));
        let half = text_width(&text, 13.0) / 2.0;
        svg.text([at.clamp(LEFT + half, LEFT + PLOT[0] - half), line], 13.0, Anchor::Middle, colour, &text);
    }
    svg.finish()
}

/// The smoothed course until it leaves the figure at `top`, where it is cut.
fn inside(trials: &[Trial], top: f64) -> impl Iterator<Item = (f64, f64)> {
    let end = trials.iter().rposition(|t| t.smoothed <= top).map_or(0, |last| (last + 2).min(trials.len()));
    let mut points: Vec<(f64, f64)> = trials[..end].iter().map(|t| (t.lr, t.smoothed)).collect();
    if let [.., (lr, below), (to, above)] = points[..]
        && above > top
    {
        let share = (top - below) / (above - below);
        points.pop();
        points.push((lr * (to / lr).powf(share), top));
    }
    points.into_iter().map(move |(lr, value)| (lr, value.min(top)))
}

/// Three digits: `0.0226`, `2.26`, `1.10e-3`.
pub fn short(lr: f64) -> String {
    match lr {
        _ if !(0.01..1000.0).contains(&lr) => format!("{lr:.2e}"),
        _ => {
            let digits = (2 - lr.log10().floor() as i32).max(0) as usize;
            format!("{lr:.digits$}")
        }
    }
}

/// `1e-3`, with the powers near one written out.
fn power_of_ten(power: i32) -> String {
    match power {
        -2..=0 => format!("{}", 10f64.powi(power)),
        1..=3 => format!("{:.0}", 10f64.powi(power)),
        _ => format!("1e{power}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_that_falls_apart_is_cut_at_the_top() {
        let trial = |i: i32, smoothed| Trial { lr: 10f64.powi(i), loss: smoothed, smoothed };
        let trials = [trial(-4, 2.0), trial(-3, 1.0), trial(-2, 1.5), trial(-1, 50.0), trial(0, 1e9)];
        let points: Vec<(f64, f64)> = inside(&trials, 3.0).collect();
        assert_eq!(points.len(), 4);
        assert!(points[3].1 == 3.0 && points[3].0 > 1e-2 && points[3].0 < 2e-2, "{points:?}");
        assert_eq!([0.0226, 2.256, 0.0011, 100.0, 12_345.0].map(short), ["0.0226", "2.26", "1.10e-3", "100", "1.23e4"]);
        let figure = rates("t", &trials, &[(1e-3, "valley"), (99.0, "outside")]);
        assert!(figure.contains("valley 1.00e-3") && !figure.contains("outside"));
        for odd in [&[][..], &trials[..1], &[Trial { lr: 1.0, loss: f64::NAN, smoothed: f64::NAN }]] {
            let figure = rates("t", odd, &[]);
            assert!(!figure.contains("NaN") && !figure.contains("inf"), "{figure}");
        }
    }
}
