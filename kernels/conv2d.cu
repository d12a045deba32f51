// Convolution forward as a matrix product that is never written down:
//
// y[m, n] (+)= act(sum_k x(m, k) w[k, n] * scale[n] + bias[n]),   m = (image, o, p), k = (i, j, channel), n = output channel,
//
// where x(m, k) is what output pixel m sees through tap (i, j), zero in the padding. A 1x1 window of stride 1 is the plain product.
#include "epilogue.cuh"

// What happens to a sum on its way to memory.
struct Finish {
    const float* scale; // (n), or null for 1
    const float* bias;  // (n), or null for 0
    int act;            // LINEAR, RELU, SIGMOID
    int add;
    float* partial; // (parts, 3, n): pivot, sums of d = y - pivot and of d^2, to be merged by merge_stats; or null
};

// A thread's columns of the results on their way to memory.
template <int W, class T> struct Results {
    using Fetched = Raw<W, T>; // what lies there, if it is added to
    const Finish& how;
    T* y;
    int y_pitch, m0, n0, pixels, filters;
    int n;
    Floats<W> scale, bias;

    __device__ __forceinline__ void start(int col) {
        n = n0 + col;
        if (n < filters && how.scale) scale = channels<W>(how.scale + n);
        if (n < filters && how.bias) bias = channels<W>(how.bias + n);
    }
    __device__ __forceinline__ bool real(int row) const { return m0 + row < pixels && n < filters; }
    __device__ __forceinline__ T* at(int row) const { return y + (int64_t)(m0 + row) * y_pitch + n; }
    __device__ __forceinline__ Fetched fetch(int row) const { return fetch_if<W>(how.add && real(row), at(row)); }
    __device__ __forceinline__ void leave(int row, Floats<W>& sum, const Fetched& old) const {
        if (!real(row)) return;
        for (int i = 0; i < W; i++) {
            const float scaled = how.scale ? sum.v[i] * scale.v[i] : sum.v[i];
            sum.v[i] = activate(how.act, how.bias ? scaled + bias.v[i] : scaled);
        }
        Floats<W> total = sum;
        if (how.add) {
            const Floats<W> before = floats(old);
            for (int i = 0; i < W; i++) total.v[i] = before.v[i] + sum.v[i];
        }
        write<W>(at(row), total);
        for (int i = 0; i < W; i++) sum.v[i] = stored<T>(sum.v[i]);
    }
};

// Statistics of a part's rows, shifted by the first of them: sums of y and y^2 would lose every digit of the variance where the mean is
// large against the deviation.
template <int W> struct Stats {
    struct Fetched {};
    float* partial; // of the tile's first part and column
    int filters;

    __device__ __forceinline__ Fetched fetch(int, int) const { return {}; }
    __device__ __forceinline__ void add(const Floats<W>& y, const Floats<W>& pivot, Fetched, Floats<W> (&sum)[2]) const {
        for (int i = 0; i < W; i++) {
            const float d = y.v[i] - pivot.v[i];
            sum[0].v[i] += d, sum[1].v[i] = fmaf(d, d, sum[1].v[i]);
        }
    }
    __device__ __forceinline__ void leave(int part, int col, float pivot, const float (&sum)[2]) const {
        float* to = partial + (int64_t)part * 3 * filters + col;
        to[0] = pivot, to[filters] = sum[0], to[2 * filters] = sum[1];
    }
};

template <class Math, class Tile, bool VEC, class T = typename Math::Element>
__device__ __forceinline__ void conv2d(
    const T* x, // (images * in_h * in_w, channels), pitch
    int x_pitch,
    const T* w, // (kernel_h * kernel_w * channels, filters)
    T* y,       // (images * out_h * out_w, filters), pitch
    int y_pitch, const Window& window, int images, int channels, Divisor by_channels, int filters, const Finish& finish) {
    const int pixels = images * window.out_h * window.out_w, depth = window.kernel_h * window.kernel_w * channels;
    const int across = ceil_div(filters, Tile::BN);
    const int m0 = blockIdx.x / across * Tile::BM, n0 = blockIdx.x % across * Tile::BN;
    PatchRows<T> a;
    a.image = {x, x_pitch * (int)sizeof(T), window.in_h, window.in_w};
    a.window = window, a.pixels = pixels, a.channels = channels, a.by_channels = by_channels;
    const Rows<T> b{w, filters * (int)sizeof(T), depth, filters};
    constexpr int W = VEC ? WIDE<T> : 1;
    const bool keep = finish.partial != nullptr;
    const Results<W, T> results{finish, y, y_pitch, m0, n0, pixels, filters};
    product<Math, Tile, VEC, W>(a, b, m0, n0, 0, depth, results, keep);
    if (!keep) return;
    const Stats<W> stats{finish.partial + (int64_t)m0 / PART * 3 * filters + n0, filters};
    fold_columns<Tile, W>(pixels - m0, filters - n0, ceil_div(pixels - m0, PART), stats);
}

#define CONV2D(suffix, Math, Tile, VEC)                                                                                         \
    extern "C" __global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS) conv2d_##suffix(                                                \
        const Math::Element* x, int x_pitch, const Math::Element* w, Math::Element* y, int y_pitch, Window window, int images,  \
        int channels, Divisor by_channels, int filters, Finish finish) {                                                        \
        conv2d<Math, Tile, VEC>(x, x_pitch, w, y, y_pitch, window, images, channels, by_channels, filters, finish);             \
    }                                                                                                                           \
    KERNEL_EXPORT(conv2d_##suffix)
PRODUCTS(CONV2D)
