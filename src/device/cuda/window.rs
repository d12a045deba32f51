//! A window on images, and division by what is known before a launch; `kernels/geom.cuh` is the other side.

use crate::base::Geom;
use crate::kernel_struct;

/// Division by a number: `n / d = n multiplier >> shift` for `0 <= n < 2^31`, with `shift = 31 + ceil(log2 d)` and
/// `multiplier = ceil(2^shift / d)`, which is exact (Granlund and Montgomery, 1994).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Divisor {
    multiplier: u32,
    shift: u32,
}
kernel_struct!(Divisor);

impl Divisor {
    /// Division by `d`, from 1 to 2^31.
    pub fn by(d: usize) -> Self {
        assert!((1..=1 << 31).contains(&d), "a divisor of {d}");
        let shift = 31 + d.next_power_of_two().trailing_zeros();
        Divisor { multiplier: (1u128 << shift).div_ceil(d as u128) as u32, shift }
    }
}

/// A window as kernels see it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Window {
    kernel: [i32; 2],
    stride: [i32; 2],
    /// Padding at the top and on the left; that at the other ends follows from the sizes.
    pad: [i32; 2],
    input: [i32; 2],
    output: [i32; 2],
    by_out_w: Divisor,
    by_out_pixels: Divisor,
    by_kernel_w: Divisor,
}
kernel_struct!(Window);

impl Window {
    /// A window on a known input.
    pub fn on(geom: &Geom) -> Self {
        let ints = |pair: [usize; 2]| pair.map(|n| n as i32);
        let [out_h, out_w] = geom.output;
        Window {
            kernel: ints(geom.kernel),
            stride: ints(geom.stride),
            pad: ints([geom.before(0), geom.before(1)]),
            input: ints(geom.input),
            output: ints(geom.output),
            by_out_w: Divisor::by(out_w),
            by_out_pixels: Divisor::by(out_h * out_w),
            by_kernel_w: Divisor::by(geom.kernel[1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Divisor;

    #[test]
    fn a_product_and_a_shift_divide_exactly() {
        let mut n = 1u64;
        for d in (1..300).chain([1 << 16, (1 << 16) + 1, 12_544, 50_176, (1 << 31) - 1]) {
            let by = Divisor::by(d);
            let edges = [0, 1, d as u64 - 1, d as u64, (1 << 31) - 1, (1 << 31) - d as u64];
            let drawn: Vec<u64> = (0..200)
                .map(|_| {
                    n = n * 6_364_136_223_846_793_005 % (1 << 61) + 1;
                    n % (1 << 31)
                })
                .collect();
            for n in edges.into_iter().chain(drawn).filter(|&n| n < 1 << 31) {
                assert_eq!((n * u64::from(by.multiplier)) >> by.shift, n / d as u64, "{n} / {d}");
            }
        }
    }
}
