//! The two lanes of a GPU, checked: launches and copies in one, what is sent beside them in the other.
//!
//! The emulated device does one thing after the other, and would be right where a GPU is not. So it notes what a GPU could do at
//! the same time: whoever touches memory that something sent may still be on its way to, or sends to memory that something before
//! may still use, has an error. What is sent lands as soon or as late as it may.

use super::Landing;
use crate::device::cuda::DevicePtr;
use std::ops::Range;

/// What both lanes may be doing.
pub struct Lanes {
    landing: Landing,
    /// Sent and not waited for; with the bytes, where they have not landed.
    sent: Vec<(Range<u64>, Vec<u8>)>,
    /// Memory that was ever sent to.
    mailboxes: Vec<Range<u64>>,
    /// The parts of it, and new memory, that launches and copies may still be using.
    used: Vec<Range<u64>>,
}

/// `bytes` bytes from `start` on.
pub fn span(start: DevicePtr, bytes: usize) -> Range<u64> {
    start.0..start.0 + bytes as u64
}

fn meet(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Lanes {
    /// Two idle lanes.
    pub fn new(landing: Landing) -> Self {
        Lanes { landing, sent: Vec::new(), mailboxes: Vec::new(), used: Vec::new() }
    }

    /// Notes that memory is cleared.
    pub fn clear(&mut self, span: Range<u64>) {
        self.used.push(span);
    }

    /// Notes that memory is given back, which waits for all that uses it.
    pub fn free(&mut self, span: &Range<u64>) {
        self.sent.retain(|(to, _)| !meet(to, span));
        self.mailboxes.retain(|to| !meet(to, span));
        self.used.retain(|used| !meet(used, span));
    }

    /// Sends bytes; returns those that land at once.
    ///
    /// # Errors
    /// When something before may still use what lies there.
    pub fn send<'a>(&mut self, to: DevicePtr, bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let span = span(to, bytes.len());
        if self.used.iter().any(|used| meet(used, &span)) {
            return Err(format!("{} bytes are sent to memory that something launched before may still use", bytes.len()));
        }
        if !self.mailboxes.contains(&span) {
            self.mailboxes.push(span.clone());
        }
        let (now, later) = if self.landing == Landing::AtOnce { (bytes, &bytes[..0]) } else { (&bytes[..0], bytes) };
        self.sent.push((span, later.to_vec()));
        Ok(now)
    }

    /// Notes that a launch or a copy touches memory.
    ///
    /// # Errors
    /// When something sent there may still be on its way.
    pub fn touch(&mut self, span: Range<u64>) -> Result<(), String> {
        if self.sent.iter().any(|(to, _)| meet(to, &span)) {
            return Err("memory is used that something sent may still be on its way to".into());
        }
        if self.mailboxes.iter().any(|to| meet(to, &span)) && !self.used.contains(&span) {
            self.used.push(span);
        }
        Ok(())
    }

    /// The launches wait for what was sent; returns what lands now.
    pub fn join(&mut self) -> Vec<(DevicePtr, Vec<u8>)> {
        self.sent.drain(..).filter(|(_, bytes)| !bytes.is_empty()).map(|(to, bytes)| (DevicePtr(to.start), bytes)).collect()
    }

    /// What is sent later waits for the launches so far; so does the host, when it waits for them.
    pub fn hold(&mut self) {
        self.used.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_waits_for_the_other_or_is_told() {
        for landing in [Landing::AtOnce, Landing::AtWait] {
            let mut lanes = Lanes::new(landing);
            lanes.clear(0..64);
            assert!(lanes.send(DevicePtr(0), &[1; 16]).is_err(), "it is being cleared");
            lanes.hold();
            assert_eq!(lanes.send(DevicePtr(0), &[1; 16]).unwrap().len(), if landing == Landing::AtOnce { 16 } else { 0 });
            assert!(lanes.touch(8..24).is_err() && lanes.touch(16..64).is_ok(), "it is on its way");
            assert_eq!(lanes.join().len(), usize::from(landing == Landing::AtWait));
            lanes.touch(8..24).unwrap();
            assert!(lanes.send(DevicePtr(0), &[2; 16]).is_err(), "it is being read");
            lanes.send(DevicePtr(64), &[2; 16]).unwrap();
            lanes.hold();
            lanes.send(DevicePtr(0), &[2; 16]).unwrap();
            lanes.free(&(0..128));
            assert!(lanes.touch(0..128).is_ok());
        }
    }
}
