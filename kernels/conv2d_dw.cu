// The gradient of a convolution by its filter, as a matrix product:
//
// dw[m, n] (+)= sum_k x(m, k) dy[k, n],   m = (i, j, channel), k = output pixel, n = output channel,
//
// where x(m, k) is what output pixel k sees through tap (i, j). The filter is small and the pixels are many, so the sum over pixels
// is cut into splits (blockIdx.y), a number that follows from the shape; their results lie in scratch memory and are added in order.
#include "warpgroup.cuh"

// A thread's columns of the gradient on their way to memory.
template <int W> struct Gradients {
    using Fetched = Raw<W, float>; // what lies there, if it is added to
    float* dw;
    int m0, n0, rows, filters, add;
    int n;

    __device__ __forceinline__ void start(int col) { n = n0 + col; }
    __device__ __forceinline__ bool real(int row) const { return m0 + row < rows && n < filters; }
    __device__ __forceinline__ float* at(int row) const { return dw + (int64_t)(m0 + row) * filters + n; }
    __device__ __forceinline__ Fetched fetch(int row) const { return fetch_if<W>(add && real(row), at(row)); }
    __device__ __forceinline__ void leave(int row, Floats<W> sum, const Fetched& old) const {
        if (!real(row)) return;
        if (add) {
            const Floats<W> before = floats(old);
            for (int i = 0; i < W; i++) sum.v[i] = before.v[i] + sum.v[i];
        }
        write<W>(at(row), sum);
    }
};

template <class Math, class Tile, bool VEC, class T = typename Math::Element>
__device__ __forceinline__ void conv2d_dw(
    const T* x, // (images * in_h * in_w, channels), pitch
    int x_pitch,
    const T* dy, // (images * out_h * out_w, filters), pitch
    int dy_pitch,
    float* dw, // (splits, kernel_h * kernel_w * channels, filters)
    const Window& window, int images, int channels, Divisor by_channels, int filters, int pixels_per_split, int add) {
    const int first = blockIdx.y * pixels_per_split, last = min(first + pixels_per_split, images * window.out_h * window.out_w);
    const int rows = window.kernel_h * window.kernel_w * channels, across = ceil_div(filters, Tile::BN);
    const int m0 = blockIdx.x / across * Tile::BM, n0 = blockIdx.x % across * Tile::BN;
    PatchColumns<T> a;
    a.image = {x, x_pitch * (int)sizeof(T), window.in_h, window.in_w};
    a.window = window, a.pixels = last, a.channels = channels, a.by_channels = by_channels;
    const Rows<T> b{dy, dy_pitch * (int)sizeof(T), last, filters};
    constexpr int W = VEC ? WIDE<float> : 1;
    const Gradients<W> gradients{dw + (int64_t)blockIdx.y * rows * filters, m0, n0, rows, filters, add};
    product<Math, Tile, VEC, W>(a, b, m0, n0, first, last, gradients);
}

#define CONV2D_DW(suffix, Math, Tile, VEC)                                                                                      \
    extern "C" __global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS) conv2d_dw_##suffix(                                             \
        const Math::Element* x, int x_pitch, const Math::Element* dy, int dy_pitch, float* dw, Window window, int images,       \
        int channels, Divisor by_channels, int filters, int pixels_per_split, int add) {                                        \
        conv2d_dw<Math, Tile, VEC>(x, x_pitch, dy, dy_pitch, dw, window, images, channels, by_channels, filters,                \
                                   pixels_per_split, add);                                                                      \
    }                                                                                                                           \
    KERNEL_EXPORT(conv2d_dw_##suffix)
PRODUCTS(CONV2D_DW)

// dw[i] (+)= sum over splits of partial[split][i], in order: n elements.
extern "C" __global__ void __launch_bounds__(256) sum_splits(const float* partial, float* dw, int n, int splits, int add) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= n) return;
    float sum = add ? dw[i] : 0.0f;
    constexpr int N = 8; // splits on their way at once
    for (int s = 0; s < splits; s += N) {
        float some[N];
#pragma unroll
        for (int k = 0; k < N; k++) some[k] = partial[(int64_t)min(s + k, splits - 1) * n + i];
#pragma unroll
        for (int k = 0; k < N; k++) sum = s + k < splits ? sum + some[k] : sum;
    }
    dw[i] = sum;
}
KERNEL_EXPORT(sum_splits)
