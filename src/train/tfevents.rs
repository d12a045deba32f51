//! TensorBoard's event files: TFRecords of `Event` messages, as much of both as scalars need.
//!
//! ```text
//! record    length u64, masked crc32c of it, payload, masked crc32c of it; all little-endian
//! masked    rotate_right(crc, 15) + 0xa282ead8
//! Event     1 wall_time double, 2 step int64, 3 file_version string, 5 summary Summary, 7 session_log SessionLog
//! Summary   1 value Value { 1 tag string, 2 simple_value float }
//! SessionLog 1 status enum, of which 1 is START: what lies at this step and after was written by a run that was given up
//! ```
//!
//! Sources: `tensorflow/core/lib/io/record_writer.h`, `tensorboard/compat/proto/{event,summary}.proto`.

/// What one record says.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The first record of every file.
    Version,
    /// A run goes on from `step`.
    Start,
    Scalar {
        tag: String,
        value: f32,
    },
    /// Something that this program does not write.
    Other,
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Seconds since 1970.
    pub wall_time: f64,
    pub step: u64,
    pub what: What,
}

/// The wire types of protobuf that occur.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Event {
    /// The event as a record.
    pub fn record(&self) -> Vec<u8> {
        let mut message = field(1, FIXED64, &self.wall_time.to_le_bytes());
        if self.step > 0 {
            message.extend(field(2, VARINT, &varint(self.step)));
        }
        message.extend(match &self.what {
            What::Version => text(3, b"brain.Event:2"),
            What::Start => text(7, &field(1, VARINT, &[1])),
            What::Scalar { tag, value } => text(5, &text(1, &[text(1, tag.as_bytes()), field(2, FIXED32, &value.to_le_bytes())].concat())),
            What::Other => Vec::new(),
        });
        let length = (message.len() as u64).to_le_bytes();
        [&length[..], &masked(&length), &message, &masked(&message)].concat()
    }

    /// A message; nothing if it is damaged.
    fn parse(message: &[u8]) -> Option<Event> {
        let mut event = Event { wall_time: 0.0, step: 0, what: What::Other };
        for part in Fields(message) {
            match part? {
                (1, Part::Fixed64(bytes)) => event.wall_time = f64::from_le_bytes(bytes),
                (2, Part::Varint(step)) => event.step = step,
                (3, Part::Bytes(_)) => event.what = What::Version,
                (5, Part::Bytes(summary)) => event.what = scalar(summary)?,
                (7, Part::Bytes(log)) if log == [1 << 3, 1] => event.what = What::Start,
                _ => {}
            }
        }
        Some(event)
    }
}

/// The records of a file with their events, up to its end or the first damage.
pub fn records(mut bytes: &[u8]) -> Vec<(&[u8], Event)> {
    let mut found = Vec::new();
    while let Some((record, event)) = first(bytes) {
        found.push((record, event));
        bytes = &bytes[record.len()..];
    }
    found
}

fn first(bytes: &[u8]) -> Option<(&[u8], Event)> {
    let (length, rest) = bytes.split_at_checked(8)?;
    let (check, rest) = rest.split_at_checked(4)?;
    let len = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok().filter(|_| check == masked(length))?;
    let (message, rest) = rest.split_at_checked(len)?;
    let event = Event::parse(message).filter(|_| rest.get(..4) == Some(&masked(message)[..]))?;
    Some((&bytes[..len + 16], event))
}

/// The checksum of a record's part.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn varint(mut x: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
    out
}

fn field(number: u64, wire: u64, payload: &[u8]) -> Vec<u8> {
    [&varint(number << 3 | wire)[..], payload].concat()
}

fn text(number: u64, payload: &[u8]) -> Vec<u8> {
    field(number, BYTES, &[&varint(payload.len() as u64)[..], payload].concat())
}

/// The first value of a summary.
fn scalar(summary: &[u8]) -> Option<What> {
    let Some(Some((1, Part::Bytes(value)))) = Fields(summary).next() else { return Some(What::Other) };
    let (mut tag, mut number) = (String::new(), None);
    for part in Fields(value) {
        match part? {
            (1, Part::Bytes(name)) => tag = String::from_utf8_lossy(name).into_owned(),
            (2, Part::Fixed32(bytes)) => number = Some(f32::from_le_bytes(bytes)),
            _ => {}
        }
    }
    Some(number.map_or(What::Other, |value| What::Scalar { tag, value }))
}

/// What a field holds.
enum Part<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
}

/// The fields of a message with their numbers; `None` at the first damage.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut x = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            x |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(x);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Part<'a>)> {
        let key = self.varint()?;
        let part = match key & 7 {
            VARINT => Part::Varint(self.varint()?),
            FIXED64 => Part::Fixed64(self.take(8)?.try_into().ok()?),
            FIXED32 => Part::Fixed32(self.take(4)?.try_into().ok()?),
            BYTES => {
                let len = usize::try_from(self.varint()?).ok()?;
                Part::Bytes(self.take(len)?)
            }
            _ => return None,
        };
        Some((key >> 3, part))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Part<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorBoard's own `RecordWriter` writes for the same events (tensorboard 2.21).
    fn golden() -> [(Event, &'static str); 3] {
        let scalar = What::Scalar { tag: "epoch_loss".into(), value: 0.75 };
        [
            (
                Event { wall_time: 1.5, step: 0, what: What::Version },
                "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c",
            ),
            (
                Event { wall_time: 1_700_000_000.25, step: 300, what: scalar },
                "2100000000000000017becf60900001040fc54d94110ac022a130a110a0a65706f63685f6c6f7373150000403fc4df6c53",
            ),
            (Event { wall_time: 2.0, step: 7, what: What::Start }, "0f000000000000006d532b0909000000000000004010073a020801d1715dcb"),
        ]
    }

    #[test]
    fn records_are_those_of_tensorboard_to_the_byte_and_are_read_back() {
        let mut file = Vec::new();
        for (event, hex) in golden() {
            let record = event.record();
            assert_eq!(record.iter().map(|b| format!("{b:02x}")).collect::<String>(), hex);
            file.extend(record);
        }
        let read: Vec<Event> = records(&file).into_iter().map(|(_, event)| event).collect();
        assert_eq!(read, golden().map(|(event, _)| event));
        assert_eq!(records(&file).iter().flat_map(|(record, _)| record.to_vec()).collect::<Vec<u8>>(), file);
    }

    #[test]
    fn reading_ends_at_the_first_damage() {
        let parts = golden().map(|(event, _)| event.record());
        let file = parts.concat();
        let ends = [0, parts[0].len(), parts[0].len() + parts[1].len(), file.len()];
        for cut in 0..=file.len() {
            let whole = ends.iter().filter(|&&end| end > 0 && end <= cut).count();
            assert_eq!(records(&file[..cut]).len(), whole, "cut at {cut}");
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x40;
            let before = ends[1..].iter().filter(|&&end| end <= at).count();
            assert_eq!(records(&damaged).len(), before, "flipped at {at}");
        }
    }
}
