//! What the ops that walk windows over images share: checks of their operands, and how images are split among threads.

use crate::base::{Geom, Shape, Ty};
use std::ops::Range;

/// Floats per thread below which a loop is not worth sharing out.
const GRAIN: usize = 4096;

/// Channels of a block are a multiple of this: a cache line, and the widest vector.
const LINE: usize = 16;

/// The four axes of an activation.
///
/// # Errors
/// When the value has another rank.
pub fn pixels(what: &str, ty: Ty) -> Result<[usize; 4], String> {
    ty.shape.four().ok_or_else(|| format!("{what} has shape {}, expects images x height x width x channels", ty.shape))
}

/// Checks the shape of an operand that follows from the others.
pub fn shaped(what: &str, ty: Ty, expected: impl Into<Shape>) -> Result<(), String> {
    let expected = expected.into();
    if ty.shape == expected { Ok(()) } else { Err(format!("{what} has shape {}, expects {expected}", ty.shape)) }
}

/// Checks that every window holds a real pixel: the maximum or the mean of nothing is not a number.
pub fn no_window_is_empty(geom: &Geom) -> Result<(), String> {
    let empty = |axis: usize| (0..geom.output[axis]).any(|o| geom.taps(axis, o).is_empty());
    if empty(0) || empty(1) {
        let ([kernel_h, kernel_w], [top, bottom, left, right]) = (geom.kernel, geom.pad);
        return Err(format!("a pad of {top},{bottom},{left},{right} puts a whole {kernel_h}x{kernel_w} window into the padding"));
    }
    Ok(())
}

/// The output coordinates whose windows hold input coordinate `at`: output `o` reads it through tap
/// `at + before - o * stride`.
pub fn readers(geom: &Geom, axis: usize, at: usize) -> Range<usize> {
    let padded = at + geom.before(axis);
    let first = (padded + 1).saturating_sub(geom.kernel[axis]).div_ceil(geom.stride[axis]);
    let last = (padded / geom.stride[axis] + 1).min(geom.output[axis]);
    first..last.max(first)
}

/// Rows of `floats` floats each that a thread should at least get.
pub fn grain(floats: usize) -> usize {
    GRAIN.div_ceil(floats.max(1))
}

/// Asks for the cache line at an address, which need not be valid.
#[inline(always)]
pub fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults and changes no register or memory.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Images cut into blocks of channels until there is enough for every thread: for loops whose parts must not share pixels
/// of one channel. The cut never changes a result, because channels do not meet.
pub struct Blocks {
    blocks: usize,
    width: usize,
    channels: usize,
    images: usize,
}

impl Blocks {
    /// Some four parts for each thread, if there are enough images or channels.
    pub fn new(images: usize, channels: usize, threads: usize) -> Self {
        let wanted = (4 * threads).div_ceil(images.max(1)).min(channels.div_ceil(LINE)).max(1);
        let width = channels.div_ceil(wanted).next_multiple_of(LINE);
        Blocks { blocks: channels.div_ceil(width), width, channels, images }
    }

    /// Number of parts.
    pub fn parts(&self) -> usize {
        self.images * self.blocks
    }

    /// The image and the channels of a part.
    pub fn part(&self, part: usize) -> (usize, Range<usize>) {
        let first = part % self.blocks * self.width;
        (part / self.blocks, first..(first + self.width).min(self.channels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Window;

    #[test]
    fn readers_are_those_with_a_tap_here() {
        for window in [Window::same(5, 2), Window::valid(3, 2), Window::padded(3, 1, 2), Window::valid(2, 3), Window::same(1, 2)] {
            let geom = window.on(11, 8).unwrap();
            for axis in 0..2 {
                for at in 0..geom.input[axis] {
                    let taps = |o| (0..geom.kernel[axis]).any(|k| geom.source(axis, o, k) == Some(at));
                    let real: Vec<_> = (0..geom.output[axis]).filter(|&o| taps(o)).collect();
                    assert_eq!(real, readers(&geom, axis, at).collect::<Vec<_>>(), "{window} axis {axis} at {at}");
                }
            }
        }
    }

    #[test]
    fn blocks_cover_every_channel_once() {
        for (images, channels, threads) in [(1, 1, 1), (3, 728, 2), (1, 64, 16), (40, 17, 2), (2, 33, 8)] {
            let (blocks, mut hits) = (Blocks::new(images, channels, threads), vec![0; images * channels]);
            for part in 0..blocks.parts() {
                let (image, range) = blocks.part(part);
                assert!(!range.is_empty());
                range.for_each(|c| hits[image * channels + c] += 1);
            }
            assert!(hits.iter().all(|&h| h == 1), "{images} images, {channels} channels, {threads} threads");
        }
    }
}
