use std::fmt;

/// Up to four axes. An activation is `[images, height, width, channels]`, features are `[images, channels]`, a
/// convolution kernel is `[kernel_h, kernel_w, in_channels, out_channels]` as Keras stores it, a per-channel vector is
/// `[channels]`.
///
/// Every shape is also a matrix: [`rows`](Self::rows) is the product of all axes but the last, [`cols`](Self::cols) the
/// last. An activation is thereby its pixel matrix, one row per pixel and one column per channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 4],
    rank: usize,
}

impl Shape {
    /// A shape of one to four axes.
    ///
    /// # Panics
    /// If `dims` is empty or longer than four: shapes are written by the program, never read from a file unchecked.
    pub fn new(dims: &[usize]) -> Self {
        assert!((1..=4).contains(&dims.len()), "a shape has one to four axes, not {}", dims.len());
        let mut all = [1; 4];
        all[..dims.len()].copy_from_slice(dims);
        Shape { dims: all, rank: dims.len() }
    }

    /// The axes.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Whether an axis is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of the matrix view: pixels of an activation.
    pub fn rows(&self) -> usize {
        self.dims[..self.rank - 1].iter().product()
    }

    /// Columns of the matrix view: channels of an activation.
    pub fn cols(&self) -> usize {
        self.dims[self.rank - 1]
    }

    /// The four axes of an activation or a kernel; `None` for any other rank.
    pub fn four(&self) -> Option<[usize; 4]> {
        (self.rank == 4).then_some(self.dims)
    }

    /// The same shape with another last axis.
    pub fn with_cols(mut self, cols: usize) -> Self {
        self.dims[self.rank - 1] = cols;
        self
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Shape::new(&dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, d) in self.dims().iter().enumerate() {
            write!(f, "{}{d}", if i == 0 { "" } else { "x" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_matrix() {
        let activation = Shape::from([2, 5, 7, 3]);
        assert_eq!((activation.rows(), activation.cols(), activation.len()), (70, 3, 210));
        let vector = Shape::from([9]);
        assert_eq!((vector.rows(), vector.cols()), (1, 9));
        assert_eq!(activation.to_string(), "2x5x7x3");
    }
}
