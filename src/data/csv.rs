//! Comma-separated values as RFC 4180 has them: a field in quotes may hold commas, line breaks and, doubled, quotes.

/// A field as it is written, in quotes where it must be.
pub fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

/// One line, with its break.
pub fn line<S: AsRef<str>>(fields: impl IntoIterator<Item = S>) -> String {
    fields.into_iter().map(|field| quoted(field.as_ref())).collect::<Vec<_>>().join(",") + "\n"
}

/// The records of a text and the lines on which they begin, counted from 1; empty lines and a byte order mark are passed over.
pub fn records(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut chars = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    let (mut records, mut fields, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut number, mut first) = (false, 1, 1);
    while let Some(c) = chars.next() {
        number += usize::from(c == '\n');
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' if quoted || field.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => (),
            '\n' if !quoted => {
                fields.push(std::mem::take(&mut field));
                records.push((first, std::mem::take(&mut fields)));
                first = number;
            }
            c => field.push(c),
        }
    }
    fields.push(field);
    records.push((first, fields));
    records.retain(|(_, fields)| fields.len() > 1 || !fields[0].trim().is_empty());
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let odd = ["plain", "a, b", "say \"so\"", "two\nlines", ""];
        let text = format!("\u{feff}x,y\r\n\n{}{}last,", line(odd), line(["é"; 2]));
        let read = records(&text);
        assert_eq!(read.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 5, 6]);
        assert_eq!(
            (&read[0].1[..], &read[1].1[..], &read[3].1[..]),
            (&["x", "y"].map(String::from)[..], &odd.map(String::from)[..], &["last", ""].map(String::from)[..])
        );
    }
}
