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
    const auto leave = [&](int row, int col, Floats<W>& sum) {
        const int m = m0 + row, n = n0 + col;
        if (m >= pixels || n >= channels) return;
        const int64_t pixel = lattice.input_pixel(m);
        if (beyond.act != LINEAR) {
            const Floats<W> p = read<W>(x + pixel * x_pitch + n);
            for (int i = 0; i < W; i++) {
                const float d = sum.v[i];
                sum.v[i] = keep ? before(beyond.act, d, p.v[i], beyond.scale[n + i], beyond.shift[n + i]) : through(beyond.act, d, p.v[i]);
            }
        }
        write<W>(dx + pixel * dx_pitch + n, sum, add);
        if (keep) {
            for (int i = 0; i < W; i++) sum.v[i] = stored<T>(sum.v[i]);
        }
    };
    // The grid is that of the largest class. A block beyond a smaller one has no slab to sum.
    product<Math, Tile, VEC, W>(a, b, m0, n0, 0, m0 < pixels ? depth : 0, leave, keep);
    if (!keep) return;
    fold_columns<Tile>(
        pixels - m0, channels - n0, beyond.parts - m0 / PART,
        [&](int row, int col, float dz, float, float (&sum)[2]) {
            sum[0] = fmaf(dz, load(x + lattice.input_pixel(m0 + row) * x_pitch + n0 + col), sum[0]);
            sum[1] += dz;
        },
        [&](int part, int col, float, const float (&sum)[2]) {
            float* to = beyond.partial + ((int64_t)blockIdx.y * beyond.parts + m0 / PART + part) * 2 * channels + n0 + col;
            to[0] = sum[0], to[channels] = sum[1];
        });
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
