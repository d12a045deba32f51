//! What the emulated driver records and replays.

use crate::device::cuda::driver::{Launch, Region};
use std::rc::{Rc, Weak};

/// A recording, and whether its driver is still there: a GPU that is closed takes its graphs along, and destroying one after that is a crash.
pub struct Recorded {
    pub events: Vec<Event>,
    driver: Weak<()>,
}

impl Recorded {
    /// What happened, on the driver that holds `alive`.
    pub fn new(events: Vec<Event>, alive: &Rc<()>) -> Self {
        Recorded { events, driver: Rc::downgrade(alive) }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        assert!(self.driver.strong_count() > 0 || std::thread::panicking(), "a recording outlives its driver");
    }
}

/// What a recording replays.
#[derive(Clone)]
pub enum Event {
    Launch(Launch),
    Forget(Vec<Region>),
    Filled(Vec<Region>),
}
