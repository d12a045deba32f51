// Pooling over windows and over whole images. A thread computes one pixel of its result for one pack of channels, in the sheet mapping:
// neighbouring threads read neighbouring channels, and the pixels of overlapping windows come from the caches. The roofline of each is
// one read of its inputs and one write of its result.
#include "elements.cuh"
#include "geom.cuh"

// A half-open range of coordinates.
struct Span {
    int first, last;
};

// The input coordinates that output coordinate `out` reads along one axis.
__device__ __forceinline__ Span read_by(int out, int stride, int pad, int kernel, int size) {
    const int start = out * stride - pad;
    return {max(start, 0), min(start + kernel, size)};
}

// The output coordinates whose windows hold input coordinate `in` along one axis.
__device__ __forceinline__ Span readers_of(int in, int stride, int pad, int kernel, int outputs) {
    const int padded = in + pad, missed = padded + 1 - kernel; // windows that start before `missed` end before `in`
    return {missed > 0 ? (missed + stride - 1) / stride : 0, min(padded / stride + 1, outputs)};
}

// Image and coordinates of row r of an activation whose images have height x width pixels.
struct Pixel {
    int n, i, j;
};
__device__ __forceinline__ Pixel pixel_of(int r, int height, int width, Divisor by_width, Divisor by_pixels) {
    const int n = quotient(r, by_pixels), in_image = r - n * height * width, i = quotient(in_image, by_width);
    return {n, i, in_image - i * width};
}

