//! Frozen against unfrozen, backbone by backbone: the best validation accuracy as bars, and the way there as curves.

use super::curves::{epochs, label, ticks};
use super::svg::{Anchor, GREY, INK, RULE, Svg, text_width};

/// One trained run of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The backbone's title.
    pub backbone: String,
    /// What stood still: `frozen`, `unfrozen`.
    pub freeze: String,
    /// Best validation accuracy, between 0 and 1.
    pub accuracy: f64,
    /// The epoch of the best.
    pub epoch: usize,
    pub seconds: f64,
    /// Validation accuracy by epoch.
    pub history: Vec<(usize, f64)>,
    /// Validation images, which decide how wide the interval is.
    pub validated: usize,
}

const LEFT: f64 = 116.0;
const BAR: f64 = 22.0;
/// Between the bars of a backbone, and between backbones.
const GAPS: [f64; 2] = [3.0, 22.0];
/// The least height of a backbone's bars, and of the figure.
const GROUP: f64 = 2.0 * BAR + GAPS[1];
const LEAST: f64 = 200.0;
const TOP: f64 = 72.0;
const BARS: f64 = 330.0;
/// Beside the bars, room for their numbers.
const NUMBERS: f64 = 166.0;
const CURVES: f64 = 380.0;
const BOTTOM: f64 = 60.0;
/// Frozen and unfrozen: blue and orange, apart for every kind of colour vision.
const COLOURS: [&str; 2] = ["#1f6fb4", "#d95f02"];

/// The figure; runs of one backbone stand together, in their order.
pub fn compare(title: &str, runs: &[Trained]) -> String {
    let groups = grouped(runs);
    let tall = (groups.len() as f64 * GROUP).max(LEAST);
    let right = LEFT + BARS + NUMBERS + 50.0;
    let mut svg = Svg::new(right + CURVES + 28.0, TOP + tall + BOTTOM);
    svg.text([16.0, 26.0], 16.0, Anchor::Start, INK, title);
    legend(&mut svg, right + CURVES, runs);
    bars(&mut svg, &groups, tall);
    curves(&mut svg, right, tall, &groups);
    svg.finish()
}

/// Runs by backbone, in order of first appearance.
fn grouped(runs: &[Trained]) -> Vec<(&str, Vec<&Trained>)> {
    let mut groups: Vec<(&str, Vec<&Trained>)> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|(name, _)| *name == run.backbone) {
            Some((_, members)) => members.push(run),
            None => groups.push((&run.backbone, vec![run])),
        }
    }
    groups
}

fn colour(run: &Trained) -> &'static str {
    COLOURS[usize::from(run.freeze == "unfrozen")]
}

fn legend(svg: &mut Svg, right: f64, runs: &[Trained]) {
    let mut x = right;
    for name in ["unfrozen", "frozen"].into_iter().filter(|name| runs.iter().any(|r| r.freeze == *name)) {
        svg.text([x, 26.0], 13.0, Anchor::End, INK, name);
        let start = x - text_width(name, 13.0) - 22.0;
        svg.rect([start, 15.0], [14.0, 14.0], COLOURS[usize::from(name == "unfrozen")], "");
        x = start - 18.0;
    }
}

fn bars(svg: &mut Svg, groups: &[(&str, Vec<&Trained>)], tall: f64) {
    let x = |share: f64| LEFT + BARS * share;
    svg.text([LEFT, TOP - 14.0], 14.0, Anchor::Start, GREY, "best validation accuracy, with its 95% interval");
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        svg.line([x(tick), TOP], [x(tick), TOP + tall], RULE, 1.0);
        svg.text([x(tick), TOP + tall + 20.0], 13.0, Anchor::Middle, GREY, &format!("{}%", 100.0 * tick));
    }
    // Few backbones share the height among them, and their bars get thicker.
    let each = tall / groups.len().max(1) as f64;
    let bar = ((each - GAPS[1]) / 2.0).clamp(BAR, 2.0 * BAR);
    for (g, (name, members)) in groups.iter().enumerate() {
        let middle = TOP + (g as f64 + 0.5) * each;
        let top = middle - (members.len() as f64 * (bar + GAPS[0]) - GAPS[0]) / 2.0;
        svg.text([LEFT - 12.0, middle + 5.0], 14.0, Anchor::End, INK, name);
        for (i, run) in members.iter().enumerate() {
            let y = top + i as f64 * (bar + GAPS[0]);
            let text = format!("{:.1}%, {}", 100.0 * run.accuracy, duration(run.seconds));
            let title = format!("{} {}: {text}, best at epoch {}", run.backbone, run.freeze, run.epoch);
            svg.rect([LEFT, y], [BARS * run.accuracy, bar], colour(run), &title);
            let [low, high] = wilson(run.accuracy, run.validated);
            let centre = y + bar / 2.0;
            svg.line([x(low), centre], [x(high), centre], INK, 1.5);
            for end in [x(low), x(high)] {
                svg.line([end, centre - 4.0], [end, centre + 4.0], INK, 1.5);
            }
            svg.text([x(high.max(run.accuracy)) + 10.0, centre + 4.5], 13.0, Anchor::Start, INK, &text);
        }
    }
    svg.line([LEFT, TOP], [LEFT, TOP + tall], GREY, 1.0);
}

