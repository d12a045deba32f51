//! Writing what was asked for to stdout, and all else to stderr.

use crate::error::{Error, Result};
use serde::Serialize;
use std::io::{ErrorKind, Write};

/// Prints a text that ends with a line break. A reader that has gone (`defrost summary vgg16 | head`) is no error.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("standard output", &e)),
        _ => Ok(()),
    }
}

/// Prints a value as one line of JSON.
pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Error::internal(format!("a record is not JSON: {e}")))?;
    print(&(text + "\n"))
}

/// A line on stderr. Where nobody listens any more (a closed terminal, `2>&1 | head`), nobody is told, and a run goes on.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Tells of something that is no error.
pub fn warn(text: &str) {
    tell(&format!("warning: {text}"));
}
