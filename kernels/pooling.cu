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

// The gradients of windows of K x K that go two pixels at a time, K = 2 or 3 (below: any window).
//
// Counted with the padding, pixels 2 i and 2 i + 1 are in window i; for K = 3, pixel 2 i is in window i - 1 as well. So a thread takes a
// column of patches of 2 x 2 pixels and goes down: for each row it finds the first maximum of BACK + 1 windows side by side, from the
// first maxima of their rows, and hands their gradients to the patch.
template <int K> constexpr int BACK = K - 2; // windows before window i that hold a pixel of patch i, along one axis

// A tap of a window is row * K + column. Those of W channels share a word, four bits each; this one is the same for all.
__device__ __forceinline__ unsigned for_all_channels(int tap) { return tap * 0x11111111u; }
constexpr unsigned NO_TAP = 0xffffffffu; // of windows that do not exist

// The largest values so far of windows side by side, and their taps.
template <int K, int W> struct Best {
    float value[BACK<K> + 1][W];
    unsigned taps[BACK<K> + 1];

    // A later value of a window: only a larger one counts.
    __device__ __forceinline__ void follow(int b, int w, float next, unsigned next_taps) {
        const unsigned mask = 15u << 4 * w;
        const bool larger = next > value[b][w];
        value[b][w] = larger ? next : value[b][w];
        taps[b] = larger ? (taps[b] & ~mask) | (next_taps & mask) : taps[b];
    }
};

// The taps of a window's first maxima, and the gradient of the window.
template <int W, class T> struct Given {
    unsigned taps;
    Raw<W, T> dy;

    // Adds the gradient of the channels whose first maximum is this tap.
    __device__ __forceinline__ void to(Floats<W>& sum, int tap) const {
        const Floats<W> gradient = floats(dy);
        const unsigned differ = taps ^ for_all_channels(tap);
#pragma unroll
        for (int w = 0; w < W; ++w) sum.v[w] += differ & 15u << 4 * w ? 0.0f : gradient.v[w];
    }
};

// Strip r of an input: patches first..last of patch column j of an image.
struct Patches {
    int image, j, first, last;
    __device__ __forceinline__ Patches(int r, const Window& g, int tall) {
        const int across = (g.in_w - 1 + g.pad_left) / 2 + 1, down = (g.in_h - 1 + g.pad_top) / 2 + 1, strips = (down + tall - 1) / tall;
        const int strip = r / across;
        j = r - strip * across, image = strip / strips;
        first = (strip - image * strips) * tall, last = min(first + tall, down);
    }
};

// Padding is read as the nearest pixel of the image: that is in the window too, so no maximum changes, and it has that pixel's tap, which
// is what counts. `nearest` is the coordinate that coordinate `at` of the padded image reads.
__device__ __forceinline__ int nearest(int at, int pad, int size) { return min(max(at - pad, 0), size - 1); }