// y (+)= max of x over the window        reads s, writes s (per output: s / (stride_h stride_w))
template <int W, class T>
__device__ __forceinline__ void max_pool(const T* x, int x_pitch, T* y, int y_pitch, Sheet s, Window g, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    for (int r = first_row(s); r < s.rows; r += row_step(s)) {
        const Pixel o = pixel_of(r, g.out_h, g.out_w, g.by_out_w, g.by_out_pixels);
        const Span tall = read_by(o.i, g.stride_h, g.pad_top, g.kernel_h, g.in_h);
        const Span broad = read_by(o.j, g.stride_w, g.pad_left, g.kernel_w, g.in_w);
        const int image = o.n * g.in_h;
        Floats<W> best = read<W>(row(x, x_pitch, (image + tall.first) * g.in_w + broad.first) + c);
        for (int i = tall.first; i < tall.last; ++i) {
            for (int j = broad.first; j < broad.last; ++j) {
                const Floats<W> p = read<W>(row(x, x_pitch, (image + i) * g.in_w + j) + c);
                for (int w = 0; w < W; ++w) best.v[w] = p.v[w] > best.v[w] ? p.v[w] : best.v[w];
            }
        }
        write<W>(row(y, y_pitch, r) + c, best, add);
    }
}
#define MAX_POOL(type, T, U)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS) max_pool_##type(                                                     \
        const T* x, /* (N * in_h * in_w, cols) */                                                                              \
        int x_pitch,                                                                                                           \
        U* y,       /* (rows = N * out_h * out_w, cols) */                                                                     \
        int y_pitch, Sheet s, Window g, int add) {                                                                             \
        if (s.width > 1) max_pool<WIDE<T>>(x, x_pitch, y, y_pitch, s, g, add);                                                 \
        else max_pool<1>(x, x_pitch, y, y_pitch, s, g, add);                                                                   \
    }                                                                                                                          \
    KERNEL_EXPORT(max_pool_##type)
SAME_TYPES(MAX_POOL)

// Which of the W channels of input pixel (i, j) do not hold the first maximum of a window, as bits: an earlier tap is as large, or a
// later one larger.
template <int W, class T>
__device__ __forceinline__ unsigned not_first(
    const Floats<W>& mine, int i, int j, const T* x, int x_pitch, int image, int in_w, Span tall, Span broad) {
    unsigned lost = 0;
#pragma unroll 1
    for (int p = tall.first; p < tall.last; ++p) {
        for (int q = broad.first; q < broad.last; ++q) {
            const Floats<W> other = read<W>(row(x, x_pitch, (image + p) * in_w + q));
            const bool earlier = p < i || (p == i && q < j);
            for (int w = 0; w < W; ++w) lost |= (unsigned)(earlier ? other.v[w] >= mine.v[w] : other.v[w] > mine.v[w]) << w;
        }
    }
    return lost;
}

// dx (+)= sum of dy over the windows whose first maximum is this pixel. Every pixel looks through the windows that hold it (4 of 9 taps at
// most for 3x3/2), so that nothing is stored for the backward pass and no two threads write to one place.
//        reads s of x and of dy / (stride_h stride_w), writes s
template <int W, class T, class U>
__device__ __forceinline__ void max_pool_dx(
    const T* dy, int dy_pitch, const T* x, int x_pitch, U* dx, int dx_pitch, Sheet s, Window g, Divisor by_in_w,
    Divisor by_in_pixels, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    for (int r = first_row(s); r < s.rows; r += row_step(s)) {
        const Pixel at = pixel_of(r, g.in_h, g.in_w, by_in_w, by_in_pixels);
        const Span down = readers_of(at.i, g.stride_h, g.pad_top, g.kernel_h, g.out_h);
        const Span along = readers_of(at.j, g.stride_w, g.pad_left, g.kernel_w, g.out_w);
        const Floats<W> mine = read<W>(row(x, x_pitch, r) + c);
        Floats<W> sum = {};
        for (int i = down.first; i < down.last; ++i) {
            const Span tall = read_by(i, g.stride_h, g.pad_top, g.kernel_h, g.in_h);
            for (int j = along.first; j < along.last; ++j) {
                const Span broad = read_by(j, g.stride_w, g.pad_left, g.kernel_w, g.in_w);
                const Floats<W> gradient = read<W>(row(dy, dy_pitch, (at.n * g.out_h + i) * g.out_w + j) + c);
                const unsigned lost = not_first(mine, at.i, at.j, x + c, x_pitch, at.n * g.in_h, g.in_w, tall, broad);
                for (int w = 0; w < W; ++w) sum.v[w] += lost >> w & 1 ? 0.0f : gradient.v[w];
            }
        }
        write<W>(row(dx, dx_pitch, r) + c, sum, add);
    }
}
#define MAX_POOL_DX(type, T, U)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS) max_pool_dx_##type(                                                  \
        const T* dy, /* (N * out_h * out_w, cols) */                                                                           \
        int dy_pitch,                                                                                                          \
        const T* x,  /* (N * in_h * in_w, cols) */                                                                             \
        int x_pitch,                                                                                                           \
        U* dx,       /* (rows = N * in_h * in_w, cols) */                                                                      \
        int dx_pitch, Sheet s, Window g, Divisor by_in_w, Divisor by_in_pixels, int add) {                                     \
        if (s.width > 1) max_pool_dx<WIDE<T, U>>(dy, dy_pitch, x, x_pitch, dx, dx_pitch, s, g, by_in_w, by_in_pixels, add);    \
        else max_pool_dx<1>(dy, dy_pitch, x, x_pitch, dx, dx_pitch, s, g, by_in_w, by_in_pixels, add);                         \
    }                                                                                                                          \
    KERNEL_EXPORT(max_pool_dx_##type)
ALL_TYPES(MAX_POOL_DX)

// The divisor of output coordinate `out` along one axis: taps on real pixels, or all taps where padding counts.
__device__ __forceinline__ int taps(int out, int stride, int pad, int kernel, int size, int count_padding) {
    const Span s = read_by(out, stride, pad, kernel, size);
    return count_padding ? kernel : s.last - s.first;
}

// y (+)= mean of x over the window        reads s, writes s
template <int W, class T>
__device__ __forceinline__ void avg_pool(
    const T* x, int x_pitch, T* y, int y_pitch, Sheet s, Window g, int count_padding, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    for (int r = first_row(s); r < s.rows; r += row_step(s)) {
        const Pixel o = pixel_of(r, g.out_h, g.out_w, g.by_out_w, g.by_out_pixels);
        const Span tall = read_by(o.i, g.stride_h, g.pad_top, g.kernel_h, g.in_h);
        const Span broad = read_by(o.j, g.stride_w, g.pad_left, g.kernel_w, g.in_w);
        Floats<W> sum = {};
        for (int i = tall.first; i < tall.last; ++i) {
            for (int j = broad.first; j < broad.last; ++j) {
                const Floats<W> p = read<W>(row(x, x_pitch, (o.n * g.in_h + i) * g.in_w + j) + c);
                for (int w = 0; w < W; ++w) sum.v[w] += p.v[w];
            }
        }
        const float count = taps(o.i, g.stride_h, g.pad_top, g.kernel_h, g.in_h, count_padding) *
                            taps(o.j, g.stride_w, g.pad_left, g.kernel_w, g.in_w, count_padding);
        for (int w = 0; w < W; ++w) sum.v[w] /= count;
        write<W>(row(y, y_pitch, r) + c, sum, add);
    }
}
#define AVG_POOL(type, T, U)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS) avg_pool_##type(                                                     \
        const T* x, /* (N * in_h * in_w, cols) */                                                                              \
        int x_pitch,                                                                                                           \
        U* y,       /* (rows = N * out_h * out_w, cols) */                                                                     \
        int y_pitch, Sheet s, Window g, int count_padding, int add) {                                                          \
        if (s.width > 1) avg_pool<WIDE<T>>(x, x_pitch, y, y_pitch, s, g, count_padding, add);                                  \
        else avg_pool<1>(x, x_pitch, y, y_pitch, s, g, count_padding, add);                                                    \
    }                                                                                                                          \
    KERNEL_EXPORT(avg_pool_##type)
SAME_TYPES(AVG_POOL)

// dx (+)= sum of dy / count over the windows that hold this pixel        reads s, writes s
template <int W, class T, class U>
__device__ __forceinline__ void avg_pool_dx(
    const T* dy, int dy_pitch, U* dx, int dx_pitch, Sheet s, Window g, Divisor by_in_w, Divisor by_in_pixels,
    int count_padding, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    for (int r = first_row(s); r < s.rows; r += row_step(s)) {
        const Pixel at = pixel_of(r, g.in_h, g.in_w, by_in_w, by_in_pixels);
        const Span down = readers_of(at.i, g.stride_h, g.pad_top, g.kernel_h, g.out_h);
        const Span along = readers_of(at.j, g.stride_w, g.pad_left, g.kernel_w, g.out_w);
        Floats<W> sum = {};
#pragma unroll 1
        for (int i = down.first; i < down.last; ++i) {
            const int tall = taps(i, g.stride_h, g.pad_top, g.kernel_h, g.in_h, count_padding);
            for (int j = along.first; j < along.last; ++j) {
                const Floats<W> p = read<W>(row(dy, dy_pitch, (at.n * g.out_h + i) * g.out_w + j) + c);
                const float share = 1.0f / (tall * taps(j, g.stride_w, g.pad_left, g.kernel_w, g.in_w, count_padding));
                for (int w = 0; w < W; ++w) sum.v[w] = fmaf(p.v[w], share, sum.v[w]);
            }
        }
        write<W>(row(dx, dx_pitch, r) + c, sum, add);
    }
}
#define AVG_POOL_DX(type, T, U)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS, 4) avg_pool_dx_##type(                                                  \
        const T* dy, /* (N * out_h * out_w, cols) */                                                                           \
        int dy_pitch,                                                                                                          \
        U* dx,       /* (rows = N * in_h * in_w, cols) */                                                                      \
        int dx_pitch, Sheet s, Window g, Divisor by_in_w, Divisor by_in_pixels, int count_padding, int add) {                  \
        if (s.width > 1) avg_pool_dx<WIDE<T, U>>(dy, dy_pitch, dx, dx_pitch, s, g, by_in_w, by_in_pixels, count_padding, add); \
        else avg_pool_dx<1>(dy, dy_pitch, dx, dx_pitch, s, g, by_in_w, by_in_pixels, count_padding, add);                      \
    }                                                                                                                          \
    KERNEL_EXPORT(avg_pool_dx_##type)
ALL_TYPES(AVG_POOL_DX)

// y (+)= mean of x over an image's pixels        reads s
//
// A block takes 32 packs of channels of image blockIdx.y: eight threads add up the pixels t, t + 8, .. of a pack, the first of them adds up
// the eight. The order depends on the image's size alone: an image has the same mean by itself and in any batch.
template <int W, class T>
__device__ __forceinline__ void global_avg_pool(const T* x, int x_pitch, float* y, int y_pitch, int pixels, int cols, int add) {
    constexpr int PACKS = 32, SLICES = THREADS / PACKS;
    __shared__ float held[W][SLICES][PACKS];
    const int lane = threadIdx.x % PACKS, slice = threadIdx.x / PACKS, c = (blockIdx.x * PACKS + lane) * W;
    Floats<W> sum = {};
    if (c < cols) {
#pragma unroll 4
        for (int p = slice; p < pixels; p += SLICES) {
            const Floats<W> of = read<W>(row(x, x_pitch, blockIdx.y * pixels + p) + c);
            for (int w = 0; w < W; ++w) sum.v[w] += of.v[w];
        }
    }
    for (int w = 0; w < W; ++w) held[w][slice][lane] = sum.v[w];
    __syncthreads();
    if (slice != 0 || c >= cols) return;
    for (int w = 0; w < W; ++w) {
        for (int t = 1; t < SLICES; ++t) sum.v[w] += held[w][t][lane];
        put(row(y, y_pitch, blockIdx.y) + c + w, sum.v[w] / pixels, add);
    }
}
#define GLOBAL_AVG_POOL(type, T, U)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS) global_avg_pool_##type(                                              \
        const T* x, /* (images * pixels, cols) */                                                                              \
        int x_pitch,                                                                                                           \
        float* y,   /* (images, cols) */                                                                                       \
        int y_pitch, int pixels, int cols, int add, int width) {                                                               \
        if (width > 1) global_avg_pool<WIDE<T>>(x, x_pitch, y, y_pitch, pixels, cols, add);                                    \
        else global_avg_pool<1>(x, x_pitch, y, y_pitch, pixels, cols, add);                                                    \
    }                                                                                                                          \
    KERNEL_EXPORT(global_avg_pool_##type)
SAME_TYPES(GLOBAL_AVG_POOL)

// dx (+)= dy / pixels at every pixel of an image        writes s
template <int W, class U>
__device__ __forceinline__ void global_avg_pool_dx(
    const float* dy, int dy_pitch, U* dx, int dx_pitch, Sheet s, int pixels, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    const float share = 1.0f / pixels;
    for (int r = first_row(s); r < s.rows; r += row_step(s)) {
        Floats<W> p = channels<W>(row(dy, dy_pitch, r / pixels) + c);
        for (int w = 0; w < W; ++w) p.v[w] *= share;
        write<W>(row(dx, dx_pitch, r) + c, p, add);
    }
}
#define GLOBAL_AVG_POOL_DX(type, T, U)                                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS) global_avg_pool_dx_##type(                                           \
        const float* dy, /* (images, cols) */                                                                                  \
        int dy_pitch,                                                                                                          \
        U* dx,           /* (rows = images * pixels, cols) */                                                                  \
        int dx_pitch, Sheet s, int pixels, int add) {                                                                          \
        if (s.width > 1) global_avg_pool_dx<WIDE<U>>(dy, dy_pitch, dx, dx_pitch, s, pixels, add);                              \
        else global_avg_pool_dx<1>(dy, dy_pitch, dx, dx_pitch, s, pixels, add);                                                \
    }                                                                                                                          \
    KERNEL_EXPORT(global_avg_pool_dx_##type)
SAME_TYPES(GLOBAL_AVG_POOL_DX)
