//! What convolutions take of their own results before those leave: the statistics of a batch norm, the sums of its gradient.
//!
//! | field | the row that it swallowed | later results |
//! | --- | --- | --- |
//! | [`Conv2d::stats`] | [`ChannelStats`](super::ChannelStats) | mean, variance |
//! | [`Conv2dDx::sums`] | [`ScaleShiftSums`](super::ScaleShiftSums) | dscale, dshift |
//!
//! Both are sums over all pixels of what is stored, rounded to the storage type, so that the next pass over it agrees with them.

use super::shapes::many_patches;
use super::{Conv2d, Conv2dDx};
use crate::base::{Shape, Ty, Window};
use crate::ops::activation::Act;
use crate::ops::{Case, Fill, Op};
use std::ops::Range;

/// The types that an epilogue's row reads: the first result, then some of the inputs.
fn read(first: Ty, more: &Range<usize>, ins: &[Ty]) -> Vec<Ty> {
    [&[first], ins.get(more.clone()).unwrap_or_default()].concat()
}

/// The types of the results of a row whose first has type `first`.
pub(super) fn results(first: Ty, epilogue: Option<(Op, Range<usize>)>, ins: &[Ty]) -> Result<Vec<Ty>, String> {
    let later = epilogue.map_or(Ok(Vec::new()), |(op, more)| op.infer(&read(first, &more, ins)))?;
    Ok([vec![first], later].concat())
}

/// The operations of an epilogue.
pub(super) fn flops(epilogue: Option<(Op, Range<usize>)>, ins: &[Ty], outs: &[Ty]) -> u64 {
    epilogue.map_or(0, |(op, more)| op.flops(&read(outs[0], &more, ins), &outs[1..]))
}

/// Windows, images, input pixels and channels: one part of the rows that is not full, several, more than are added up in one go;
/// columns that fill a tile or stick out; rows for each tile of a GPU; strides whose residue classes differ in size, or have no tap.
fn shapes() -> [(Window, usize, [usize; 2], usize, usize); 12] {
    [
        (Window::same(1, 1), 1, [1, 1], 3, 1),
        (Window::same(1, 1), 3, [3, 3], 5, 17),
        (Window::same(3, 1), 1, [5, 17], 17, 3),
        (Window::same(3, 1), 2, [9, 8], 8, 104),
        (Window::same(1, 1), 1, [10, 13], 40, 56),
        (Window::same(3, 1), 1, [7, 10], 16, 32),
        (Window::valid(3, 1), 1, [4, 5], 32, 24),
        (Window::same(3, 2), 1, [17, 15], 104, 8),
        (Window::valid(3, 2), 3, [7, 9], 3, 5),
        (Window::same(1, 2), 2, [9, 8], 24, 40),
        (Window::rect(7, 1), 2, [9, 8], 8, 16),
        (Window::same(1, 1), 1, [66, 64], 8, 8),
    ]
}

/// Cases of [`Conv2d::stats`]: after every other field, and of channels whose mean is far from zero against their deviation.
pub(super) fn stats_cases() -> Vec<Case> {
    let more = [(Window::valid(3, 2), 2, [15, 17], 3, 32), (Window::padded(7, 2, 3), 2, [13, 16], 3, 40), many_patches()];
    let plain = shapes().into_iter().chain(more).map(|(window, images, [h, w], cin, cout)| {
        let ([kh, kw], op) = (window.kernel, Conv2d { stats: true, ..Conv2d::new(window) });
        Case::new(format!("stats, {window} on {images}x{h}x{w}, {cin} to {cout}"), op, &[[images, h, w, cin], [kh, kw, cin, cout]])
    });
    let fused = [(Act::Linear, 9, 17), (Act::Relu, 8, 40), (Act::Sigmoid, 8, 24), (Act::Relu, 3, 32)].map(|(act, cin, cout)| {
        let op = Conv2d { scale: true, bias: true, act, stats: true, ..Conv2d::new(Window::same(3, 1)) };
        let vector = Shape::from([cout]);
        let ins = vec![[2, 9, 7, cin].into(), [3, 3, cin, cout].into(), vector, vector];
        Case::of(format!("stats after {act}, {cin} to {cout}"), op, ins)
    });
    let far = [(5, 7), (16, 40)].map(|(cin, cout)| {
        let op = Conv2d { bias: true, stats: true, ..Conv2d::new(Window::same(1, 1)) };
        let ins = vec![[2, 9, 8, cin].into(), [1, 1, cin, cout].into(), Shape::from([cout])];
        Case::of(format!("stats far from zero, {cin} to {cout}"), op, ins).fill(2, Fill::Offset { mean: 1000.0, deviation: 10.0 })
    });
    plain.into_iter().chain(fused).chain(far).map(Case::forward_only).collect()
}

/// Cases of [`Conv2dDx::mask`].
pub(super) fn mask_cases() -> Vec<Case> {
    let [_, few, odd, large, middle, small, .., strided, _, _, _] = shapes();
    let case = |(act, (window, images, input, cout, cin)): (Act, (Window, usize, [usize; 2], usize, usize))| {
        let ([kh, kw], [h, w]) = (window.kernel, window.on(input[0], input[1]).expect("a case has a place").output);
        let name = format!("mask {act} to {images}x{}x{}, {window}, {cout} to {cin}", input[0], input[1]);
        let ins = [[images, h, w, cout], [kh, kw, cin, cout], [images, input[0], input[1], cin]];
        Case::new(name, Conv2dDx { mask: Some(act), ..Conv2dDx::new(window, input) }, &ins).forward_only()
    };
    let sigmoid = [few, large].map(|shape| (Act::Sigmoid, shape));
    [few, odd, large, middle, small, strided].map(|shape| (Act::Relu, shape)).into_iter().chain(sigmoid).map(case).collect()
}

/// Cases of [`Conv2dDx::sums`].
pub(super) fn sums_cases() -> Vec<Case> {
    let case = |act: Act, (window, images, input, cin, cout): (Window, usize, [usize; 2], usize, usize)| {
        let ([kh, kw], [h, w]) = (window.kernel, window.on(input[0], input[1]).expect("a case has a place").output);
        let (vector, x) = (Shape::from([cin]), [images, input[0], input[1], cin]);
        let ins = vec![[images, h, w, cout].into(), [kh, kw, cin, cout].into(), x.into(), vector, vector];
        let name = format!("sums {act} to {images}x{}x{}, {window}, {cout} to {cin}", input[0], input[1]);
        Case::of(name, Conv2dDx { sums: Some(act), ..Conv2dDx::new(window, input) }, ins).forward_only()
    };
    // The channels of a gradient's result are those of the input: the other way round they fill the same tiles.
    let turned = shapes().map(|(window, images, input, cin, cout)| (window, images, input, cout, cin));
    let others = [(Act::Linear, turned[1]), (Act::Linear, turned[4]), (Act::Sigmoid, turned[2]), (Act::Sigmoid, turned[3])];
    turned.into_iter().map(|shape| (Act::Relu, shape)).chain(others).map(|(act, shape)| case(act, shape)).collect()
}
