// What output pixels see through a window, written down as a matrix, for inputs whose own rows are no whole packs of 16 bytes:
//
// to[r, k] = x(first + r, k),   k = (i, j, channel), zero in the padding and beyond the last k,
//
// where x(m, k) is what output pixel m sees through tap (i, j). Rows are whole packs, so that a product reads them in vectors. A thread
// makes one pack; neighbouring threads write neighbouring packs and read the same few lines of the input.
#include "elements.cuh"
#include "geom.cuh"

template <class T>
__device__ __forceinline__ void write_patches(
    const T* x, // (images * in_h * in_w, channels), pitch
    int x_pitch,
    T* to, // (rows, packs)
    const Window& g, int channels, Divisor by_channels, Divisor by_line, int packs, Divisor by_packs, int first, int rows) {
    constexpr int N = Pack<T>::N;
    const int i = blockIdx.x * THREADS + threadIdx.x, r = quotient(i, by_packs);
    if (r >= rows) return;
    const int m = first + r, image = quotient(m, g.by_out_pixels), in_image = m - image * g.out_h * g.out_w;
    const int out_y = quotient(in_image, g.by_out_w), out_x = in_image - out_y * g.out_w;
    const int top = out_y * g.stride_h - g.pad_top, left = out_x * g.stride_w - g.pad_left;
    // The tap and channel of the first element; a line is one row of taps.
    const int k = (i - r * packs) * N;
    int tap_y = quotient(k, by_line);
    const int in_line = k - tap_y * g.kernel_w * channels;
    int tap_x = quotient(in_line, by_channels), channel = in_line - tap_x * channels;
    Pack<T> pack;
#pragma unroll
    for (int e = 0; e < N; e++) {
        const int in_y = top + tap_y, in_x = left + tap_x;
        const bool real = tap_y < g.kernel_h && (unsigned)in_y < (unsigned)g.in_h && (unsigned)in_x < (unsigned)g.in_w;
        pack.v[e] = real ? load(row(x, x_pitch, (image * g.in_h + in_y) * g.in_w + in_x) + channel) : 0.0f;
        if (++channel == channels) {
            channel = 0;
            if (++tap_x == g.kernel_w) tap_x = 0, tap_y++;
        }
    }
    store_pack(to + (int64_t)i * N, pack);
}
#define PATCHES(type, T, U)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) write_patches_##type(                                                       \
        const T* x, int x_pitch, U* to, Window window, int channels, Divisor by_channels, Divisor by_line, int packs,           \
        Divisor by_packs, int first, int rows) {                                                                                \
        write_patches(x, x_pitch, to, window, channels, by_channels, by_line, packs, by_packs, first, rows);                          \
    }                                                                                                                           \
    KERNEL_EXPORT(write_patches_##type)
SAME_TYPES(PATCHES)
