//! A confusion matrix: rows are the true classes, columns the predicted ones; each cell has its count and its share of the row.

use super::svg::{Anchor, GREY, INK, Svg, text_width};

/// The figure. `counts[t][p]` counts images of class `t` that were called `p`.
pub fn confusion(title: &str, classes: &[String], counts: &[Vec<usize>]) -> String {
    let k = classes.len();
    let widest = classes.iter().map(|name| text_width(name, LABEL)).fold(0.0, f64::max);
    let cell = cell(k);
    // Short names fit above their columns; others are turned by 45 degrees and lean to the right of them.
    let turned = widest > cell - 8.0;
    let slant = if turned { widest * std::f64::consts::FRAC_1_SQRT_2 } else { 0.0 };
    let (left, top) = ((44.0 + widest + 10.0).round(), (64.0 + if turned { slant + 12.0 } else { 24.0 }).round());
    let totals = 64f64;
    let overhang = (slant - cell / 2.0 + 12.0).max(0.0);
    let side = k as f64 * cell;
    let width = (left + side + totals.max(overhang) + 12.0).max(text_width(title, 16.0) + 40.0).max(left + 300.0);
    let mut svg = Svg::new(width, top + side + 62.0);
    svg.text([20.0, 26.0], 16.0, Anchor::Start, INK, title);
    svg.text([left + side / 2.0, 50.0], 13.0, Anchor::Middle, GREY, "predicted class");
    svg.turned([22.0, top + side / 2.0], -90.0, 13.0, Anchor::Middle, GREY, "true class");
    for (i, name) in classes.iter().enumerate() {
        let middle = (i as f64 + 0.5) * cell;
        svg.text([left - 8.0, top + middle + 4.5], LABEL, Anchor::End, INK, name);
        if turned {
            svg.turned([left + middle + 2.0, top - 8.0], -45.0, LABEL, Anchor::Start, INK, name);
        } else {
            svg.text([left + middle, top - 8.0], LABEL, Anchor::Middle, INK, name);
        }
    }
    for (t, row) in counts.iter().enumerate() {
        let total: usize = row.iter().sum();
        for (p, &count) in row.iter().enumerate() {
            let share = if total == 0 { 0.0 } else { count as f64 / total as f64 };
            draw_cell(
                &mut svg,
                [left + p as f64 * cell, top + t as f64 * cell],
                cell,
                count,
                share,
                &title_of(classes, t, p, count, share),
            );
        }
        svg.text([left + side + 10.0, top + (t as f64 + 0.5) * cell + 4.5], 12.0, Anchor::Start, GREY, &total.to_string());
    }
    svg.text([left + side + 10.0, top + side + 18.0], 12.0, Anchor::Start, GREY, "images");
    ramp(&mut svg, [left, top + side + 24.0]);
    svg.finish()
}

/// Size of the class names.
const LABEL: f64 = 13.0;

/// The side of a cell: large for few classes, still readable for many.
fn cell(classes: usize) -> f64 {
    match classes {
        0..=4 => 84.0,
        5..=8 => 64.0,
        9..=14 => 52.0,
        _ => 42.0,
    }
}

fn title_of(classes: &[String], t: usize, p: usize, count: usize, share: f64) -> String {
    let name = |i: usize| classes.get(i).map_or("?", String::as_str);
    format!("{} called {}: {count}, {:.1}% of the row", name(t), name(p), 100.0 * share)
}

/// A cell with its count and, below it, its share; an empty cell has neither.
fn draw_cell(svg: &mut Svg, [x, y]: [f64; 2], cell: f64, count: usize, share: f64, title: &str) {
    // One pixel of white between the cells.
    svg.rect([x + 0.5, y + 0.5], [cell - 1.0, cell - 1.0], &shade(share), title);
    if count == 0 {
        return;
    }
    let colour = if share > 0.55 { "#ffffff" } else { INK };
    let digits = count.to_string();
    let (large, small): (f64, f64) = ((cell * 0.27).clamp(11.5, 18.0), (cell * 0.2).clamp(9.5, 12.5));
    let large = large.min((cell - 6.0) / text_width(&digits, 1.0));
    svg.text([x + cell / 2.0, y + cell / 2.0 + 1.0], large, Anchor::Middle, colour, &digits);
    let percent = if share > 0.0 && share < 0.01 { "<1%".into() } else { format!("{:.0}%", 100.0 * share) };
    svg.text([x + cell / 2.0, y + cell / 2.0 + small + 4.0], small, Anchor::Middle, colour, &percent);
}

/// From nearly white to dark blue; lightness falls evenly, so it survives a black-and-white print.
fn shade(share: f64) -> String {
    let (white, blue) = ([244.0, 247.0, 251.0], [17.0, 75.0, 135.0]);
    let mix = |i: usize| (white[i] + (blue[i] - white[i]) * share.clamp(0.0, 1.0)).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

/// The legend of the colours.
fn ramp(svg: &mut Svg, [x, y]: [f64; 2]) {
    let (steps, width) = (40, 120.0);
    svg.text([x, y + 10.5], 12.0, Anchor::Start, GREY, "0%");
    for i in 0..steps {
        let at = x + 28.0 + width * i as f64 / steps as f64;
        svg.rect([at, y], [width / steps as f64, 12.0], &shade((i as f64 + 0.5) / steps as f64), "");
    }
    svg.text([x + width + 34.0, y + 10.5], 12.0, Anchor::Start, GREY, "100% of the row");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_is_in_the_figure() {
        let classes: Vec<String> = ["normal", "impacted-stool"].map(String::from).to_vec();
        let text = confusion("Validation", &classes, &[vec![41, 3], vec![0, 1234]]);
        for part in [">41<", ">3<", ">1234<", "impacted-stool called normal: 0, 0.0% of the row", ">93%<"] {
            assert!(text.contains(part), "{part}");
        }
        assert_eq!(text, confusion("Validation", &classes, &[vec![41, 3], vec![0, 1234]]));
    }
}
