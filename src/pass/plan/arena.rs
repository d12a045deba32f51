//! Packs buffers into one arena: largest first, each into the smallest gap that is free during its life.

use super::{Buffer, Options};

/// Alignment of every buffer: a cache line, which is also the widest vector.
const ALIGN: usize = 64;

/// Rounds up to a whole number of cache lines.
pub fn align(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN)
}

/// Buffers that wait for an offset.
pub struct Layout {
    buffers: Vec<Buffer>,
    guard: usize,
    reuse: bool,
}

impl Layout {
    /// An empty arena; of the options, `guard` and `reuse` matter.
    pub fn new(options: Options) -> Self {
        Layout { buffers: Vec::new(), guard: align(options.guard), reuse: options.reuse }
    }

    /// A buffer that is in use from row `life.0` to row `life.1`, both included; returns its number.
    pub fn add(&mut self, bytes: usize, life: (usize, usize)) -> usize {
        let life = if self.reuse { life } else { (0, usize::MAX) };
        self.buffers.push(Buffer { bytes, offset: 0, life });
        self.buffers.len() - 1
    }

    /// Gives every buffer its offset; returns the buffers in the order they were added, and the arena's bytes.
    pub fn pack(mut self) -> (Vec<Buffer>, usize) {
        let mut order: Vec<usize> = (0..self.buffers.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(self.buffers[i].bytes), i));
        let mut placed: Vec<usize> = Vec::new(); // by offset
        let mut total = 0;
        for i in order {
            let size = align(self.buffers[i].bytes) + self.guard;
            let offset = self.gap(&placed, i, size);
            self.buffers[i].offset = offset;
            total = total.max(offset + size);
            let at = placed.partition_point(|&j| self.buffers[j].offset <= offset);
            placed.insert(at, i);
        }
        (self.buffers, total)
    }

    /// The start of the smallest gap of at least `size` bytes among the placed buffers alive together with buffer `i`.
    fn gap(&self, placed: &[usize], i: usize, size: usize) -> usize {
        let life = self.buffers[i].life;
        let (mut end, mut best) = (0, None);
        for other in placed.iter().map(|&j| &self.buffers[j]).filter(|o| o.life.0 <= life.1 && life.0 <= o.life.1) {
            let room = other.offset.saturating_sub(end);
            if room >= size && best.is_none_or(|(smallest, _)| room < smallest) {
                best = Some((room, end));
            }
            end = end.max(other.offset + align(other.bytes) + self.guard);
        }
        best.map_or(end, |(_, start)| start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_share_bytes_only_when_their_lives_do_not_meet() {
        let mut layout = Layout::new(Options::default());
        for (bytes, life) in [(1000, (0, 3)), (500, (2, 5)), (900, (4, 9)), (64, (6, 6)), (500, (7, 9))] {
            layout.add(bytes, life);
        }
        let (buffers, total) = layout.pack();
        for (i, a) in buffers.iter().enumerate() {
            assert!(a.offset + a.bytes <= total && a.offset % 64 == 0);
            for b in &buffers[..i] {
                let together = a.life.0 <= b.life.1 && b.life.0 <= a.life.1;
                let apart = a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
                assert!(!together || apart);
            }
        }
        assert_eq!(total, 1024 + 512, "the first and third share a place");
    }
}
