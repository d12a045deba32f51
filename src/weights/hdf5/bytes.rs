//! Little-endian numbers from bytes; no read passes the end.

use super::damaged;
use crate::error::Result;

/// The address of what is not there.
const UNDEFINED: u64 = u64::MAX;

/// What has not been read yet.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub fn new(rest: &'a [u8]) -> Self {
        Bytes { rest }
    }

    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub fn len(self) -> usize {
        self.rest.len()
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.short(len as u64))?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn take_u64(&mut self, len: u64) -> Result<&'a [u8]> {
        usize::try_from(len).map_err(|_| self.short(len)).and_then(|len| self.take(len))
    }

    pub fn skip(&mut self, len: usize) -> Result<()> {
        self.take(len).map(|_| ())
    }

    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Result<u16> {
        Ok(self.uint(2)? as u16)
    }

    pub fn u32(&mut self) -> Result<u32> {
        Ok(self.uint(4)? as u32)
    }

    pub fn u64(&mut self) -> Result<u64> {
        self.uint(8)
    }

    /// A number of up to eight bytes.
    pub fn uint(&mut self, len: usize) -> Result<u64> {
        Ok(self.take(len)?.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }

    /// An address; `None` if it says that there is nothing.
    pub fn address(&mut self) -> Result<Option<u64>> {
        Ok(Some(self.u64()?).filter(|&a| a != UNDEFINED))
    }

    /// A text of `len` bytes that ends at its first zero.
    pub fn text(&mut self, len: usize) -> Result<String> {
        Ok(until_zero(self.take(len)?))
    }

    fn short(self, len: u64) -> crate::error::Error {
        damaged(format!("{len} bytes are expected where {} are left", self.rest.len()))
    }
}

/// The text before the first zero.
pub fn until_zero(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|&b| b == 0).next().unwrap_or_default()).into_owned()
}
