use std::fmt;

/// How a window meets the border of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// No padding: `out = floor((in - kernel) / stride) + 1`.
    Valid,
    /// TensorFlow's SAME: `out = ceil(in / stride)`; an odd pixel of padding goes to the end (bottom, right).
    Same,
    /// Four explicit pads, then as [`Padding::Valid`].
    Pads { top: usize, bottom: usize, left: usize, right: usize },
}

/// The window of a convolution or a pool before it meets an input: kernel, stride, padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: Padding,
}

impl Window {
    /// A square window with SAME padding.
    pub fn same(kernel: usize, stride: usize) -> Self {
        Window { kernel: [kernel; 2], stride: [stride; 2], padding: Padding::Same }
    }

    /// A square window without padding.
    pub fn valid(kernel: usize, stride: usize) -> Self {
        Window { kernel: [kernel; 2], stride: [stride; 2], padding: Padding::Valid }
    }

    /// A square window with the same explicit pad on all four sides.
    pub fn padded(kernel: usize, stride: usize, pad: usize) -> Self {
        let padding = Padding::Pads { top: pad, bottom: pad, left: pad, right: pad };
        Window { kernel: [kernel; 2], stride: [stride; 2], padding }
    }

    /// A rectangular window of stride 1 with SAME padding, for the factorised 1x7 and 7x1.
    pub fn rect(kernel_h: usize, kernel_w: usize) -> Self {
        Window { kernel: [kernel_h, kernel_w], stride: [1; 2], padding: Padding::Same }
    }

    /// The geometry on an input of `height` x `width` pixels.
    ///
    /// # Errors
    /// When the padded input is smaller than the window, with both sizes.
    pub fn on(&self, height: usize, width: usize) -> Result<Geom, String> {
        let pads = match self.padding {
            Padding::Pads { top, bottom, left, right } => [[top, bottom], [left, right]],
            _ => [[0; 2]; 2],
        };
        let axis = |axis: usize, input: usize| -> Result<(usize, [usize; 2]), String> {
            let (kernel, stride) = (self.kernel[axis], self.stride[axis]);
            if kernel == 0 || stride == 0 || input == 0 {
                return Err(format!("a {kernel}-wide window of stride {stride} has no place on {input} pixels"));
            }
            if self.padding == Padding::Same {
                let output = input.div_ceil(stride);
                let total = ((output - 1) * stride + kernel).saturating_sub(input);
                return Ok((output, [total / 2, total - total / 2]));
            }
            let padded = input + pads[axis][0] + pads[axis][1];
            if padded < kernel {
                return Err(format!("input of {height}x{width} pixels is smaller than the {}x{} window", self.kernel[0], self.kernel[1]));
            }
            Ok(((padded - kernel) / stride + 1, pads[axis]))
        };
        let (out_h, [top, bottom]) = axis(0, height)?;
        let (out_w, [left, right]) = axis(1, width)?;
        Ok(Geom {
            kernel: self.kernel,
            stride: self.stride,
            pad: [top, bottom, left, right],
            input: [height, width],
            output: [out_h, out_w],
        })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.kernel[0], self.kernel[1])?;
        if self.stride != [1, 1] {
            write!(f, "/{}", self.stride[0])?;
        }
        match self.padding {
            Padding::Valid => write!(f, " valid"),
            Padding::Same => write!(f, " same"),
            Padding::Pads { top, bottom, left, right } => write!(f, " pad {top},{bottom},{left},{right}"),
        }
    }
}

/// A window on a known input: everything a kernel needs to walk it. Axis 0 is height, axis 1 is width.
///
/// Output pixel `o` reads the input pixels `o * stride + k - pad_before` for `k` in `0..kernel`, as far as they exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geom {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Pixels of padding: top, bottom, left, right. The last rows and columns of a valid window may go unread.
    pub pad: [usize; 4],
    pub input: [usize; 2],
    pub output: [usize; 2],
}

impl Geom {
    /// Padding before the first pixel of an axis: top or left.
    pub fn before(&self, axis: usize) -> usize {
        self.pad[2 * axis]
    }

    /// The input coordinate that output coordinate `out` reads through tap `tap`; `None` in the padding.
    pub fn source(&self, axis: usize, out: usize, tap: usize) -> Option<usize> {
        (out * self.stride[axis] + tap).checked_sub(self.before(axis)).filter(|&i| i < self.input[axis])
    }

    /// The range of taps of output coordinate `out` that lie on real pixels.
    pub fn taps(&self, axis: usize, out: usize) -> std::ops::Range<usize> {
        let start = out * self.stride[axis];
        let first = self.before(axis).saturating_sub(start).min(self.kernel[axis]);
        let last = (self.input[axis] + self.before(axis)).saturating_sub(start).min(self.kernel[axis]);
        first..last.max(first)
    }

    /// Number of taps: height x width of the kernel.
    pub fn taps_total(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether the window is one pixel, stride one, unpadded: a matrix product over the pixel matrix.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.pad == [0; 4]
    }

    /// Multiply-adds of one output channel and one input channel that touch real pixels, over the whole output.
    pub fn real_taps(&self) -> usize {
        let along = |axis: usize| (0..self.output[axis]).map(|o| self.taps(axis, o).len()).sum::<usize>();
        along(0) * along(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_puts_the_odd_pixel_at_the_end() {
        let g = Window::same(3, 2).on(74, 147).unwrap();
        assert_eq!((g.output, g.pad), ([37, 74], [0, 1, 1, 1]));
        let g = Window::same(1, 2).on(147, 147).unwrap();
        assert_eq!((g.output, g.pad), ([74, 74], [0; 4]));
    }

    #[test]
    fn valid_and_explicit_pads_round_down() {
        assert_eq!(Window::valid(3, 2).on(299, 300).unwrap().output, [149, 149]);
        assert_eq!(Window::padded(7, 2, 3).on(224, 224).unwrap().output, [112, 112]);
        assert!(Window::valid(3, 1).on(2, 9).unwrap_err().contains("2x9"));
    }

    #[test]
    fn taps_are_those_with_a_source() {
        for window in [Window::same(5, 2), Window::valid(3, 2), Window::padded(3, 1, 2), Window::rect(1, 7)] {
            let g = window.on(9, 8).unwrap();
            for axis in 0..2 {
                for out in 0..g.output[axis] {
                    let real: Vec<_> = (0..g.kernel[axis]).filter(|&k| g.source(axis, out, k).is_some()).collect();
                    assert_eq!(real, g.taps(axis, out).collect::<Vec<_>>(), "{window} axis {axis} out {out}");
                }
            }
        }
    }
}
