//! `run.json`: what a run learned before its first step that no setting says, for those who read its report later.

use super::events::{Event, Listener};
use crate::error::{Error, Result};
use crate::weights::replace_file;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// The file's name in a run folder.
pub const FILE: &str = "run.json";

/// What `run.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the program.
    pub defrost: String,
    pub device: String,
    /// Where the weights came from, as a sentence.
    pub weights: String,
    pub parameters: usize,
    pub trainable: usize,
    /// What a reader should know of images and split.
    pub warnings: Vec<String>,
    /// What happened besides: class weights, a lower learning rate, an early end.
    pub notes: Vec<String>,
}

impl Record {
    /// Reads the record of a run; `None` where an older program left none.
    ///
    /// # Errors
    /// Kind `Input`: a file that is not what this program writes.
    pub fn read(run: &Path) -> Result<Option<Self>> {
        let path = run.join(FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|e| Error::input(e.to_string()).at(path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(&path, &e)),
        }
    }
}

/// Listens to a run, keeps its record in the folder, and passes everything on.
pub struct Recorder<'a> {
    file: PathBuf,
    next: &'a dyn Listener,
    record: Mutex<Record>,
    /// What the file holds: it is not written again where nothing has changed.
    written: Mutex<Option<Record>>,
}

impl<'a> Recorder<'a> {
    /// The recorder of the run at `folder`, new or resumed, before the listener `next`.
    ///
    /// # Errors
    /// As [`Record::read`].
    pub fn new(folder: &Path, next: &'a dyn Listener) -> Result<Self> {
        let record = Record { defrost: env!("CARGO_PKG_VERSION").into(), ..Record::read(folder)?.unwrap_or_default() };
        Ok(Recorder { file: folder.join(FILE), next, record: Mutex::new(record), written: Mutex::default() })
    }

    fn write(&self, record: &Record) -> Result<()> {
        let mut written = self.written.lock().unwrap_or_else(|e| e.into_inner());
        if written.as_ref() != Some(record) {
            let text = serde_json::to_string_pretty(record).map_err(|e| Error::internal(e.to_string()))?;
            replace_file(&self.file, |file| file.write_all((text + "\n").as_bytes()))?;
            *written = Some(record.clone());
        }
        Ok(())
    }
}

impl Listener for Recorder<'_> {
    fn on(&self, event: Event) -> Result<()> {
        if let Event::Warning(_) | Event::Note(_) | Event::Planned { .. } | Event::Started { .. } | Event::Epoch { .. } = event {
            let mut record = self.record.lock().unwrap_or_else(|e| e.into_inner());
            match event {
                Event::Warning(text) => add(&mut record.warnings, text),
                Event::Note(text) => add(&mut record.notes, text),
                Event::Planned { trainable, parameters, weights, device, .. } => {
                    (record.trainable, record.parameters) = (trainable, parameters);
                    record.device = device.into();
                    // A resumed run takes its weights from its own state; where they came from at first counts.
                    if record.weights.is_empty() {
                        record.weights = weights.into();
                    }
                }
                _ => self.write(&record)?,
            }
        }
        self.next.on(event)
    }

    fn interrupted(&self) -> Option<Duration> {
        self.next.interrupted()
    }
}

/// A resumed run says again what it said before.
fn add(lines: &mut Vec<String>, line: &str) {
    if !lines.iter().any(|l| l == line) {
        lines.push(line.into());
    }
}
