// Depthwise convolution: a small filter for each channel. Threads lie along the channels, W neighbours each; filters and their
// gradients are f32 whatever the activations are.
//
// A 3x3 window of stride 1 with one pixel of padding slides: a thread walks along a strip of a row with three running sums, for the
// outputs left of, at and right of the pixels just read, and reads each pixel once. Any other window is summed tap by tap.
#include "elements.cuh"
#include "geom.cuh"

// Columns of a strip.
constexpr int STRIP = 16;

// Strips of all images, rows of a strip's column next to each other so that neighbours in a block share what they read.
struct Strip {
    int image, row, first, last; // columns first..last
    __device__ __forceinline__ Strip(int index, int height, int width) {
        const int across = (width + STRIP - 1) / STRIP, column = index / height;
        image = column / across, row = index - column * height;
        first = (column - image * across) * STRIP, last = min(first + STRIP, width);
    }
};

// Pixels (row - 1, row, row + 1) of a column of an image, zero outside.
template <class T, int W>
__device__ __forceinline__ void read_column(Floats<W> (&x)[3], const T* image, int pitch, int height, int width, int row, int col) {
#pragma unroll
    for (int p = 0; p < 3; p++) {
        const int y = row + p - 1;
        const bool real = (unsigned)y < (unsigned)height && (unsigned)col < (unsigned)width;
        x[p] = real ? read<W>(image + (int64_t)(y * width + col) * pitch) : Floats<W>{};
    }
}

// y[i, j, c] (+)= sum over p, q of x[i + p - 1, j + q - 1, c] w[p, q, c]; with `turned`, w is read backwards, which makes it the gradient
// by the input.
template <class T, int W>
__device__ __forceinline__ void depthwise_3x3(
    const T* x, // (images * height * width, channels), pitch
    int x_pitch,
    const float* w, // (9, channels)
    T* y,           // as x
    int y_pitch, int images, int height, int width, int channels, int turned, int add) {
    const int packs = (channels + W - 1) / W, strips = images * height * ((width + STRIP - 1) / STRIP);
    const int64_t index = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (index >= (int64_t)strips * packs) return;
    const Strip strip((int)(index / packs), height, width);
    const int c = (int)(index % packs) * W;
    const T* image = row(x, x_pitch, strip.image * height * width) + c;
    T* out = row(y, y_pitch, (strip.image * height + strip.row) * width) + c;
    Floats<W> k[9];
#pragma unroll
    for (int t = 0; t < 9; t++) k[t] = ::channels<W>(w + (turned ? 8 - t : t) * channels + c);
    Floats<W> left = {}, here = {}, right;
    for (int j = strip.first - 1; j <= strip.last; j++) {
        Floats<W> in[3];
        read_column(in, image, x_pitch, height, width, strip.row, j);
#pragma unroll
        for (int i = 0; i < W; i++) {
            right.v[i] = in[0].v[i] * k[0].v[i] + in[1].v[i] * k[3].v[i] + in[2].v[i] * k[6].v[i];
            here.v[i] += in[0].v[i] * k[1].v[i] + in[1].v[i] * k[4].v[i] + in[2].v[i] * k[7].v[i];
            left.v[i] += in[0].v[i] * k[2].v[i] + in[1].v[i] * k[5].v[i] + in[2].v[i] * k[8].v[i];
        }
        if (j > strip.first) write<W>(out + (int64_t)(j - 1) * y_pitch, left, add);
        left = here, here = right;
    }
}

