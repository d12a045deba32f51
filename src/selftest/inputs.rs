//! Inputs on a device with memory of its own: what is sent beside the steps, and rows gathered there, compared byte by byte.

use super::Row;
use crate::device::Device;
use crate::device::apart::{Apart, Rows, Stored};
use crate::error::Result;

/// Messages that are sent through one mailbox, none waiting for the host.
const MESSAGES: usize = 8;

/// Sends messages of `bytes` bytes, and gathers rows of awkward lengths.
///
/// # Errors
/// When the device has no memory for them.
pub fn check<D: Device>(device: &D, bytes: usize) -> Result<Vec<Row>> {
    let Some(apart) = device.apart() else { return Ok(Vec::new()) };
    let row = |case: &str, right: Result<bool>| {
        let fault = match right {
            Ok(true) => None,
            Ok(false) => Some("other bytes arrived".into()),
            Err(error) => Some(error.to_string()),
        };
        Row { case: format!("inputs: {case}"), check: device.describe(), share: 0.0, fault }
    };
    let mut rows = vec![row("sent ahead", sent(device, apart, bytes))];
    for (stored, len) in [(Stored::F32, 1), (Stored::F32, 1025), (Stored::U8, 867), (Stored::U8, 1024)] {
        rows.push(row(&format!("rows of {len} {stored:?} gathered").to_lowercase(), gathered(device, apart, stored, len)));
    }
    Ok(rows)
}

/// The bytes of message or row `i`; no two are alike.
fn pattern(i: usize, bytes: usize) -> impl Iterator<Item = u8> {
    (0..bytes).map(move |k| ((k * 31 + k / 251 + i * 77) % 256) as u8)
}

fn sent<D: Device>(device: &D, apart: &dyn Apart<D::Memory>, bytes: usize) -> Result<bool> {
    let (mut mailbox, mut to) = (apart.mailbox(bytes)?, device.alloc(MESSAGES * bytes)?);
    for i in 0..MESSAGES {
        apart.send(&mut mailbox, &pattern(i, bytes).collect::<Vec<u8>>());
        apart.deliver(&mailbox, &mut to, i * bytes, bytes);
    }
    let mut arrived = vec![0; MESSAGES * bytes];
    device.read(&to, 0, &mut arrived);
    device.sync()?;
    Ok(arrived.into_iter().eq((0..MESSAGES).flat_map(|i| pattern(i, bytes))))
}

fn gathered<D: Device>(device: &D, apart: &dyn Apart<D::Memory>, stored: Stored, len: usize) -> Result<bool> {
    const COUNT: usize = 9;
    const CHOSEN: [u32; 5] = [8, 0, 3, 3, 5];
    /// Bytes before and after what is gathered.
    const AROUND: usize = 64;
    let number = |row: usize, k: usize| ((row * 77 + k * 31) % 256) as u8;
    let bytes: Vec<u8> = (0..COUNT * len)
        .flat_map(|i| match (stored, number(i / len, i % len)) {
            (Stored::U8, x) => vec![x],
            (Stored::F32, x) => (f32::from(x) / 3.0).to_ne_bytes().to_vec(),
        })
        .collect();
    let (mut memory, chosen) = (device.alloc(bytes.len())?, device.alloc(4 * COUNT)?);
    device.write(&mut memory, 0, &bytes);
    let mut rows = Rows { memory, stored, count: COUNT, len, chosen };
    let mut to = device.alloc(2 * AROUND + 4 * len * CHOSEN.len())?;
    apart.gather(&mut rows, &CHOSEN, &mut to, AROUND);
    let mut found = vec![1; device.size(&to)];
    device.read(&to, 0, &mut found);
    device.sync()?;
    let value = |x: u8| if stored == Stored::U8 { f32::from(x) } else { f32::from(x) / 3.0 };
    let expected = CHOSEN.iter().flat_map(|&row| (0..len).flat_map(move |k| value(number(row as usize, k)).to_ne_bytes()));
    let around = || std::iter::repeat_n(0u8, AROUND);
    Ok(found.into_iter().eq(around().chain(expected).chain(around())))
}