/// Validation accuracy over the epochs; a backbone's name stands at the end of its curves.
fn curves(svg: &mut Svg, left: f64, tall: f64, groups: &[(&str, Vec<&Trained>)]) {
    let all = || groups.iter().flat_map(|(_, members)| members);
    let last = all().flat_map(|r| &r.history).map(|p| p.0).max().unwrap_or(1);
    let values = || all().flat_map(|r| &r.history).map(|p| p.1);
    let (low, high) = (values().fold(1.0, f64::min), values().fold(0.0, f64::max));
    let ticks = ticks(low.min(high - 0.2).max(0.0), high.max(0.2), Some([0.0, 1.0]));
    let (bottom, top) = (ticks[0], ticks[ticks.len() - 1]);
    let x = |epoch: usize| left + CURVES * if last == 1 { 0.5 } else { (epoch - 1) as f64 / (last - 1) as f64 };
    let y = |value: f64| TOP + tall * (top - value) / (top - bottom);
    svg.text([left, TOP - 14.0], 14.0, Anchor::Start, GREY, "validation accuracy by epoch");
    for &tick in &ticks {
        svg.line([left, y(tick)], [left + CURVES, y(tick)], RULE, 1.0);
        svg.text([left - 8.0, y(tick) + 4.5], 13.0, Anchor::End, GREY, &label(tick, ticks[1] - ticks[0], true));
    }
    for epoch in epochs(last) {
        svg.text([x(epoch), TOP + tall + 20.0], 13.0, Anchor::Middle, GREY, &epoch.to_string());
    }
    svg.text([left + CURVES / 2.0, TOP + tall + 42.0], 13.0, Anchor::Middle, INK, "epoch");
    let mut placed: Vec<[f64; 2]> = Vec::new();
    for run in all() {
        let points: Vec<[f64; 2]> = run.history.iter().map(|&(e, v)| [x(e), y(v)]).collect();
        svg.curve(&points, colour(run), run.freeze == "frozen");
        let Some((&[px, py], &(_, best))) = points.iter().zip(&run.history).find(|(_, (e, _))| *e == run.epoch) else { continue };
        let title = format!("{} {}: {:.1}% at epoch {}", run.backbone, run.freeze, 100.0 * best, run.epoch);
        svg.dot([px, py], 4.0, colour(run), &title);
        if groups.len() > 1 {
            let (anchor, dx) = if px > left + CURVES * 0.6 { (Anchor::End, -8.0) } else { (Anchor::Start, 8.0) };
            let line = free_line(&placed, [px, py]);
            placed.push([px, line]);
            svg.text([px + dx, line], 11.0, anchor, colour(run), &run.backbone);
        }
    }
}

/// The base line of a name at a point: above it, or else the nearest line below or above on which no other name stands.
fn free_line(placed: &[[f64; 2]], [x, y]: [f64; 2]) -> f64 {
    const LINE: f64 = 13.0;
    const WIDEST: f64 = 80.0;
    let free = |line: &f64| placed.iter().all(|p| (p[0] - x).abs() > WIDEST || (p[1] - line).abs() >= LINE - 0.5);
    let mut lines = (0..8).flat_map(|n| [y - 7.0 - LINE * f64::from(n), y + 15.0 + LINE * f64::from(n)]);
    lines.find(free).unwrap_or(y - 7.0)
}

/// Wilson's 95% interval of a share of `n`.
fn wilson(share: f64, n: usize) -> [f64; 2] {
    let (n, z) = (n.max(1) as f64, 1.959_964);
    let middle = (share + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    [(middle - half).max(0.0), (middle + half).min(1.0)]
}

/// `42 s`, `5.7 min`, `2.3 h`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_wilsons() {
        // SciPy: binomtest(87, 100).proportion_ci(method="wilson").
        let [low, high] = wilson(0.87, 100);
        assert!((low - 0.790_196).abs() < 1e-5 && (high - 0.922_428).abs() < 1e-5, "{low} {high}");
        assert_eq!(wilson(1.0, 0)[1], 1.0);
    }

    #[test]
    fn names_at_one_point_stand_on_lines_of_their_own() {
        let mut placed = Vec::new();
        for expected in [93.0, 115.0, 80.0, 128.0] {
            assert_eq!(free_line(&placed, [50.0, 100.0]), expected);
            placed.push([50.0, expected]);
        }
        assert_eq!(free_line(&placed, [200.0, 100.0]), 93.0);
    }

    #[test]
    fn runs_of_a_backbone_stand_together() {
        let run = |backbone: &str, freeze: &str| Trained {
            backbone: backbone.into(),
            freeze: freeze.into(),
            accuracy: 0.9,
            epoch: 1,
            seconds: 3.0,
            history: vec![(1, 0.9)],
            validated: 10,
        };
        let runs = [run("VGG16", "frozen"), run("Xception", "frozen"), run("VGG16", "unfrozen")];
        assert_eq!(grouped(&runs).iter().map(|g| g.1.len()).collect::<Vec<_>>(), [2, 1]);
        let text = compare("t", &runs);
        assert!(!text.contains("NaN") && text.matches("best at epoch").count() == 3);
    }
}
