//! Changes to bytes that break a format where it hurts: lengths, addresses, counts, and the words of a text.

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64, number: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }
}

/// Where structures of HDF5 and zip begin.
const SIGNATURES: [&[u8]; 19] = [
    b"TREE",
    b"SNOD",
    b"HEAP",
    b"GCOL",
    b"FRHP",
    b"FHIB",
    b"FHDB",
    b"BTHD",
    b"BTLF",
    b"BTIN",
    b"OHDR",
    b"OCHK",
    b"FAHD",
    b"FADB",
    b"\x89HDF",
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"PK\x06\x06",
];

/// Makes one to six changes.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len());
        match random.below(10) {
            0 => set(bytes, at, &[random.next() as u8]),
            1 => flip(bytes, random),
            2 => number(bytes, at, random),
            3 | 4 => field(bytes, random),
            5 | 6 => address(bytes, random),
            7 => copy(bytes, random),
            8 => insert_or_remove(bytes, random),
            _ if random.below(4) == 0 => bytes.truncate(at),
            _ => number(bytes, at, random),
        }
    }
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes.iter_mut().skip(at).zip(value).for_each(|(byte, new)| *byte = *new);
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = random.below(bytes.len());
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// A number at the edge of something, of one to eight bytes.
fn number(bytes: &mut [u8], at: usize, random: &mut Random) {
    let len = bytes.len() as u64;
    let edges = [
        0,
        1,
        2,
        0x7f,
        0x80,
        0xff,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        u64::from(u32::MAX),
        i64::MAX as u64,
        u64::MAX,
        len,
        len - len.min(1),
        len / 2,
    ];
    let value = if random.below(4) == 0 { random.next() >> random.below(64) } else { *random.pick(&edges) };
    set(bytes, at, &value.to_le_bytes()[..1 << random.below(4)]);
}

/// A number soon after the signature of a structure.
fn field(bytes: &mut [u8], random: &mut Random) {
    let signature = *random.pick(&SIGNATURES);
    let places: Vec<usize> = bytes.windows(4).enumerate().filter(|(_, w)| w == &signature).map(|(i, _)| i).collect();
    if !places.is_empty() {
        let at = *random.pick(&places) + 4 + random.below(96);
        number(bytes, at, random);
    }
}

/// An address of the file in the place of another: cycles, and structures taken for others.
fn address(bytes: &mut [u8], random: &mut Random) {
    let len = bytes.len() as u64;
    let at = |i: usize| u64::from_le_bytes(std::array::from_fn(|k| bytes.get(i + k).copied().unwrap_or(0)));
    let start = random.below(bytes.len()) & !7;
    let places: Vec<usize> = (start..bytes.len().min(start + 4096)).step_by(8).filter(|&i| (8..len).contains(&at(i))).collect();
    if places.len() > 1 {
        let value = at(*random.pick(&places));
        let to = *random.pick(&places);
        set(bytes, to, &value.to_le_bytes());
    }
}

fn copy(bytes: &mut [u8], random: &mut Random) {
    let (from, to, len) = (random.below(bytes.len()), random.below(bytes.len()), 1 << random.below(8));
    let piece = bytes[from..bytes.len().min(from + len)].to_vec();
    set(bytes, to, &piece);
}

fn insert_or_remove(bytes: &mut Vec<u8>, random: &mut Random) {
    let (at, len) = (random.below(bytes.len() + 1), 1 << random.below(6));
    if random.below(2) == 0 {
        bytes.drain(at..bytes.len().min(at + len));
    } else {
        let value = random.next() as u8;
        bytes.splice(at..at, std::iter::repeat_n(value, len));
    }
}

/// Changes to a text of JSON or TOML: words doubled, exchanged, left out, nested, numbers made absurd.
pub fn mutate_text(text: &mut Vec<u8>, random: &mut Random) {
    let edges: Vec<usize> = (1..text.len()).filter(|&i| text[i - 1].is_ascii_alphanumeric() != text[i].is_ascii_alphanumeric()).collect();
    if edges.len() < 4 {
        return;
    }
    for _ in 0..=random.below(4) {
        let i = random.below(edges.len() - 1);
        let span = |text: &[u8]| edges[i].min(text.len())..edges[i + 1].min(text.len());
        let range = span(text);
        match random.below(7) {
            0 => drop(text.splice(range, [])),
            1 => {
                let word = text[range.clone()].repeat(1 << random.below(12));
                drop(text.splice(range, word));
            }
            2 => {
                let other = random.below(edges.len() - 1);
                let word = text[edges[other].min(text.len())..edges[other + 1].min(text.len())].to_vec();
                drop(text.splice(range, word));
            }
            3 => {
                let numbers = [
                    "-1",
                    "0",
                    "1e999",
                    "18446744073709551616",
                    "-9223372036854775809",
                    "0.0000001",
                    "null",
                    "NaN",
                    "[]",
                    "{}",
                    "\"\"",
                    "true",
                ];
                drop(text.splice(range, random.pick(&numbers).bytes()));
            }
            4 => {
                let (open, close) = *random.pick(&[("[", "]"), ("{\"a\":", "}"), ("{\"config\":{\"layers\":[", "]}}")]);
                let depth = 1 << random.below(15);
                let nested =
                    [open.repeat(depth), "0".into(), if random.below(2) == 0 { close.repeat(depth) } else { String::new() }].concat();
                drop(text.splice(range, nested.bytes()));
            }
            5 => drop(text.splice(range, [random.next() as u8, random.next() as u8])),
            _ => text.truncate(range.start),
        }
    }
}
