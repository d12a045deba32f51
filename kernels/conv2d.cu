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

// Statistics of a part's rows, shifted by the first of them: sums of y and y^2 would lose every digit of the variance where the mean is
// large against the deviation.
template <class Tile> __device__ __forceinline__ void leave_stats(float* partial, int m0, int n0, int pixels, int filters) {
    fold_columns<Tile>(
        pixels - m0, filters - n0, ceil_div(pixels - m0, PART),
        [](int, int, float y, float pivot, float (&sum)[2]) {
            const float d = y - pivot;
            sum[0] += d, sum[1] = fmaf(d, d, sum[1]);
        },
        [&](int part, int col, float pivot, const float (&sum)[2]) {
            float* to = partial + (int64_t)(m0 / PART + part) * 3 * filters + n0 + col;
            to[0] = pivot, to[filters] = sum[0], to[2 * filters] = sum[1];
        });
}

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
    const auto leave = [&](int row, int col, Floats<W>& sum) {
        const int m = m0 + row, n = n0 + col;
        if (m >= pixels || n >= filters) return;
        for (int i = 0; i < W; i++) {
            const float scaled = finish.scale ? sum.v[i] * finish.scale[n + i] : sum.v[i];
            sum.v[i] = activate(finish.act, finish.bias ? scaled + finish.bias[n + i] : scaled);
        }
        write<W>(y + (int64_t)m * y_pitch + n, sum, finish.add);
        if (keep) {
            for (int i = 0; i < W; i++) sum.v[i] = stored<T>(sum.v[i]);
        }
    };
    product<Math, Tile, VEC, W>(a, b, m0, n0, 0, depth, leave, keep);
    if (keep) leave_stats<Tile>(finish.partial, m0, n0, pixels, filters);
}

#define CONV2D(suffix, Math, Tile, VEC)                                                                                         \
    extern "C" __global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS) conv2d_##suffix(                                                \
        const Math::Element* x, int x_pitch, const Math::Element* w, Math::Element* y, int y_pitch, Window window, int images,  \
        int channels, Divisor by_channels, int filters, Finish finish) {                                                        \
        conv2d<Math, Tile, VEC>(x, x_pitch, w, y, y_pitch, window, images, channels, by_channels, filters, finish);             \
    }                                                                                                                           \
    KERNEL_EXPORT(conv2d_##suffix)
PRODUCTS(CONV2D)
