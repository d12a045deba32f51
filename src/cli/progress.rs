//! Shows a run on stderr: a bar on a terminal, plain lines anywhere else.

use super::interrupt;
use super::output::tell;
use super::train_lines::{best_line, epoch_line, planned_lines, summary_lines};
use crate::error::Result;
use crate::train::folder::Row;
use crate::train::{Event, Listener, Summary};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines between two of which at least this long passes, where there is no terminal.
const QUIET: Duration = Duration::from_secs(30);

/// The listener of `defrost train`.
pub struct Progress {
    bar: Option<ProgressBar>,
    state: Mutex<State>,
}

struct State {
    /// What the bar shows now; a new stage starts it anew.
    stage: String,
    stage_began: Instant,
    last_line: Instant,
}

impl Progress {
    /// A bar if stderr is a terminal.
    ///
    /// Ctrl-C from now on is the run's to answer.
    pub fn new() -> Self {
        interrupt::listen();
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(1));
        let now = Instant::now();
        Progress { bar, state: Mutex::new(State { stage: String::new(), stage_began: now, last_line: now }) }
    }

    /// Moves the bar of a stage; without one, prints a line now and then.
    fn advance(&self, stage: String, done: usize, total: usize, note: &str) {
        self.advance_by(stage, done, total, note, "images");
    }

    fn advance_by(&self, stage: String, done: usize, total: usize, note: &str, unit: &str) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        if state.stage != stage {
            let now = Instant::now();
            (state.stage_began, state.last_line) = (now, now);
            if let Some(bar) = &self.bar {
                let style = ProgressStyle::with_template("{prefix:12} {bar:32} {pos}/{len}  {msg}  {elapsed} < {eta}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_prefix(stage.clone());
                bar.reset();
            }
            state.stage = stage;
        }
        let seconds = state.stage_began.elapsed().as_secs_f64();
        let rate = done as f64 / seconds.max(1e-9);
        match &self.bar {
            Some(bar) => {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                bar.set_message(format!("{note}{rate:.1} {unit}/s"));
            }
            None if state.last_line.elapsed() > QUIET => {
                state.last_line = Instant::now();
                let left = (total - done) as f64 / rate;
                tell(&format!("{}: {done}/{total}  {note}{rate:.1} {unit}/s, {left:.0} s left", state.stage));
            }
            None => {}
        }
    }

    /// Prints a line above the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(text)),
            None => tell(text),
        }
    }

    /// The last words of a run.
    pub fn finish(&self, summary: &Summary, out: &Path) {
        interrupt::hold(false);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        summary_lines(summary).iter().for_each(|l| tell(l));
        written(out);
    }

    /// Takes the bar away.
    pub fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// The words about a run that was to be resumed, but has ended.
    pub fn ended(&self, best: &Row, out: &Path) {
        tell("the run has ended: nothing to resume");
        tell(&best_line(best));
        written(out);
    }
}

/// Where the model is.
fn written(run: &Path) {
    tell(&format!("written: {}", run.join("best.safetensors").display()));
}

impl Listener for Progress {
    fn on(&self, event: Event) -> Result<()> {
        match event {
            Event::Loading { stage, done, total } => self.advance(stage.to_string(), done, total, ""),
            Event::Warning(text) => self.line(&format!("warning: {text}")),
            Event::Note(text) => self.line(text),
            Event::Trial { done, total, lr, loss } => {
                self.advance_by("trying rates".into(), done, total, &format!("rate {lr:.1e}  loss {loss:.4}  "), "steps");
            }
            Event::Features { done, total } => self.advance("features".into(), done, total, ""),
            Event::Validating { done, total } => self.advance("validating".into(), done, total, ""),
            Event::Step { epoch, epochs, images, total, loss, accuracy, .. } => {
                let note = format!("loss {loss:.4}  accuracy {accuracy:.4}  ");
                self.advance(format!("epoch {epoch}/{epochs}"), images, total, &note);
            }
            Event::Planned { .. } => planned_lines(&event).iter().for_each(|l| self.line(l)),
            Event::Epoch { row, epochs, best } => self.line(&epoch_line(row, epochs, best)),
            Event::Started { step, .. } => {
                interrupt::hold(true);
                if step > 0 {
                    self.line(&format!("resumed after {step} steps"));
                }
            }
            Event::Best { .. } | Event::Saved { .. } => {}
            Event::Interrupted { .. } => {
                interrupt::hold(false);
                if let Some(bar) = &self.bar {
                    bar.finish_and_clear();
                }
            }
        }
        Ok(())
    }

    fn interrupted(&self) -> Option<Duration> {
        interrupt::waiting()
    }
}