// y[o, p, c] (+)= sum over taps (i, j) of x[o * stride + i - pad, p * stride + j - pad, c] w[i, j, c]: a thread has one output pixel.
template <class T, int W>
__device__ __forceinline__ void depthwise_window(
    const T* x, // (images * in_h * in_w, channels), pitch
    int x_pitch,
    const float* w, // (kernel_h * kernel_w, channels)
    T* y,           // (images * out_h * out_w, channels), pitch
    int y_pitch, const Window& g, int images, int channels, int add) {
    const int packs = (channels + W - 1) / W, pixels = images * g.out_h * g.out_w;
    const int64_t index = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (index >= (int64_t)pixels * packs) return;
    const int pixel = (int)(index / packs), c = (int)(index % packs) * W;
    const int image = quotient(pixel, g.by_out_pixels), in_image = pixel - image * g.out_h * g.out_w;
    const int o = quotient(in_image, g.by_out_w), p = in_image - o * g.out_w;
    Floats<W> sum = {};
    for (int i = 0; i < g.kernel_h; i++) {
        for (int j = 0; j < g.kernel_w; j++) {
            const int a = o * g.stride_h + i - g.pad_top, b = p * g.stride_w + j - g.pad_left;
            if ((unsigned)a >= (unsigned)g.in_h || (unsigned)b >= (unsigned)g.in_w) continue;
            const Floats<W> v = read<W>(row(x, x_pitch, (image * g.in_h + a) * g.in_w + b) + c);
            const Floats<W> k = ::channels<W>(w + (i * g.kernel_w + j) * channels + c);
            for (int q = 0; q < W; q++) sum.v[q] += v.v[q] * k.v[q];
        }
    }
    write<W>(row(y, y_pitch, pixel) + c, sum, add);
}

// dx[a, b, c] (+)= sum over taps (i, j) of dy[(a + pad - i) / stride, (b + pad - j) / stride, c] w[i, j, c] where both divisions come out
// even: a thread has one input pixel.
template <class T, int W>
__device__ __forceinline__ void depthwise_dx_window(
    const T* dy, // (images * out_h * out_w, channels), pitch
    int dy_pitch,
    const float* w, // (kernel_h * kernel_w, channels)
    T* dx,          // (images * in_h * in_w, channels), pitch
    int dx_pitch, const Window& g, int images, int channels, int add) {
    const int packs = (channels + W - 1) / W, pixels = images * g.in_h * g.in_w;
    const int64_t index = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (index >= (int64_t)pixels * packs) return;
    const int pixel = (int)(index / packs), c = (int)(index % packs) * W;
    const int image = pixel / (g.in_h * g.in_w), in_image = pixel - image * g.in_h * g.in_w;
    const int a = in_image / g.in_w + g.pad_top, b = in_image % g.in_w + g.pad_left;
    Floats<W> sum = {};
    for (int i = a % g.stride_h; i < g.kernel_h; i += g.stride_h) {
        for (int j = b % g.stride_w; j < g.kernel_w; j += g.stride_w) {
            const int o = (a - i) / g.stride_h, p = (b - j) / g.stride_w;
            if (i > a || j > b || o >= g.out_h || p >= g.out_w) continue;
            const Floats<W> v = read<W>(row(dy, dy_pitch, (image * g.out_h + o) * g.out_w + p) + c);
            const Floats<W> k = ::channels<W>(w + (i * g.kernel_w + j) * channels + c);
            for (int q = 0; q < W; q++) sum.v[q] += v.v[q] * k.v[q];
        }
    }
    write<W>(row(dx, dx_pitch, pixel) + c, sum, add);
}

// Adds up the TAPS sums of each column over the block's threads that share it, and leaves them in `partial`: (parts, taps, channels),
// from tap `first` on. The block is LANES_X columns of W channels by LANES_Y.
constexpr int LANES_X = 32, LANES_Y = 8;
__device__ __forceinline__ int lane_x() { return threadIdx.x % LANES_X; }
__device__ __forceinline__ int lane_y() { return threadIdx.x / LANES_X; }
template <int TAPS, int W>
__device__ __forceinline__ void leave_sums(const Floats<W> (&sum)[TAPS], float* partial, int first, int taps, int channels) {
    __shared__ float s[LANES_Y][LANES_X * W];
    const int c0 = blockIdx.x * LANES_X * W;
#pragma unroll
    for (int k = 0; k < TAPS; k++) {
#pragma unroll
        for (int i = 0; i < W; i++) s[lane_y()][lane_x() * W + i] = sum[k].v[i];
        __syncthreads();
        for (int i = threadIdx.x; i < LANES_X * W; i += LANES_X * LANES_Y) {
            float total = 0.0f;
            for (int lane = 0; lane < LANES_Y; lane++) total += s[lane][i];
            if (c0 + i < channels) partial[((int64_t)blockIdx.y * taps + first + k) * channels + c0 + i] = total;
        }
        __syncthreads();
    }
}

