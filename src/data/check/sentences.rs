//! A report in a few sentences: what somebody should know who is about to train.

use super::{Alike, Report, TINY_SIDE};

/// The largest class has this many times the images of the smallest before it is worth a word.
const UNEVEN: usize = 10;

impl Report {
    /// What should be known, the worst first; nothing for a sound collection.
    pub fn sentences(&self) -> Vec<String> {
        let classes: (&str, Test) = ("under more than one class", |a| a.across_classes);
        let sides: (&str, Test) = ("on both sides of the split, which flatters validation", |a| a.across_split);
        let tiny = format!("a side under {TINY_SIDE} pixels");
        let found = [
            some(&self.bad, "image", "that cannot be read, left out", |b| &b.path),
            alike(&self.duplicates, "picture", classes),
            alike(&self.duplicates, "picture", sides),
            some(&self.groups_across_split, "group", sides.0, |g| g),
            alike(&self.near_duplicates, "set of near duplicates", classes),
            alike(&self.near_duplicates, "set of near duplicates", sides),
            self.uneven(),
            some(&self.tiny, "image with", &tiny, |t| &t.path),
            some(&self.blank, "image", "of one colour", |p| p),
            some(&self.clipped, "image", "of 16-bit gray with values above 255, which become white as in Pillow; convert to 8 bits", |p| p),
            some(&self.turned, "image", "with an EXIF orientation, which counts only with --exif", |p| p),
            some(&self.misnamed, "file", "not of the format that the name says, read by content", |m| &m.path),
        ];
        self.warnings.iter().cloned().chain(found.into_iter().flatten()).collect()
    }

    fn uneven(&self) -> Option<String> {
        let most = self.classes.iter().max_by_key(|c| c.images)?;
        let least = self.classes.iter().filter(|c| c.images > 0).min_by_key(|c| c.images)?;
        let note = || format!("class `{}` has {} images, `{}` only {}", most.name, most.images, least.name, least.images);
        (most.images >= UNEVEN * least.images).then(note)
    }
}

type Test = fn(&Alike) -> bool;

/// `3 images of one colour (first: a/1.png)`, or nothing of nothing.
fn some<T>(found: &[T], noun: &str, what: &str, path: impl Fn(&T) -> &String) -> Option<String> {
    let first = path(found.first()?);
    Some(format!("{} {what} (first: {first})", counted(found.len(), noun)))
}

/// `2 pictures under more than one class (first: a/1.png, b/3.png)`.
fn alike(groups: &[Alike], noun: &str, (what, test): (&str, Test)) -> Option<String> {
    let found: Vec<&Alike> = groups.iter().filter(|a| test(a)).collect();
    let paths = &found.first()?.paths;
    let shown = paths.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if paths.len() > 3 { format!(" and {} more", paths.len() - 3) } else { String::new() };
    Some(format!("{} {what} (first: {shown}{more})", counted(found.len(), noun)))
}

/// `1 image`, `2 images`, `2 sets of near duplicates`.
fn counted(n: usize, noun: &str) -> String {
    let (head, rest) = noun.split_once(' ').map_or((noun, String::new()), |(head, rest)| (head, format!(" {rest}")));
    format!("{n} {head}{}{rest}", if n == 1 { "" } else { "s" })
}
