//! `split.csv` of a run: which images were trained on and which validated, with the hashes of their bytes.

use std::path::Path;

use crate::data::csv;
use crate::error::{Error, Result};

/// One image of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Relative to DATA, `/` between the parts.
    pub path: String,
    pub class: String,
    /// `train` or `val`.
    pub subset: String,
    /// Of the file's bytes, in hex.
    pub sha256: String,
}

/// The columns, in order.
const COLUMNS: [&str; 4] = ["path", "class", "subset", "sha256"];

/// Reads a `split.csv`.
///
/// # Errors
/// Kind `Input`: no such file, other columns, a line that is cut short, a subset of another name; with the file's name.
pub fn read(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let wrong = |what: String| Error::input(what).at(path.display()).advise("expected the split.csv of a run folder");
    let mut records = csv::records(&text).into_iter();
    let header = records.next().map(|(_, fields)| fields).unwrap_or_default();
    if header != COLUMNS {
        return Err(wrong(format!("its first line is `{}`, expected {}", header.join(","), COLUMNS.join(","))));
    }
    let row = |(line, fields): (usize, Vec<String>)| {
        let [path, class, subset, sha256] =
            <[String; 4]>::try_from(fields).map_err(|fields| wrong(format!("line {line} has {} columns, expected 4", fields.len())))?;
        if subset != "train" && subset != "val" {
            return Err(wrong(format!("line {line} has the subset `{subset}`, expected train or val")));
        }
        Ok(Row { path, class, subset, sha256 })
    };
    records.map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Folder;

    #[test]
    fn rows_are_read_and_other_tables_refused() {
        let f = Folder::new("split-file");
        let path = f.path().join("split.csv");
        f.write("split.csv", b"path,class,subset,sha256\n\"a/x, y.png\",a,train,00ff\nb/1.png,b,val,11\n");
        let rows = read(&path).unwrap();
        assert_eq!((rows.len(), &*rows[0].path, &*rows[1].subset), (2, "a/x, y.png", "val"));
        for (text, part) in [("path,group\n", "path,group"), ("path,class,subset,sha256\na,b\n", "line 2 has 2"), ("", "first line")] {
            f.write("split.csv", text.as_bytes());
            let error = read(&path).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains(part), "{error}");
        }
        f.write("split.csv", b"path,class,subset,sha256\na,b,test,0\n");
        assert!(read(&path).unwrap_err().to_string().contains("`test`"));
    }
}
