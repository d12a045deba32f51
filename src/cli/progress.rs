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
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Lines between two of which at least this long passes, where there is no terminal.
const QUIET: Duration = Duration::from_secs(30);

/// The listener of `defrost train`.
pub struct Progress {
    bar: Option<ProgressBar>,
    state: Mutex<State>,
}

struct State {
    pace: Pace,
    last_line: Instant,
}

/// How fast a stage moves. Its first images took the time since anything else was told; from then on the pace is that of those
/// after them. A clock that started with the first news of a stage would count its first batch as done in no time.
struct Pace {
    /// What the bar shows now; a new stage starts it anew.
    stage: String,
    since: Instant,
    /// Done at that time.
    before: usize,
    /// When anything was told last.
    heard: Instant,
    /// Images per second.
    rate: f64,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Pace { stage: String::new(), since: now, before: 0, heard: now, rate: 0.0 }
    }

    /// So many are done of a stage; whether it is a new one.
    fn advance(&mut self, stage: &str, done: usize, now: Instant) -> bool {
        let new = self.stage != stage;
        if new {
            (self.stage, self.since, self.before, self.rate) = (stage.into(), self.heard, 0, 0.0);
        }
        if done > self.before {
            self.rate = (done - self.before) as f64 / (now - self.since).as_secs_f64().max(1e-9);
        }
        if new {
            (self.since, self.before) = (now, done);
        }
        new
    }
}

impl Progress {
    /// A bar if stderr is a terminal.
    ///
    /// Ctrl-C from now on is the run's to answer.
    pub fn new() -> Self {
        interrupt::listen();
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(1));
        let now = Instant::now();
        Progress { bar, state: Mutex::new(State { pace: Pace::new(now), last_line: now }) }
    }

    /// Moves the bar of a stage; without one, prints a line now and then.
    fn advance(&self, stage: String, done: usize, total: usize, note: &str) {
        self.advance_by(stage, done, total, note, "images");
    }

    fn advance_by(&self, stage: String, done: usize, total: usize, note: &str, unit: &str) {
        let mut state = self.state();
        if state.pace.advance(&stage, done, Instant::now()) {
            state.last_line = state.pace.heard;
            if let Some(bar) = &self.bar {
                let style = ProgressStyle::with_template("{prefix:12} {bar:32} {pos}/{len}  {msg}  {elapsed} < {eta}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_message("");
                bar.set_prefix(stage.clone());
                bar.reset();
            }
        }
        let rate = state.pace.rate;
        match &self.bar {
            Some(bar) => {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
                bar.set_message(format!("{note}{rate:.1} {unit}/s"));
            }
            None if state.last_line.elapsed() > QUIET => {
                state.last_line = Instant::now();
                let left = (total - done) as f64 / rate.max(1e-9);
                tell(&format!("{stage}: {done}/{total}  {note}{rate:.1} {unit}/s, {left:.0} s left"));
            }
            None => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
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
        self.state().pace.heard = Instant::now();
        Ok(())
    }

    fn interrupted(&self) -> Option<Duration> {
        interrupt::waiting()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_counts_what_the_first_step_took_and_later_ones_without_it() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(start);
        // A first step of 4 seconds, then two of 2.
        assert!(pace.advance("epoch 1/2", 16, at(4)) && pace.rate == 4.0);
        assert!(!pace.advance("epoch 1/2", 32, at(6)) && pace.rate == 8.0);
        assert!(!pace.advance("epoch 1/2", 48, at(8)) && pace.rate == 8.0);
        // Validation in one batch, after a line that came at second 10; nothing new changes nothing.
        pace.heard = at(10);
        assert!(pace.advance("validating", 6, at(12)) && pace.rate == 3.0);
        assert!(!pace.advance("validating", 6, at(13)) && pace.rate == 3.0);
    }
}
