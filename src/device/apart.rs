//! What a device with memory of its own does besides running steps: the next input travels while the current one computes, and
//! rows that fit stay on it, so that an input is gathered there.
//!
//! What is sent travels beside the steps, so it goes to memory that no step knows. [`Apart::deliver`] moves it into place, in the
//! order of the steps: after what was sent has arrived, and before anything that is sent to the same memory later.

use crate::error::Result;

/// How numbers that stay on a device are stored there; they are gathered as f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    U8,
    F32,
}

impl Stored {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Stored::U8 => 1,
            Stored::F32 => 4,
        }
    }
}

/// A matrix that stays on a device: `[count, len]`, without gaps.
pub struct Rows<M> {
    pub memory: M,
    pub stored: Stored,
    pub count: usize,
    pub len: usize,
    /// Which rows the next gathering reads: room for `count` numbers of 32 bits.
    pub chosen: M,
}

/// The part of a [`Device`](super::Device) whose memory `M` lies apart from the host's.
pub trait Apart<M> {
    /// Memory of `bytes` bytes that can be sent to.
    ///
    /// # Errors
    /// When the device does not have that much.
    fn mailbox(&self, bytes: usize) -> Result<M>;

    /// Copies bytes to the start of a mailbox, beside the steps. Returns once `bytes` has been read.
    fn send(&self, to: &mut M, bytes: &[u8]);

    /// Copies the first `bytes` bytes of a mailbox to byte `at` of another memory, in the order of the steps.
    fn deliver(&self, from: &M, to: &mut M, at: usize, bytes: usize);

    /// `to[i] = rows[chosen[i]]`, `[chosen.len(), len]` f32 without gaps, from byte `at` on, in the order of the steps.
    fn gather(&self, rows: &mut Rows<M>, chosen: &[u32], to: &mut M, at: usize);
}
