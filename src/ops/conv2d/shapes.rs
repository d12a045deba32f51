//! The shapes that convolutions are tried on: every way in which a kernel reads its input, and partial tiles everywhere.

use crate::base::Window;
use crate::ops::activation::Act;

/// Windows, images, pixels and channels of convolutions that normalise their input: every way in which kernels read it.
pub(super) fn pre_shapes() -> [(Act, Window, usize, [usize; 2], usize, usize); 12] {
    [
        (Act::Relu, Window::same(3, 1), 2, [9, 6], 33, 40),
        (Act::Linear, Window::same(3, 1), 1, [6, 6], 16, 48),
        (Act::Relu, Window::same(3, 1), 1, [5, 4], 33, 5),
        (Act::Relu, Window::same(1, 1), 3, [5, 7], 48, 33),
        (Act::Relu, Window::valid(3, 2), 2, [7, 9], 17, 20),
        (Act::Relu, Window::padded(7, 2, 3), 1, [9, 10], 3, 5),
        (Act::Sigmoid, Window::rect(1, 7), 1, [3, 9], 150, 5),
        (Act::Relu, Window::rect(7, 1), 2, [9, 6], 33, 40),
        (Act::Sigmoid, Window::same(5, 1), 1, [6, 7], 33, 40),
        (Act::Relu, Window::rect(1, 3), 2, [3, 8], 33, 40),
        (Act::Sigmoid, Window::rect(1, 7), 1, [3, 5], 20, 17),
        (Act::Sigmoid, Window::same(3, 1), 1, [8, 8], 18, 17),
    ]
}

/// Activation before, whether a scale and bias follow, images and pixels, and channels of 1x1 convolutions behind a depthwise one:
/// images of one row or column, blocks of several rows that end within an image, channels in whole vectors or not, few of them.
pub(super) fn separable_shapes() -> [(Act, bool, [usize; 3], usize, usize); 6] {
    [
        (Act::Linear, false, [2, 5, 7], 33, 40),
        (Act::Relu, true, [1, 9, 6], 48, 17),
        (Act::Relu, false, [3, 4, 1], 5, 3),
        (Act::Linear, true, [1, 1, 1], 16, 32),
        (Act::Linear, true, [1, 1, 9], 70, 64),
        (Act::Relu, true, [2, 19, 19], 728, 5),
    ]
}

/// The first layers of networks, cut to few pixels and filters: pictures, whose rows a GPU cannot read in vectors.
fn pictures() -> [(Window, usize, [usize; 2], usize, usize); 3] {
    [
        (Window::same(3, 1), 2, [9, 11], 3, 64),
        (Window::valid(3, 2), 3, [11, 15], 3, 32),
        (Window::padded(7, 2, 3), 2, [13, 16], 3, 40),
    ]
}

/// So many pixels and columns that the patches of a GPU's product do not fit the scratch memory of one processor at once.
pub(super) fn many_patches() -> (Window, usize, [usize; 2], usize, usize) {
    (Window::same(7, 1), 1, [47, 46], 5, 8)
}

/// Pixels and channels of layers of the four networks, cut to few pixels and few channels on one side: their rounding errors.
pub(super) const DEEP: [(usize, usize, usize); 4] = [(8, 64, 64), (8, 128, 32), (4, 512, 32), (8, 448, 16)];

/// Windows, images, input pixels and channels that every convolution op is tried on.
pub(super) fn shapes() -> Vec<(Window, usize, [usize; 2], usize, usize)> {
    let pads = |top, bottom, left, right| crate::base::Padding::Pads { top, bottom, left, right };
    let shapes = vec![
        (Window::same(1, 1), 3, [3, 3], 5, 17),
        (Window::same(1, 1), 1, [1, 1], 1, 1),
        (Window::same(1, 1), 1, [3, 3], 728, 3),
        (Window::same(1, 1), 1, [3, 3], 3, 728),
        (Window::same(1, 1), 2, [5, 7], 48, 32),
        (Window::same(1, 2), 1, [5, 4], 17, 5),
        (Window::valid(1, 2), 3, [4, 5], 3, 32),
        (Window::same(3, 1), 1, [5, 17], 17, 3),
        (Window::same(3, 1), 3, [7, 6], 3, 32),
        (Window::same(3, 1), 1, [2, 2], 5, 48),
        (Window::same(3, 1), 1, [1, 1], 3, 5),
        (Window::same(3, 1), 1, [3, 31], 1, 1),
        (Window::valid(3, 1), 1, [4, 5], 32, 17),
        (Window::valid(3, 1), 1, [3, 3], 3, 1),
        (Window::valid(3, 2), 3, [7, 9], 3, 5),
        (Window::valid(3, 2), 1, [6, 8], 17, 32),
        (Window::same(3, 2), 1, [6, 7], 5, 3),
        (Window::same(3, 2), 2, [8, 8], 1, 17),
        (Window::same(5, 1), 1, [5, 6], 5, 3),
        (Window::same(5, 1), 1, [3, 2], 3, 17),
        (Window::same(5, 3), 1, [7, 8], 3, 3),
        (Window::padded(7, 2, 3), 1, [9, 10], 3, 5),
        (Window::same(7, 1), 1, [4, 4], 1, 5),
        (Window::rect(1, 7), 1, [3, 9], 17, 5),
        (Window::rect(7, 1), 1, [9, 3], 5, 17),
        (Window::rect(1, 7), 1, [2, 4], 3, 3),
        // Shapes for which a device may take an algorithm with fewer multiplications: tiles that are whole or stick out, channels
        // that fill vectors or do not, padding on all sides, on two, on none.
        (Window::same(3, 1), 2, [9, 6], 33, 40),
        (Window::same(3, 1), 1, [6, 6], 16, 48),
        (Window::same(3, 1), 3, [4, 4], 20, 16),
        (Window::valid(3, 1), 2, [7, 10], 17, 32),
        (Window { kernel: [3, 3], stride: [1, 1], padding: pads(2, 0, 0, 1) }, 1, [8, 5], 16, 19),
        (Window { kernel: [3, 1], stride: [1, 2], padding: pads(3, 0, 0, 2) }, 1, [4, 5], 3, 5),
        (Window { kernel: [2, 3], stride: [3, 1], padding: pads(0, 1, 2, 0) }, 2, [8, 5], 5, 3),
        (Window::rect(1, 7), 2, [4, 17], 33, 40),
        (Window::rect(7, 1), 1, [10, 5], 16, 48),
        (Window::rect(1, 7), 1, [2, 2], 20, 16),
        (Window::same(5, 1), 1, [6, 7], 20, 33),
        (Window::rect(1, 3), 2, [3, 8], 33, 40),
        (Window::rect(3, 1), 1, [8, 5], 40, 33),
        // Channels in whole vectors, and more results than a tile of a GPU has in each direction; then pixels for several splits of
        // a filter's gradient.
        (Window::same(3, 1), 2, [9, 8], 8, 104),
        (Window::same(1, 1), 1, [10, 13], 40, 56),
        (Window::same(3, 2), 1, [17, 15], 104, 8),
        (Window::same(3, 1), 3, [11, 13], 8, 16),
    ];
    shapes.into_iter().chain(pictures()).collect()
}