// Part blockIdx.y of dw[p, q, c] = sum over i, j of x[i + p - 1, j + q - 1, c] dy[i, j, c]: the strips of a part are dealt to the LANES_Y
// threads of a column.
template <class T, int W>
__device__ __forceinline__ void depthwise_dw_3x3(
    const T* x, // (images * height * width, channels), pitch
    int x_pitch,
    const T* dy, // as x
    int dy_pitch,
    float* partial, // (parts, 9, channels)
    int images, int height, int width, int channels, int strips_per_part) {
    const int c = (blockIdx.x * LANES_X + lane_x()) * W, strips = images * height * ((width + STRIP - 1) / STRIP);
    const int begin = blockIdx.y * strips_per_part, end = min(begin + strips_per_part, strips);
    Floats<W> sum[9] = {};
    for (int index = begin + lane_y(); index < end && c < channels; index += LANES_Y) {
        const Strip strip(index, height, width);
        const T* image = row(x, x_pitch, strip.image * height * width) + c;
        const T* from = row(dy, dy_pitch, (strip.image * height + strip.row) * width) + c;
        Floats<W> before = {}, here = {}, after;
        for (int j = strip.first - 1; j <= strip.last; j++) { // the column of x; `after` is dy one to its right
            after = j + 1 < strip.last ? read<W>(from + (int64_t)(j + 1) * dy_pitch) : Floats<W>{};
            Floats<W> in[3];
            read_column(in, image, x_pitch, height, width, strip.row, j);
#pragma unroll
            for (int p = 0; p < 3; p++) {
#pragma unroll
                for (int i = 0; i < W; i++) {
                    sum[3 * p].v[i] += in[p].v[i] * after.v[i];
                    sum[3 * p + 1].v[i] += in[p].v[i] * here.v[i];
                    sum[3 * p + 2].v[i] += in[p].v[i] * before.v[i];
                }
            }
            before = here, here = after;
        }
    }
    leave_sums(sum, partial, 0, 9, channels);
}

// Part blockIdx.y of the gradient by tap blockIdx.z of any window: the output pixels of a part are dealt to the LANES_Y threads of a column.
template <class T, int W>
__device__ __forceinline__ void depthwise_dw_window(
    const T* x, // (images * in_h * in_w, channels), pitch
    int x_pitch,
    const T* dy, // (images * out_h * out_w, channels), pitch
    int dy_pitch,
    float* partial, // (parts, kernel_h * kernel_w, channels)
    const Window& g, int images, int channels, int pixels_per_part) {
    const int c = (blockIdx.x * LANES_X + lane_x()) * W, pixels = images * g.out_h * g.out_w;
    const int begin = blockIdx.y * pixels_per_part, end = min(begin + pixels_per_part, pixels);
    const int i = blockIdx.z / g.kernel_w, j = blockIdx.z % g.kernel_w;
    Floats<W> sum[1] = {};
    for (int pixel = begin + lane_y(); pixel < end && c < channels; pixel += LANES_Y) {
        const int image = quotient(pixel, g.by_out_pixels), in_image = pixel - image * g.out_h * g.out_w;
        const int o = quotient(in_image, g.by_out_w), p = in_image - o * g.out_w;
        const int a = o * g.stride_h + i - g.pad_top, b = p * g.stride_w + j - g.pad_left;
        if ((unsigned)a >= (unsigned)g.in_h || (unsigned)b >= (unsigned)g.in_w) continue;
        const Floats<W> v = read<W>(row(x, x_pitch, (image * g.in_h + a) * g.in_w + b) + c), d = read<W>(row(dy, dy_pitch, pixel) + c);
        for (int q = 0; q < W; q++) sum[0].v[q] += v.v[q] * d.v[q];
    }
    leave_sums(sum, partial, blockIdx.z, g.kernel_h * g.kernel_w, channels);
}

