// The gradient of a convolution by its input, as a matrix product:
//
// dx[m, n] (+)= sum_k dy(m, k) w[i, j, n, c],   m = input pixel, k = (i, j, c), n = input channel,
//
// where dy(m, k) is the output pixel that read m through tap (i, j). With stride s, an input pixel is read through one in s taps of
// each axis, and which ones depends on its residue alone: each of the s x s residue classes is a dense product (blockIdx.y).
// Pixels that no window read get zero.
#include "epilogue.cuh"

// What the gradient goes on through on its way to memory: nothing (act is LINEAR, partial null), the activation x = act(z), or the batch norm
// and activation act(x scale + shift), with two sums left for the gradients of scale and shift. What is stored is dz, before the activation.
struct Beyond {
    const float *scale, *shift; // (n); null without a batch norm
    float* partial;             // (classes, parts, 2, n): sums of dz x, of dz; null without a batch norm
    int act, parts;             // parts of the largest class
};

// A thread's columns of the gradient on their way to memory.
template <int W, class T> struct Gradients {
    struct Fetched {
        T* at;
        Raw<W, T> x, old; // what it goes through; what lies there, if it is added to
    };
    const Beyond& beyond;
    const Lattice& lattice;
    T* dx;
    const T* x;
    int dx_pitch, x_pitch, m0, n0, pixels, inputs, sum_up;
    int n;
    Floats<W> scale, shift;

    __device__ __forceinline__ void start(int col) {
        n = n0 + col;
        if (n < inputs && beyond.partial) scale = channels<W>(beyond.scale + n), shift = channels<W>(beyond.shift + n);
    }
    __device__ __forceinline__ Fetched fetch(int row) const {
        if (m0 + row >= pixels || n >= inputs) return {};
        const int64_t pixel = lattice.input_pixel(m0 + row);
        T* at = dx + pixel * dx_pitch + n;
        return {at, fetch_if<W>(beyond.act != LINEAR, x + pixel * x_pitch + n), fetch_if<W>(sum_up, at)};
    }
    __device__ __forceinline__ void leave(int, Floats<W>& sum, const Fetched& f) const {
        if (!f.at) return;
        if (beyond.act != LINEAR) {
            const Floats<W> p = floats(f.x);
            for (int i = 0; i < W; i++) {
                const float d = sum.v[i];
                sum.v[i] = beyond.partial ? before(beyond.act, d, p.v[i], scale.v[i], shift.v[i]) : through(beyond.act, d, p.v[i]);
            }
        }
        Floats<W> total = sum;
        if (sum_up) {
            const Floats<W> old = floats(f.old);
            for (int i = 0; i < W; i++) total.v[i] = old.v[i] + sum.v[i];
        }
        write<W>(f.at, total);
        for (int i = 0; i < W; i++) sum.v[i] = stored<T>(sum.v[i]);
    }
};

// The sums of a batch norm's gradient.
template <int W, class T> struct NormSums {
    using Fetched = Raw<W, T>;
    const Lattice& lattice;
    const T* x; // of the tile's first column
    int x_pitch, m0, inputs;
    float* partial; // of the tile's first part and column

    __device__ __forceinline__ Fetched fetch(int row, int col) const { return ::fetch<W>(x + lattice.input_pixel(m0 + row) * x_pitch + col); }
    __device__ __forceinline__ void add(const Floats<W>& dz, const Floats<W>&, const Fetched& raw, Floats<W> (&sum)[2]) const {
        const Floats<W> p = floats(raw);
        for (int i = 0; i < W; i++) sum[0].v[i] = fmaf(dz.v[i], p.v[i], sum[0].v[i]), sum[1].v[i] += dz.v[i];
    }
    __device__ __forceinline__ void leave(int part, int col, float, const float (&sum)[2]) const {
        float* to = partial + (int64_t)part * 2 * inputs + col;
        to[0] = sum[0], to[inputs] = sum[1];
    }
};

template <class Math, class Tile, bool VEC, class T = typename Math::Element>
__device__ __forceinline__ void conv2d_dx(
    const T* dy, // (images * out_h * out_w, filters), pitch
    int dy_pitch,
    const T* w, // (kernel_h * kernel_w, channels, filters)
    T* dx,      // (images * in_h * in_w, channels), pitch
    int dx_pitch, const Window& window, int images, int channels, int filters, Divisor by_filters, int add,
    const T* x, // as dx, with a pitch of its own; null where there is nothing to go through
    int x_pitch, const Beyond& beyond) {
    const Lattice lattice(window, blockIdx.y);
    const int pixels = images * lattice.rows * lattice.cols, depth = lattice.taps_h * lattice.taps_w * filters;
    const int across = ceil_div(channels, Tile::BN);
    const int m0 = blockIdx.x / across * Tile::BM, n0 = blockIdx.x % across * Tile::BN;
    const GradientRows<T> a{{dy, dy_pitch * (int)sizeof(T), window.out_h, window.out_w}, lattice, pixels, filters, by_filters};
    const TurnedFilter<T> b{w, lattice, channels, filters, by_filters};
    constexpr int W = VEC ? WIDE<T> : 1;
    const bool keep = beyond.partial != nullptr;
    const Gradients<W, T> gradients{beyond, lattice, dx, x, dx_pitch, x_pitch, m0, n0, pixels, channels, add};
    // The grid is that of the largest class. A block beyond a smaller one has no slab to sum.
    product<Math, Tile, VEC, W>(a, b, m0, n0, 0, m0 < pixels ? depth : 0, gradients, keep);
    if (!keep) return;
    float* partial = beyond.partial + ((int64_t)blockIdx.y * beyond.parts + m0 / PART) * 2 * channels + n0;
    const NormSums<W, T> sums{lattice, x + n0, x_pitch, m0, channels, partial};
    fold_columns<Tile, W>(pixels - m0, channels - n0, beyond.parts - m0 / PART, sums);
}

// One block is all that is asked for without vectors: a compiler that hopes for one more than fits spills a register or two for it.
#define CONV2D_DX(suffix, Math, Tile, VEC)                                                                                      \
    extern "C" __global__ void __launch_bounds__(Tile::THREADS, VEC ? Tile::BLOCKS : 1) conv2d_dx_##suffix(                                \
        const Math::Element* dy, int dy_pitch, const Math::Element* w, Math::Element* dx, int dx_pitch, Window window,          \
        int images, int channels, int filters, Divisor by_filters, int add, const Math::Element* x, int x_pitch,                \
        Beyond beyond) {                                                                                                        \
        conv2d_dx<Math, Tile, VEC>(                                                                                             \
            dy, dy_pitch, w, dx, dx_pitch, window, images, channels, filters, by_filters, add, x, x_pitch, beyond);             \
    }                                                                                                                           \
    KERNEL_EXPORT(conv2d_dx_##suffix)
PRODUCTS(CONV2D_DX)
