//! A few SVG elements, written by hand: coordinates in pixels with at most two decimals, so that equal figures are equal
//! bytes, and fonts that every system has.

use std::fmt::Write;

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// Ink, from dark to barely visible.
pub const INK: &str = "#222222";
pub const GREY: &str = "#666666";
pub const RULE: &str = "#dddddd";

/// A figure in the making, on a white ground.
#[derive(Clone, Debug)]
pub struct Svg {
    width: f64,
    height: f64,
    body: String,
}

impl Svg {
    /// An empty figure.
    pub fn new(width: f64, height: f64) -> Self {
        Svg { width, height, body: String::new() }
    }

    /// A filled rectangle; `title` is what a browser shows under the pointer.
    pub fn rect(&mut self, [x, y]: [f64; 2], [width, height]: [f64; 2], fill: &str, title: &str) {
        let (x, y, width, height) = (n(x), n(y), n(width), n(height));
        let end = if title.is_empty() { "/>".into() } else { format!("><title>{}</title></rect>", escape(title)) };
        let _ = writeln!(self.body, r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"{end}"#);
    }

    /// A straight line.
    pub fn line(&mut self, from: [f64; 2], to: [f64; 2], colour: &str, width: f64) {
        let [x1, y1, x2, y2] = [from[0], from[1], to[0], to[1]].map(n);
        let width = n(width);
        let _ = writeln!(self.body, r#"<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="{width}"/>"#);
    }

    /// A curve through points; `dashed` tells two curves apart where colour cannot.
    pub fn curve(&mut self, points: &[[f64; 2]], colour: &str, dashed: bool) {
        let points: Vec<String> = points.iter().map(|[x, y]| format!("{},{}", n(*x), n(*y))).collect();
        let dash = if dashed { r#" stroke-dasharray="6 4""# } else { "" };
        let style = format!(r#"fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"{dash}"#);
        let _ = writeln!(self.body, r#"<polyline points="{}" {style}/>"#, points.join(" "));
    }

    /// A dot.
    pub fn dot(&mut self, [x, y]: [f64; 2], radius: f64, colour: &str, title: &str) {
        let (x, y, r) = (n(x), n(y), n(radius));
        let _ = writeln!(self.body, r#"<circle cx="{x}" cy="{y}" r="{r}" fill="{colour}"><title>{}</title></circle>"#, escape(title));
    }

    /// A line of text on the baseline `y`.
    pub fn text(&mut self, [x, y]: [f64; 2], size: f64, anchor: Anchor, colour: &str, text: &str) {
        self.turned([x, y], 0.0, size, anchor, colour, text);
    }

    /// A line of text turned clockwise by `degrees` about its point.
    pub fn turned(&mut self, [x, y]: [f64; 2], degrees: f64, size: f64, anchor: Anchor, colour: &str, text: &str) {
        let (x, y, size) = (n(x), n(y), n(size));
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let turn = if degrees == 0.0 { String::new() } else { format!(r#" transform="rotate({} {x} {y})""#, n(degrees)) };
        let style = format!(r#"font-size="{size}" text-anchor="{anchor}" fill="{colour}"{turn}"#);
        let _ = writeln!(self.body, r#"<text x="{x}" y="{y}" {style}>{}</text>"#, escape(text));
    }

    /// The file's text.
    pub fn finish(self) -> String {
        let (w, h) = (n(self.width), n(self.height));
        let fonts = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif";
        let open = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" viewBox="0 0 {w} {h}" font-family="{fonts}" font-size="13">"##
        );
        format!("{open}\n<rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n{}</svg>\n", self.body)
    }
}

/// A number with at most two decimals and no trailing zeros.
fn n(x: f64) -> String {
    let text = format!("{x:.2}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "-0" => "0".into(),
        short => short.into(),
    }
}

/// The text with the characters replaced that XML reserves, and control characters left out.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// About how wide a text is in pixels, in the widest of the fonts above.
pub fn text_width(text: &str, size: f64) -> f64 {
    let width = |c: char| match c {
        'i' | 'j' | 'l' | '.' | ',' | ':' | '\'' | '|' | '!' => 0.31,
        'f' | 'r' | 't' | '-' | ' ' | '(' | ')' => 0.39,
        'm' | 'w' | 'M' | 'W' => 0.95,
        c if c.is_uppercase() || !c.is_ascii() => 0.7,
        _ => 0.61,
    };
    size * text.chars().map(width).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_numbers_are_short() {
        let mut svg = Svg::new(10.0, 20.5);
        svg.text([1.0, 2.333_33], 12.0, Anchor::Middle, INK, "a<b & \"c\"");
        let text = svg.finish();
        assert!(text.contains(r##"font-size="12" text-anchor="middle" fill="#222222">a&lt;b &amp; &quot;c&quot;</text>"##), "{text}");
        assert!(text.contains(r#"viewBox="0 0 10 20.5""#));
        assert_eq!([n(-0.001), n(3.10), n(100.0)], ["0", "3.1", "100"]);
    }
}
