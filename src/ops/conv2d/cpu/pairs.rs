//! Operands rounded to bf16, two in a word of 32 bits: what convolutions multiply under [`Math::Bf16`].
//!
//! For each word a register tile adds two products, `sum + a0 b0 + a1 b1`, in the time of one. Operands are copied on their way into the
//! tiles anyway, and become words there; from then on words are counted where otherwise floats are. A word holds two neighbours along
//! the sum: two input channels in the forward pass and the input gradient, two result pixels of a row in the filter gradient. What an
//! odd end leaves free is zero. Rounding is to the nearest, ties to even; what is too small for a normal number becomes zero.

use super::pack::panel_columns;
use crate::base::Math;
use crate::device::cpu::tile::Tile;
use crate::device::cpu::{Cpu, Dst, Src};
use crate::ops::scale_shift::cpu::Coefficients;
use std::ops::Range;
use std::ptr::null;

/// Words that hold `channels` of a pixel.
pub(super) fn words(math: Math, channels: usize) -> usize {
    if math == Math::Bf16 { channels.div_ceil(2) } else { channels }
}

/// What a convolution of `cin` channels multiplies: to round few of them costs more than it saves.
pub(super) fn worthwhile(math: Math, cin: usize) -> Math {
    if cin < 16 { Math::Full } else { math }
}

/// A row of pixels as words of two pixels each: word `w` is of the pixels `each * w` and `each * w + step`.
pub(super) struct PixelRow {
    /// Pixel 0, and the floats from pixel to pixel.
    pub first: *const f32,
    pub pixel: usize,
    /// Pixels that exist; the others are zeros.
    pub real: Range<usize>,
    pub each: usize,
    pub step: usize,
    pub words: usize,
}

impl PixelRow {
    /// A pixel's first channel; null for one that does not exist.
    fn at(&self, q: usize) -> *const f32 {
        if self.real.contains(&q) { self.first.wrapping_add(q * self.pixel) } else { null() }
    }
}

/// A vector of channels from `channel` on, for every pixel (or word): where the first one goes, and the floats to the next.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub channel: usize,
    pub at: usize,
    pub step: usize,
}

/// `to[r][i] = (x[r][2 i], x[r][2 i + 1])` for `rows` x `cols` floats, normalised by `k`.
///
/// # Safety
/// Both matrices are valid over these extents, `k` has `cols` floats, and the processor has the instructions. `to` may be `x`: what a word is
/// made of lies at its place or behind it.
pub(super) unsafe fn channel_pairs(x: (*const f32, usize), k: Option<Coefficients>, to: (*mut f32, usize), rows: usize, cols: usize) {
    // SAFETY: the caller's promise.
    unsafe { native::channel_pairs(x, k, to, rows, cols) }
}

/// `to[w][c] = (x[each w][c], x[each w + step][c])` for `cols` channels, normalised by `k`, then zeros up to `lanes` words.
///
/// # Safety
/// As for [`channel_pairs`]; `to` is valid over `lanes` words, `pitch` apart.
pub(super) unsafe fn pixel_pairs(x: &PixelRow, k: Option<Coefficients>, to: *mut f32, pitch: usize, cols: usize, lanes: usize) {
    // SAFETY: the caller's promise.
    unsafe { native::pixel_pairs(x, k, to, pitch, cols, lanes) }
}

/// The words of [`pixel_pairs`], piece by piece: a vector of channels, and zeros behind the last one of a pixel, for each.
///
/// # Safety
/// As for [`channel_pairs`], with `cols` channels a pixel, in which the pieces begin, in order; the first pixel of each word exists.
/// `to` is valid over the vectors of every piece, [`Piece::at`] and all its steps.
pub(super) unsafe fn piece_pairs(x: &PixelRow, k: Option<Coefficients>, to: *mut f32, pieces: &[Piece], cols: usize) {
    // SAFETY: the caller's promise.
    unsafe { native::piece_pairs(x, k, to, pieces, cols) }
}

/// As [`pack`](super::pack::pack), for a kernel `[taps, in, out]` with `cin` inputs: panels of `[taps * words of in, panel width]`.
pub(super) fn pack(cpu: &Cpu, w: Src, cin: usize, packed: Dst) {
    let (tile, words) = (Tile::of(cpu.isa), words(Math::Bf16, cin));
    let depth = w.rows / cin * words;
    cpu.pool.parts(w.cols.div_ceil(tile.width()), |panel, _| {
        let (columns, padded) = panel_columns(tile, panel, w.cols);
        let start = panel * tile.width() * depth;
        // SAFETY: each panel is written by one thread.
        let out = unsafe { packed.part(start..start + padded * depth) };
        for (i, to) in out.chunks_mut(padded).enumerate() {
            let (tap, k) = (i / words, 2 * (i % words));
            let row = |k: usize| if k < cin { w.row(tap * cin + k)[columns.clone()].as_ptr() } else { null() };
            // SAFETY: rows have a float per column of the panel, `to` a word per lane.
            unsafe { native::row_pairs(row(k), row(k + 1), None, to.as_mut_ptr(), columns.len(), padded) }
        }
    });
}

