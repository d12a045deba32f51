// The geometry of a window on images, mirrored from src/base/geom.rs, and division by what is known before launch.
#pragma once
#include "common.cuh"

// Division by d: n / d = n * multiplier >> shift for 0 <= n < 2^31, with shift = 31 + ceil(log2 d) and
// multiplier = ceil(2^shift / d), which is exact (Granlund and Montgomery, 1994).
struct Divisor {
    unsigned multiplier;
    unsigned shift;
};

__device__ __forceinline__ int quotient(int n, Divisor by) { return (int)(__umulhi(2u * (unsigned)n, by.multiplier) >> (by.shift - 31)); }

// Output pixel (o, p) reads input pixel (o * stride_h + i - pad_top, p * stride_w + j - pad_left) through tap (i, j), if it exists.
struct Window {
    int kernel_h, kernel_w;
    int stride_h, stride_w;
    int pad_top, pad_left;
    int in_h, in_w;
    int out_h, out_w;
    Divisor by_out_w, by_out_pixels, by_kernel_w; // out_w, out_h * out_w, kernel_w
};
static_assert(sizeof(Window) == 64, "as declared in src/ops/window.rs");
