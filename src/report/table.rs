//! Plain text tables: columns as wide as their widest cell, two spaces between them.

use std::fmt;
use unicode_width::UnicodeWidthStr;

/// Which side of a column its cells keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// A table that is printed with [`fmt::Display`].
#[derive(Clone, Debug)]
pub struct Table {
    header: Vec<(String, Align)>,
    /// `None` is a rule across the table.
    rows: Vec<Option<Vec<String>>>,
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new(columns: &[(&str, Align)]) -> Self {
        Table { header: columns.iter().map(|&(name, align)| (name.to_string(), align)).collect(), rows: Vec::new() }
    }

    /// Appends a row; cells that are missing at its end are empty.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(Some(cells.into_iter().map(Into::into).collect()));
    }

    /// Appends a rule.
    pub fn rule(&mut self) {
        self.rows.push(None);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            let cells = self.rows.iter().flatten().filter_map(|row| row.get(column));
            cells.chain([&self.header[column].0]).map(|cell| columns(cell)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |cells: &[String]| {
            let mut line = String::new();
            for (column, width) in widths.iter().enumerate() {
                let cell = cells.get(column).map_or("", String::as_str);
                let gap = if column == 0 { "" } else { "  " };
                let pad = " ".repeat(width - columns(cell));
                line += &match self.header[column].1 {
                    Align::Left => format!("{gap}{cell}{pad}"),
                    Align::Right => format!("{gap}{pad}{cell}"),
                };
            }
            line.trim_end().to_string()
        };
        let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1));
        let header: Vec<String> = self.header.iter().map(|(name, _)| name.clone()).collect();
        writeln!(f, "{}\n{rule}", line(&header))?;
        self.rows.iter().try_for_each(|row| match row {
            Some(cells) => writeln!(f, "{}", line(cells)),
            None => writeln!(f, "{rule}"),
        })
    }
}

/// Columns that a text takes on a terminal: two for each Chinese, Japanese or Korean character.
pub fn columns(text: &str) -> usize {
    text.width()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("layer", Align::Left), ("parameters", Align::Right)]);
        table.row(["block1_conv1", "1,792"]);
        table.rule();
        table.row(["sum"]);
        let lines = "layer         parameters\n------------------------\nblock1_conv1       1,792\n------------------------\nsum\n";
        assert_eq!(table.to_string(), lines);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let mut table = Table::new(&[("class", Align::Left), ("images", Align::Right)]);
        table.row(["息肉", "12"]);
        table.row(["pólipo", "3"]);
        assert_eq!(table.to_string(), "class   images\n--------------\n息肉        12\npólipo       3\n");
    }
}