// dx (+)= sum of dy over the windows whose first maximum is this pixel.        reads s of x and of dy / 4, writes s
template <int K, int W, class T, class U>
__device__ __forceinline__ void max_pool_dx_by_two(
    const T* dy, int dy_pitch, const T* x, int x_pitch, U* dx, int dx_pitch, const Window& g, Patches p, int add) {
    constexpr int WINDOWS = BACK<K> + 1, COLUMNS = 2 * BACK<K> + K;
    const int left = 2 * (p.j - BACK<K>); // the first column of the windows, counted with the padding
    int column[COLUMNS];                  // the columns of the image that they read
#pragma unroll
    for (int q = 0; q < COLUMNS; ++q) column[q] = nearest(left + q, g.pad_left, g.in_w);

    // The first maxima of row `at`, counted with the padding, for windows whose first row is `top`.
    const auto best_of_row = [&](const Raw<W, T>(&in)[COLUMNS], int at, int top) {
        const int row_tap = (nearest(at, g.pad_top, g.in_h) + g.pad_top - top) * K;
        Floats<W> pixel[COLUMNS];
#pragma unroll
        for (int q = 0; q < COLUMNS; ++q) pixel[q] = floats(in[q]);
        Best<K, W> best;
#pragma unroll
        for (int b = 0; b < WINDOWS; ++b) {
#pragma unroll
            for (int q = 0; q < K; ++q) {
                const unsigned taps = for_all_channels(row_tap + column[2 * b + q] + g.pad_left - (left + 2 * b));
                if (q == 0) best.taps[b] = taps;
#pragma unroll
                for (int w = 0; w < W; ++w) {
                    if (q == 0) best.value[b][w] = pixel[2 * b].v[w];
                    else best.follow(b, w, pixel[2 * b + q].v[w], taps);
                }
            }
        }
        return best;
    };
    const auto fetch_row = [&](Raw<W, T>(&in)[COLUMNS], int at) {
        const int first = (p.image * g.in_h + nearest(at, g.pad_top, g.in_h)) * g.in_w;
#pragma unroll
        for (int q = 0; q < COLUMNS; ++q) in[q] = fetch<W>(row(x, x_pitch, first + column[q]));
    };

    Given<W, T> above[WINDOWS]; // the windows of the row before
    Best<K, W> best;            // of window row i, as far as it is known
    for (int i = p.first - BACK<K>; i < p.last; ++i) {
        const int top = 2 * i;
        Raw<W, T> in[K][COLUMNS];
        Given<W, T> given[WINDOWS];
        // For K = 3 the first row is the last one of the window before.
        const int known = K == 3 && i >= p.first ? 1 : 0;
        if (!known) fetch_row(in[0], top);
#pragma unroll
        for (int q = 1; q < K; ++q) fetch_row(in[q], top + q);
#pragma unroll
        for (int b = 0; b < WINDOWS; ++b) {
            const int j = p.j - BACK<K> + b;
            const bool real = (unsigned)i < (unsigned)g.out_h && (unsigned)j < (unsigned)g.out_w;
            given[b].taps = real ? 0 : NO_TAP;
            given[b].dy = fetch_if<W>(real, row(dy, dy_pitch, (p.image * g.out_h + i) * g.out_w + j));
        }
        if (!known) best = best_of_row(in[0], top, top);
        Best<K, W> later;
#pragma unroll
        for (int q = 1; q < K; ++q) {
            later = best_of_row(in[q], top + q, top);
#pragma unroll
            for (int b = 0; b < WINDOWS; ++b)
#pragma unroll
                for (int w = 0; w < W; ++w) best.follow(b, w, later.value[b][w], later.taps[b]);
        }
#pragma unroll
        for (int b = 0; b < WINDOWS; ++b) given[b].taps |= best.taps[b], later.taps[b] -= for_all_channels(2 * K);
        best = later; // as row 0 of the next windows

        // Pixel (2 i + r, 2 j + q) is tap (r, q) of window (i, j), tap (2, q) of window (i - 1, j) if r = 0, and so on.
        if (i >= p.first) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
#pragma unroll
                for (int q = 0; q < 2; ++q) {
                    const int at_row = top + r - g.pad_top, at_column = 2 * p.j + q - g.pad_left;
                    Floats<W> sum = {};
                    if (K == 3 && r == 0) {
                        if (q == 0) above[0].to(sum, 2 * K + 2);
                        above[WINDOWS - 1].to(sum, 2 * K + q);
                    }
                    if (K == 3 && q == 0) given[0].to(sum, r * K + 2);
                    given[WINDOWS - 1].to(sum, r * K + q);
                    if ((unsigned)at_row < (unsigned)g.in_h && (unsigned)at_column < (unsigned)g.in_w)
                        write<W>(row(dx, dx_pitch, (p.image * g.in_h + at_row) * g.in_w + at_column), sum, add);
                }
            }
        }
#pragma unroll
        for (int b = 0; b < WINDOWS; ++b) above[b] = given[b];
    }
}
template <int W, class T, class U>
__device__ __forceinline__ void max_pool_dx_by_two(
    const T* dy, int dy_pitch, const T* x, int x_pitch, U* dx, int dx_pitch, Sheet s, const Window& g, int tall, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    for (int r = first_row(s); r < s.rows; r += row_step(s)) {
        const Patches patches(r, g, tall);
        if (g.kernel_h == 3) max_pool_dx_by_two<3, W>(dy + c, dy_pitch, x + c, x_pitch, dx + c, dx_pitch, g, patches, add);
        else max_pool_dx_by_two<2, W>(dy + c, dy_pitch, x + c, x_pitch, dx + c, dx_pitch, g, patches, add);
    }
}
#define MAX_POOL_DX_BY_TWO(type, T, U)                                                                                         \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) max_pool_dx_by_two_##type(                                        \
        const T* dy, /* (N * out_h * out_w, cols) */                                                                           \
        int dy_pitch,                                                                                                          \
        const T* x,  /* (N * in_h * in_w, cols) */                                                                             \
        int x_pitch,                                                                                                           \
        U* dx,       /* (N * in_h * in_w, cols) */                                                                             \
        int dx_pitch, Sheet s /* rows: strips */, Window g, int tall, int add) {                                               \
        if (s.width > 1) max_pool_dx_by_two<WIDE<T, U>>(dy, dy_pitch, x, x_pitch, dx, dx_pitch, s, g, tall, add);              \
        else max_pool_dx_by_two<1>(dy, dy_pitch, x, x_pitch, dx, dx_pitch, s, g, tall, add);                                   \
    }                                                                                                                          \
    KERNEL_EXPORT(max_pool_dx_by_two_##type)
ALL_TYPES(MAX_POOL_DX_BY_TWO)

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

// The same for any window: every pixel looks through the windows that hold it, so that no two threads write to one place.
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