/// As [`pack_transposed`](super::pack::pack_transposed): panels of `[chosen taps * words of out, panel width]`.
pub(super) fn pack_transposed(cpu: &Cpu, w: Src, cin: usize, taps: &(dyn Fn(usize) -> usize + Sync), count: usize, packed: Dst) {
    let (tile, words) = (Tile::of(cpu.isa), words(Math::Bf16, w.cols));
    cpu.pool.parts(cin.div_ceil(tile.width()), |panel, _| {
        let (columns, padded) = panel_columns(tile, panel, cin);
        let start = panel * tile.width() * count * words;
        // SAFETY: each panel is written by one thread.
        let out = unsafe { packed.part(start..start + padded * count * words) };
        for (t, block) in out.chunks_mut(padded * words).enumerate() {
            let first = taps(t) * cin + columns.start;
            transpose(|lane| if lane < columns.len() { w.row(first + lane) } else { &[] }, block, padded);
        }
    });
}

/// `block[i][lane] = (row(lane)[2 i], row(lane)[2 i + 1])`, a few words at a time so that both sides stay in the first cache; absent rows
/// are zero.
fn transpose<'a>(row: impl Fn(usize) -> &'a [f32], block: &mut [f32], lanes: usize) {
    const RUN: usize = 16;
    for (i, out) in block.chunks_mut(RUN * lanes).enumerate() {
        for lane in 0..lanes {
            let (mut line, from) = ([0f32; RUN], row(lane));
            let some = &from[from.len().min(2 * RUN * i)..from.len().min(2 * RUN * (i + 1))];
            // SAFETY: the line holds a word for every two of its floats.
            unsafe { channel_pairs((some.as_ptr(), 0), None, (line.as_mut_ptr(), 0), 1, some.len()) };
            out.iter_mut().skip(lane).step_by(lanes).zip(line).for_each(|(o, word)| *o = word);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod native {
    use super::{Coefficients, Piece, PixelRow};
    use crate::device::cpu::columns::Stream;
    use crate::device::cpu::simd::{Vector, prefetch};
    use crate::ops::activation::Act;
    use std::arch::x86_64::*;

    /// Pixels from those at work to those that are asked for.
    const AHEAD: usize = 8;

    #[target_feature(enable = "avx512f,avx512bw,avx2,fma,avx512bf16")]
    pub unsafe fn channel_pairs(x: (*const f32, usize), k: Option<Coefficients>, to: (*mut f32, usize), rows: usize, cols: usize) {
        // The loop is compiled for each: a test of the activation in it would leave fewer reads under way.
        // SAFETY: the caller's promise.
        unsafe {
            match k.map(|k| (k.act(), k)) {
                None => channel_pairs_of(x, to, rows, cols, |x, _, _| x),
                Some((Act::Relu, k)) => channel_pairs_of(x, to, rows, cols, |x, c, n| k.with(Act::Relu).apply(x, c, n)),
                Some((_, k)) => channel_pairs_of(x, to, rows, cols, |x, c, n| k.apply(x, c, n)),
            }
        }
    }

    /// `to[r][i]` of the `value(x, c, n)` of vectors `x` of the `n` channels from `c`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx2,fma,avx512bf16")]
    unsafe fn channel_pairs_of(
        x: (*const f32, usize),
        to: (*mut f32, usize),
        rows: usize,
        cols: usize,
        value: impl Fn(__m512, usize, usize) -> __m512,
    ) {
        let (x, whole) = (Stream::new(x, cols), cols / 32 * 32);
        // SAFETY: the caller's promise: rows of `cols` floats and of half as many words.
        unsafe {
            for r in 0..rows {
                let to = to.0.add(r * to.1);
                for c in (0..whole).step_by(32) {
                    let [low, high] = [c, c + 16].map(|c| value(x.take(r, c, 16), c, 16));
                    words(low, high).store(to.add(c / 2));
                }
                if whole < cols {
                    // The sigmoid of an absent channel is not zero.
                    let [low, high] = [whole, whole + 16].map(|c| match 16.min(cols.saturating_sub(c)) {
                        0 => __m512::zero(),
                        n => _mm512_maskz_mov_ps(((1u32 << n) - 1) as u16, value(x.take(r, c, n), c, n)),
                    });
                    words(low, high).put(to.add(whole / 2), (cols - whole).div_ceil(2), false);
                }
            }
        }
    }

    /// The 32 floats of two vectors, rounded, in their order.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn words(low: __m512, high: __m512) -> __m512 {
        // SAFETY: the types name the same 64 bytes.
        unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx2,fma,avx512bf16")]
    pub unsafe fn pixel_pairs(x: &PixelRow, k: Option<Coefficients>, to: *mut f32, pitch: usize, cols: usize, lanes: usize) {
        for w in 0..x.words {
            let q = w * x.each;
            for line in (0..x.each).flat_map(|i| (0..cols).step_by(16).map(move |c| i * x.pixel + c)) {
                prefetch(x.first.wrapping_add((q + AHEAD) * x.pixel + line));
            }
            // SAFETY: the caller's promise.
            unsafe { row_pairs(x.at(q), x.at(q + x.step), k, to.add(w * pitch), cols, lanes) }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx2,fma,avx512bf16")]
    pub unsafe fn piece_pairs(x: &PixelRow, k: Option<Coefficients>, to: *mut f32, pieces: &[Piece], cols: usize) {
        // The loop is compiled for each: a test of the activation in it would leave fewer reads under way.
        // SAFETY: the caller's promise.
        unsafe {
            match k.map(|k| (k.act(), k)) {
                None => pieces_of(x, to, pieces, cols, |x, _, _| x),
                Some((Act::Relu, k)) => pieces_of(x, to, pieces, cols, |x, c, n| k.with(Act::Relu).apply(x, c, n)),
                Some((_, k)) => pieces_of(x, to, pieces, cols, |x, c, n| k.apply(x, c, n)),
            }
        }
    }

    /// The words of the `value(x, c, n)` of vectors `x` of the `n` channels from `c`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx2,fma,avx512bf16")]
    unsafe fn pieces_of(x: &PixelRow, to: *mut f32, pieces: &[Piece], cols: usize, value: impl Fn(__m512, usize, usize) -> __m512) {
        let (turns, whole) = (turns(), pieces.partition_point(|piece| piece.channel + 16 <= cols));
        for w in 0..x.words {
            let [a, b] = [x.at(w * x.each), x.at(w * x.each + x.step)];
            // SAFETY: the caller's promise.
            let piece = |piece: &Piece, n: usize| unsafe {
                let c = piece.channel;
                let low = value(__m512::take(a.add(c), n), c, n);
                let high = if b.is_null() { __m512::zero() } else { value(__m512::take(b.add(c), n), c, n) };
                in_turn(turns, low, high).store(to.add(piece.at + w * piece.step));
            };
            pieces[..whole].iter().for_each(|one| piece(one, 16));
            pieces[whole..].iter().for_each(|one| piece(one, cols - one.channel));
        }
    }

    /// From all of one vector of bf16, then all of another, to one of each in turn.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn turns() -> __m512i {
        _mm512_add_epi32(
            _mm512_set1_epi32(16 << 16),
            _mm512_mullo_epi32(_mm512_set1_epi32(0x1_0001), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)),
        )
    }

    /// `(low[c], high[c])`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn in_turn(turns: __m512i, low: __m512, high: __m512) -> __m512 {
        _mm512_castsi512_ps(_mm512_permutexvar_epi16(turns, _mm512_castps_si512(words(low, high))))
    }

    /// `to[c] = (a[c], b[c])` for `cols` channels, a null row being zeros, then zeros up to `lanes` words.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx2,fma,avx512bf16")]
    pub unsafe fn row_pairs(a: *const f32, b: *const f32, k: Option<Coefficients>, to: *mut f32, cols: usize, lanes: usize) {
        // SAFETY: the caller's promise: rows of `cols` floats, and `lanes` words.
        unsafe {
            let turns = turns();
            for c in (0..lanes).step_by(16) {
                let n = 16.min(cols.saturating_sub(c));
                let low = if a.is_null() { __m512::zero() } else { values(a, k, c, n) };
                let high = if b.is_null() { __m512::zero() } else { values(b, k, c, n) };
                in_turn(turns, low, high).put(to.add(c), 16.min(lanes - c), false);
            }
        }
    }

    /// The `n` floats from channel `c` of a row, normalised, then zeros.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx2,fma,avx512bf16")]
    unsafe fn values(row: *const f32, k: Option<Coefficients>, c: usize, n: usize) -> __m512 {
        if n == 0 {
            return _mm512_setzero_ps();
        }
        // SAFETY: the caller's promise.
        unsafe {
            let x = __m512::take(row.add(c), n);
            let Some(k) = k else { return x };
            // The sigmoid of an absent channel is not zero.
            _mm512_maskz_mov_ps(((1u32 << n) - 1) as u16, k.apply(x, c, n))
        }
    }
}

/// A device on such a processor refuses bf16 before anything is compiled for it.
#[cfg(not(target_arch = "x86_64"))]
mod native {
    use super::{Coefficients, Piece, PixelRow};

    const WHY: &str = "this processor has no products of bf16";

    pub unsafe fn channel_pairs(_: (*const f32, usize), _: Option<Coefficients>, _: (*mut f32, usize), _: usize, _: usize) {
        unreachable!("{WHY}");
    }

    pub unsafe fn pixel_pairs(_: &PixelRow, _: Option<Coefficients>, _: *mut f32, _: usize, _: usize, _: usize) {
        unreachable!("{WHY}");
    }

    pub unsafe fn piece_pairs(_: &PixelRow, _: Option<Coefficients>, _: *mut f32, _: &[Piece], _: usize) {
        unreachable!("{WHY}");
    }

    pub unsafe fn row_pairs(_: *const f32, _: *const f32, _: Option<Coefficients>, _: *mut f32, _: usize, _: usize) {
        unreachable!("{WHY}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Isa;
    use half::bf16;

    /// Numbers on, beside and between those of bf16: the ties, up to infinity and NaN.
    fn numbers(count: usize) -> Vec<f32> {
        let steps = [0x0000, 0x0001, 0x7fff, 0x8000, 0x8001, 0xffff];
        let bits = |i: usize| ((0x3f7d + 7 * (i / steps.len()) as u32) << 16) | steps[i % steps.len()];
        let ends = [f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.0, f32::MIN_POSITIVE];
        (0..count).map(|i| if i % 11 == 10 { ends[i / 11 % ends.len()] } else { f32::from_bits(bits(i)) }).collect()
    }

    fn word(low: Option<&f32>, high: Option<&f32>) -> u32 {
        let half = |x: Option<&f32>| u32::from(x.map_or(0, |&x| bf16::from_f32(x).to_bits()));
        half(low) | half(high) << 16
    }

    #[test]
    fn words_are_rounded_to_the_nearest_and_stay_in_bounds() {
        if !Isa::best().has_bf16() {
            return println!("left out: this processor has no products of bf16");
        }
        for n in 0..70 {
            let (a, b) = (numbers(n), numbers(n + 3)[3..].to_vec());
            let mut channels = vec![7f32; n.div_ceil(2) + 1];
            // SAFETY: there is a word for every two floats.
            unsafe { channel_pairs((a.as_ptr(), n), None, (channels.as_mut_ptr(), 0), 1, n) };
            let expected = a.chunks(2).map(|pair| word(pair.first(), pair.get(1))).chain([7f32.to_bits()]);
            assert!(channels.iter().map(|w| w.to_bits()).eq(expected), "{n} channels");
            let lanes = n.next_multiple_of(16);
            let mut pixels = vec![7f32; 2 * lanes + 1];
            let joined = [&a[..], &b[..]].concat();
            let row = PixelRow { first: joined.as_ptr(), pixel: n, real: 0..2, each: 1, step: 1, words: 2 };
            // SAFETY: two rows of `n` floats, and of `lanes` words.
            unsafe { pixel_pairs(&row, None, pixels.as_mut_ptr(), lanes, n, lanes) };
            let first = (0..lanes).map(|c| word(a.get(c), b.get(c)));
            let second = (0..lanes).map(|c| word(b.get(c), None));
            assert!(pixels.iter().map(|w| w.to_bits()).eq(first.chain(second).chain([7f32.to_bits()])), "{n} channels of two pixels");
            // Every third channel begins a piece; the second word's other pixel is missing.
            let pieces: Vec<Piece> = (0..n).step_by(3).map(|channel| Piece { channel, at: 32 * channel, step: 16 }).collect();
            let (mut out, row) = (vec![7f32; 32 * n + 1], PixelRow { first: joined.as_ptr(), pixel: n, real: 0..2, each: 1, step: 1, words: 2 });
            // SAFETY: two rows of `n` floats; a piece is two vectors of words, fewer than there are channels to the next.
            unsafe { piece_pairs(&row, None, out.as_mut_ptr(), &pieces, n) };
            for piece in &pieces {
                let first = (piece.channel..piece.channel + 16).map(|c| word(a.get(c), b.get(c)));
                let second = (piece.channel..piece.channel + 16).map(|c| word(b.get(c), None));
                let words = out[piece.at..piece.at + 32].iter().map(|w| w.to_bits());
                assert!(words.eq(first.chain(second)), "from channel {} of {n}", piece.channel);
            }
            assert_eq!(out[32 * n], 7.0);
        }
    }
}