// W is 1 where rows do not allow packs of 16 bytes.
#define DEPTHWISE(type, T)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) depthwise_3x3_##type(                                                \
        const T* x, int x_pitch, const float* w, T* y, int y_pitch, int images, int height, int width, int channels,           \
        int turned, int packs, int add) {                                                                                      \
        if (packs) depthwise_3x3<T, WIDE<T>>(x, x_pitch, w, y, y_pitch, images, height, width, channels, turned, add);         \
        else depthwise_3x3<T, 1>(x, x_pitch, w, y, y_pitch, images, height, width, channels, turned, add);                     \
    }                                                                                                                          \
    KERNEL_EXPORT(depthwise_3x3_##type)                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) depthwise_window_##type(                                             \
        const T* x, int x_pitch, const float* w, T* y, int y_pitch, Window window, int images, int channels, int packs,        \
        int add) {                                                                                                             \
        if (packs) depthwise_window<T, WIDE<T>>(x, x_pitch, w, y, y_pitch, window, images, channels, add);                     \
        else depthwise_window<T, 1>(x, x_pitch, w, y, y_pitch, window, images, channels, add);                                 \
    }                                                                                                                          \
    KERNEL_EXPORT(depthwise_window_##type)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) depthwise_dx_window_##type(                                          \
        const T* dy, int dy_pitch, const float* w, T* dx, int dx_pitch, Window window, int images, int channels, int packs,    \
        int add) {                                                                                                             \
        if (packs) depthwise_dx_window<T, WIDE<T>>(dy, dy_pitch, w, dx, dx_pitch, window, images, channels, add);              \
        else depthwise_dx_window<T, 1>(dy, dy_pitch, w, dx, dx_pitch, window, images, channels, add);                          \
    }                                                                                                                          \
    KERNEL_EXPORT(depthwise_dx_window_##type)                                                                                  \
    extern "C" __global__ void __launch_bounds__(LANES_X * LANES_Y) depthwise_dw_3x3_##type(                                   \
        const T* x, int x_pitch, const T* dy, int dy_pitch, float* partial, int images, int height, int width, int channels,   \
        int strips_per_part, int packs) {                                                                                      \
        if (packs) depthwise_dw_3x3<T, WIDE<T>>(x, x_pitch, dy, dy_pitch, partial, images, height, width, channels, strips_per_part); \
        else depthwise_dw_3x3<T, 1>(x, x_pitch, dy, dy_pitch, partial, images, height, width, channels, strips_per_part);      \
    }                                                                                                                          \
    KERNEL_EXPORT(depthwise_dw_3x3_##type)                                                                                     \
    extern "C" __global__ void __launch_bounds__(LANES_X * LANES_Y) depthwise_dw_window_##type(                                \
        const T* x, int x_pitch, const T* dy, int dy_pitch, float* partial, Window window, int images, int channels,           \
        int pixels_per_part, int packs) {                                                                                      \
        if (packs) depthwise_dw_window<T, WIDE<T>>(x, x_pitch, dy, dy_pitch, partial, window, images, channels, pixels_per_part); \
        else depthwise_dw_window<T, 1>(x, x_pitch, dy, dy_pitch, partial, window, images, channels, pixels_per_part);          \
    }                                                                                                                          \
    KERNEL_EXPORT(depthwise_dw_window_##type)
DEPTHWISE(f32, float)
DEPTHWISE(bf16, bf16)

// dw[i] (+)= sum over parts of partial[part][i], in order: n = taps * channels elements.
extern "C" __global__ void __launch_bounds__(256) depthwise_dw_sum(const float* partial, float* dw, int n, int parts, int add) {
    const int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= n) return;
    float sum = add ? dw[i] : 0.0f;
    for (int part = 0; part < parts; part++) sum += partial[(int64_t)part * n + i];
    dw[i] = sum;
}
KERNEL_EXPORT(depthwise_dw_sum)
