//! PyTorch's order of axes to Keras's.

use super::Layout;

/// The shape in PyTorch of a weight whose shape here is `ours`.
pub fn theirs(layout: Layout, ours: &[usize]) -> Vec<usize> {
    match (layout, ours) {
        (Layout::Kernel, &[height, width, inputs, outputs]) => vec![outputs, inputs, height, width],
        (Layout::Depthwise, &[height, width, channels, one]) => vec![channels, one, height, width],
        (Layout::Dense, &[inputs, outputs]) => vec![outputs, inputs],
        _ => ours.to_vec(),
    }
}

/// The elements in the order of the shape `to`, given in PyTorch's.
pub fn ours(layout: Layout, values: &[f32], to: &[usize]) -> Vec<f32> {
    // Distances between neighbours along the axes of `to` in `values`.
    let (shape, steps) = match (layout, to) {
        // [o, i, h, w] read as [h, w, i, o].
        (Layout::Kernel, &[h, w, i, o]) => ([h, w, i, o], [w, 1, h * w, i * h * w]),
        // [c, 1, h, w] read as [h, w, c, 1].
        (Layout::Depthwise, &[h, w, c, one]) => ([h, w, c, one], [w, 1, one * h * w, 0]),
        (Layout::Dense, &[i, o]) => ([1, 1, i, o], [0, 0, 1, i]),
        _ => return values.to_vec(),
    };
    let mut out = Vec::with_capacity(values.len());
    for a in 0..shape[0] {
        for b in 0..shape[1] {
            for c in 0..shape[2] {
                let start = a * steps[0] + b * steps[1] + c * steps[2];
                out.extend((0..shape[3]).map(|d| values[start + d * steps[3]]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_goes_where_its_indices_say() {
        // Each value tells its indices in PyTorch's order.
        let (o, i, h, w) = (2, 3, 4, 5);
        let theirs_of = |o: usize, i: usize, h: usize, w: usize| (1000 * o + 100 * i + 10 * h + w) as f32;
        let mut values = Vec::new();
        for a in 0..o {
            for b in 0..i {
                for c in 0..h {
                    values.extend((0..w).map(|d| theirs_of(a, b, c, d)));
                }
            }
        }
        let to = [h, w, i, o];
        assert_eq!(theirs(Layout::Kernel, &to), [o, i, h, w]);
        let converted = ours(Layout::Kernel, &values, &to);
        let at = |hi: usize, wi: usize, ii: usize, oi: usize| converted[((hi * w + wi) * i + ii) * o + oi];
        assert_eq!([at(0, 0, 0, 0), at(3, 4, 2, 1), at(1, 2, 0, 1)], [0.0, 1234.0, 1012.0]);

        // As a depthwise kernel the first two axes are one.
        let depthwise = ours(Layout::Depthwise, &values, &[h, w, o * i, 1]);
        assert_eq!(theirs(Layout::Depthwise, &[h, w, o * i, 1]), [o * i, 1, h, w]);
        assert_eq!(depthwise[(w + 2) * o * i + 4], theirs_of(1, 1, 1, 2));

        assert_eq!(ours(Layout::Dense, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2]), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(ours(Layout::Vector, &[1.0, 2.0], &[2]), [1.0, 2.0]);
    }
}
