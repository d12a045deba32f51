//! Inputs of a device whose memory lies apart from the host's: the next one travels while the current one computes, and rows that
//! stay on the device are gathered there. On any other device there is nothing to gain, and all of this does nothing.

use super::{Host, Program, Session};
use crate::base::DType;
use crate::device::Arena;
use crate::device::apart::{Rows, Stored};
use crate::error::{Error, Result};
use crate::ops::Backend;

/// What a program reads.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Numbers of the host.
    Host(Host<'a>),
    /// Numbers that were sent ahead, and the host's own: they are read if others have been sent since.
    Sent(Sent, Host<'a>),
    /// Rows that stay on the device, by their numbers.
    Rows(&'a [usize]),
}

impl<'a> From<&'a [f32]> for Input<'a> {
    fn from(x: &'a [f32]) -> Self {
        Input::Host(x.into())
    }
}

impl<'a> From<&'a [f64]> for Input<'a> {
    fn from(x: &'a [f64]) -> Self {
        Input::Host(x.into())
    }
}

/// The receipt of an input that was sent ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    number: u64,
    bytes: usize,
}

/// What waits on the device besides the arenas.
pub(super) struct Inputs<M> {
    /// Where the next input is sent.
    mailbox: Option<M>,
    /// How many were sent.
    sent: u64,
    rows: Option<Rows<M>>,
}

impl<M> Default for Inputs<M> {
    fn default() -> Self {
        Inputs { mailbox: None, sent: 0, rows: None }
    }
}

impl<D: Backend> Session<D> {
    /// Sends an input of a later run on its way, while the device computes; `None` on a device that shares the host's memory. What was
    /// sent before, and not read yet, is lost.
    ///
    /// # Errors
    /// When memory is short.
    pub fn send_ahead<'a>(&mut self, data: impl Into<Host<'a>>) -> Result<Option<Sent>> {
        let Some(apart) = self.device.apart() else { return Ok(None) };
        let data = data.into();
        let bytes = data.bytes(self.device.float());
        let held = self.inputs.mailbox.as_ref().map_or(0, |mailbox| self.device.size(mailbox));
        if held < bytes.len() {
            self.inputs.mailbox = None;
            self.inputs.mailbox = Some(apart.mailbox(bytes.len())?);
        }
        if let Some(mailbox) = &mut self.inputs.mailbox {
            apart.send(mailbox, &bytes);
        }
        self.inputs.sent += 1;
        Ok(Some(Sent { number: self.inputs.sent, bytes: bytes.len() }))
    }

    /// Keeps a matrix of `count` rows of `len` numbers on the device, from which [`Input::Rows`] are gathered; `row` has the bytes of
    /// each. It replaces the one before.
    ///
    /// # Errors
    /// On a device that shares the host's memory, and when memory is short.
    pub fn keep_rows<'a>(&mut self, stored: Stored, [count, len]: [usize; 2], row: &dyn Fn(usize) -> &'a [u8]) -> Result<()> {
        if self.device.apart().is_none() {
            return Err(Error::internal("rows are kept on a device that shares the host's memory"));
        }
        self.inputs.rows = None;
        let mut memory = self.device.alloc(count * len * stored.size())?;
        for i in 0..count {
            self.device.write(&mut memory, i * len * stored.size(), row(i));
        }
        let chosen = self.device.alloc(count * size_of::<u32>())?;
        self.inputs.rows = Some(Rows { memory, stored, count, len, chosen });
        self.device.sync()
    }

    /// Whether there are rows that stay on the device.
    pub fn keeps_rows(&self) -> bool {
        self.inputs.rows.is_some()
    }

    /// Puts an input where a program reads it.
    ///
    /// # Errors
    /// When the program has no such input, or one of another size; when rows are asked for that do not stay on the device.
    pub fn feed(&mut self, program: &Program<D>, name: &str, input: Input) -> Result<()> {
        match input {
            Input::Host(data) => self.set(program, name, data),
            Input::Sent(sent, data) if sent.number != self.inputs.sent => self.set(program, name, data),
            Input::Sent(sent, _) => self.deliver(program, name, sent),
            Input::Rows(chosen) => self.gather(program, name, chosen),
        }
    }

    fn deliver(&mut self, program: &Program<D>, name: &str, sent: Sent) -> Result<()> {
        let (arena, offset) = self.dense(program, name, self.device.float(), sent.bytes)?;
        // What lies in the mailbox now has been read.
        self.inputs.sent += 1;
        if let (Some(apart), Some(mailbox)) = (self.device.apart(), &self.inputs.mailbox) {
            apart.deliver(mailbox, self.arenas.get_mut(arena), offset, sent.bytes);
        }
        Ok(())
    }

    fn gather(&mut self, program: &Program<D>, name: &str, chosen: &[usize]) -> Result<()> {
        let [count, len] = self.inputs.rows.as_ref().map_or([0, 0], |rows| [rows.count, rows.len]);
        if let Some(row) = chosen.iter().find(|row| **row >= count).or(chosen.first().filter(|_| chosen.len() > count)) {
            return Err(Error::internal(format!("row {row} of {} is asked for; {count} rows stay on the device", chosen.len())).at(name));
        }
        let (arena, offset) = self.dense(program, name, DType::F32, chosen.len() * len * DType::F32.size())?;
        let chosen: Vec<u32> = chosen.iter().map(|&row| row as u32).collect();
        if let (Some(apart), Some(rows)) = (self.device.apart(), &mut self.inputs.rows) {
            apart.gather(rows, &chosen, self.arenas.get_mut(arena), offset);
        }
        Ok(())
    }

    /// The place of an input of so many bytes that lies without gaps.
    fn dense(&self, program: &Program<D>, name: &str, dtype: DType, bytes: usize) -> Result<(Arena, usize)> {
        let (ty, place) = program.named(name)?;
        let gaps = place.pitch != ty.shape.cols() && ty.shape.rows() > 1;
        if ty.dtype != dtype || ty.bytes() != bytes || gaps {
            let gaps = if gaps { " with gaps" } else { "" };
            let what = format!("has {} {}{gaps}, and {bytes} bytes of {dtype} are to be put there", ty.shape, ty.dtype);
            return Err(Error::internal(what).at(name));
        }
        Ok((place.arena, place.offset))
    }
}
