//! What `defrost check` shows a person.

use crate::data::check::{Alike, Report, Size};
use crate::report::{Align, Table};

/// Paths shown of each kind of finding but bad files, which are all named; JSON has all.
const SHOWN: usize = 20;

/// The classes, then every kind of finding with its first paths, then the sentences that a training run would say.
pub fn text(r: &Report) -> String {
    let mut classes = Table::new(&[("class", Align::Left), ("images", Align::Right), ("train", Align::Right), ("val", Align::Right)]);
    let row = |name: &str, numbers: [usize; 3]| [name.to_string()].into_iter().chain(numbers.map(|n| n.to_string())).collect::<Vec<_>>();
    r.classes.iter().for_each(|c| classes.row(row(&c.name, [c.images, c.train, c.val])));
    classes.rule();
    let sum = |of: fn(&crate::data::check::ClassCount) -> usize| r.classes.iter().map(of).sum();
    classes.row(row("all", [sum(|c| c.images), sum(|c| c.train), sum(|c| c.val)]));
    let formats: Vec<String> = r.formats.iter().map(|(name, n)| format!("{n} {name}")).collect();
    let mut text = format!("{classes}\nformats: {}\n", formats.join(", "));
    if let Some([least, most]) = &r.sizes {
        text += &format!("sizes: {} x {} to {} x {} pixels\n", least.width, least.height, most.width, most.height);
    }
    if let Some(groups) = r.groups {
        text += &format!("groups: {groups}\n");
    }
    text += &findings(r);
    let said = r.sentences();
    match said.len() {
        0 => text + "\nnothing found that would spoil a result\n",
        _ => text + "\nworth knowing:\n" + &said.iter().map(|s| format!("  {s}\n")).collect::<String>(),
    }
}

/// The paths of every finding, kind by kind.
fn findings(r: &Report) -> String {
    let alike = |a: &Alike| {
        let notes = [(a.across_classes, "two classes"), (a.across_split, "both sides of the split")];
        let notes: Vec<&str> = notes.iter().filter(|(is, _)| *is).map(|(_, note)| *note).collect();
        let paths = a.paths.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if a.paths.len() > 5 { format!(" and {} more", a.paths.len() - 5) } else { String::new() };
        let note = if notes.is_empty() { String::new() } else { format!("  [{}]", notes.join(", ")) };
        paths + &more + &note
    };
    let size = |s: &Size| format!("{}  {} x {}", s.path, s.width, s.height);
    // Those that matter first.
    let sorted = |list: &[Alike]| {
        let mut list = list.to_vec();
        list.sort_by_key(|a| (!a.across_classes, !a.across_split));
        list
    };
    [
        section("cannot be read", &r.bad, usize::MAX, |b| format!("{}  {}", b.path, b.reason)),
        section("same bytes", &sorted(&r.duplicates), SHOWN, alike),
        section("near duplicates", &sorted(&r.near_duplicates), SHOWN, alike),
        section("groups on both sides of the split", &r.groups_across_split, SHOWN, String::clone),
        section("tiny", &r.tiny, SHOWN, size),
        section("of one colour", &r.blank, SHOWN, String::clone),
        section("16-bit gray with values above 255", &r.clipped, SHOWN, String::clone),
        section("with an EXIF orientation", &r.turned, SHOWN, String::clone),
        section("not of the format that the name says", &r.misnamed, SHOWN, |m| format!("{}  {}", m.path, m.content)),
    ]
    .concat()
}

/// A heading with the number of findings, and the first of them.
fn section<T>(title: &str, found: &[T], shown: usize, line: impl Fn(&T) -> String) -> String {
    if found.is_empty() {
        return String::new();
    }
    let lines: String = found.iter().take(shown).map(|f| format!("  {}\n", line(f))).collect();
    let more = if found.len() > shown { format!("  and {} more, which --json lists\n", found.len() - shown) } else { String::new() };
    format!("\n{title}: {}\n{lines}{more}", found.len())
}
