// Depthwise convolution: a small filter for each channel. Threads lie along the channels, W neighbours each; filters and their
// gradients are f32 whatever the activations are.
//
// A 3x3 window of stride 1 with one pixel of padding slides: a thread walks along a strip of TALL rows with three running sums for each,
// for the outputs left of, at and right of the pixels just read, and reads each pixel once. The next columns are on their way into shared
// memory while it works on this one. Any other window is summed tap by tap.
#include "columns.cuh"
#include "geom.cuh"
#include "tile.cuh"

// Channels of a thread and rows of a strip: what a thread keeps, nine taps for each channel and three sums for each output, leaves room
// for many threads.
constexpr int CHANNELS = 4, TALL = 2;

// A strip of an image: rows row .. row + TALL and columns first .. last. Strips above each other are neighbours in a block, so that these
// share what they read.
struct Strip {
    int image, row, first, last;
    __device__ __forceinline__ Strip(int index, int height, int width, int columns) {
        const int down = (height + TALL - 1) / TALL, across = (width + columns - 1) / columns, column = index / down;
        image = column / across, row = (index - column * down) * TALL;
        first = (column - image * across) * columns, last = min(first + columns, width);
    }
};

// Columns that a thread has in shared memory: one it works on, the others on their way. A column is N pixels of CHANNELS elements.
template <class T> constexpr int COLUMNS = 8 / sizeof(T);
template <int N, class T> constexpr int MEMORY = COLUMNS<T> * N * THREADS; // pixels
template <class T> using Pixels = Raw<CHANNELS, T>;

// Pixels (row + p, col) of an image for p < N, zero outside, for one thread's W channels. Only packs travel ahead: what is read element by
// element is read when it is wanted.
template <int N, int W, class T> struct Column {
    const T* start; // of pixel (row, 0), which may lie outside
    int pitch, width;
    int64_t down;       // from row to row
    bool real[N];       // whether there is a row row + p
    Pixels<T>* memory; // the thread's first: (COLUMNS, a column's pixels, THREADS)

    __device__ __forceinline__ Column(const T* image, int pitch, int height, int width, int row, Pixels<T>* memory)
        : start(image + (int64_t)row * width * pitch), pitch(pitch), width(width), down((int64_t)width * pitch), memory(memory) {
#pragma unroll
        for (int p = 0; p < N; p++) real[p] = (unsigned)(row + p) < (unsigned)height;
    }
    // Sends for a column; the copies belong to the group that the thread closes next.
    __device__ __forceinline__ void send(int col, int slot) const {
        if constexpr (W > 1) {
            const bool inside = (unsigned)col < (unsigned)width;
            const T* from = start + (int64_t)col * pitch;
#pragma unroll
            for (int p = 0; p < N; p++, from += down) {
                Pixels<T>* to = memory + slot + p * THREADS;
                if constexpr (sizeof *to == 8) cp_async_8(to, from, real[p] && inside ? 8 : 0);
                else cp_async_16(to, from, real[p] && inside ? 16 : 0);
            }
        }
    }
    // A column that has arrived.
    __device__ __forceinline__ void take(Floats<W> (&to)[N], int col, int slot) const {
#pragma unroll
        for (int p = 0; p < N; p++) {
            if constexpr (W > 1) to[p] = floats(memory[slot + p * THREADS]);
            else to[p] = floats(fetch_if<1>(real[p] && (unsigned)col < (unsigned)width, start + (int64_t)col * pitch + p * down));
        }
    }
};

// y[i, j, c] (+)= sum over p, q of x[i + p - 1, j + q - 1, c] w[p, q, c]; with `turned`, w is read backwards, which makes it the gradient
// by the input.
template <class T, int W>
__device__ __forceinline__ void depthwise_3x3(
    const T* x, // (images * height * width, channels), pitch
    int x_pitch,
    const float* w, // (9, channels)
    T* y,           // as x
    int y_pitch, Sheet s, int height, int width, int columns, int turned, int add, Pixels<T>* memory) {
    constexpr int N = TALL + 2, SLOT = N * THREADS, ALL = COLUMNS<T> * SLOT;
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    Floats<W> k[9];
#pragma unroll
    for (int t = 0; t < 9; t++) k[t] = channels<W>(w + (turned ? 8 - t : t) * s.cols + c);
    for (int index = first_row(s); index < s.rows; index += row_step(s)) {
        const Strip strip(index, height, width, columns);
        const Column<N, W, T> pixels(
            row(x, x_pitch, strip.image * height * width) + c, x_pitch, height, width, strip.row - 1, memory + threadIdx.x);
        T* out = row(y, y_pitch, (strip.image * height + strip.row) * width) + c;
        int next = strip.first - 1, sent = 0, taken = 0; // the next column to be sent for, its slot, the slot of column j
        const auto send = [&] {
            if (next <= strip.last) pixels.send(next, sent);
            cp_async_commit();
            next++, sent = sent + SLOT == ALL ? 0 : sent + SLOT;
        };
#pragma unroll
        for (int a = 1; a < COLUMNS<T>; a++) send();
        Floats<W> left[TALL] = {}, here[TALL] = {};
#pragma unroll 1
        for (int j = strip.first - 1; j <= strip.last; j++) {
            send();
            cp_async_wait<COLUMNS<T> - 1>();
            Floats<W> in[N];
            pixels.take(in, j, taken);
            taken = taken + SLOT == ALL ? 0 : taken + SLOT;
#pragma unroll
            for (int o = 0; o < TALL; o++) {
                Floats<W> right;
#pragma unroll
                for (int i = 0; i < W; i++) {
                    const float above = in[o].v[i], at = in[o + 1].v[i], below = in[o + 2].v[i];
                    right.v[i] = above * k[0].v[i] + at * k[3].v[i] + below * k[6].v[i];
                    here[o].v[i] += above * k[1].v[i] + at * k[4].v[i] + below * k[7].v[i];
                    left[o].v[i] += above * k[2].v[i] + at * k[5].v[i] + below * k[8].v[i];
                }
                if (j > strip.first && strip.row + o < height) write<W>(out + (int64_t)(o * width + j - 1) * y_pitch, left[o], add);
                left[o] = here[o], here[o] = right;
            }
        }
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

// Part blockIdx.y of dw[p, q, c] = sum over i, j of x[i + p - 1, j + q - 1, c] dy[i, j, c], to be added up by finish_sums: the strips of a
// part are dealt to the threads of a column.
template <class T, int W>
__device__ __forceinline__ void depthwise_dw_3x3(
    const T* x, // (images * height * width, channels), pitch
    int x_pitch,
    const T* dy, // as x
    int dy_pitch,
    float* partial, // (parts, 9, channels)
    Sheet s, int height, int width, int columns, int strips_per_part, Pixels<T>* memory) {
    constexpr int N = TALL + 2, SLOT = (N + TALL) * THREADS, ALL = COLUMNS<T> * SLOT;
    const int c = first_column<W>(s);
    const RowRange strips = rows_of_part(s, strips_per_part);
    float sum[9][W] = {};
    for (int index = strips.first; index < strips.last && c < s.cols; index += strips.step) {
        const Strip strip(index, height, width, columns);
        const int image = strip.image * height * width;
        // Gradients right of the strip are another's.
        const Column<N, W, T> pixels(row(x, x_pitch, image) + c, x_pitch, height, width, strip.row - 1, memory + threadIdx.x);
        const Column<TALL, W, T> gradients(
            row(dy, dy_pitch, image) + c, dy_pitch, height, width, strip.row, memory + N * THREADS + threadIdx.x);
        int next = strip.first - 1, sent = 0, taken = 0; // the next column to be sent for, its slot, the slot of column j
        // A column of pixels travels with the gradients to its right, which the strip's last columns do not have.
        const auto send = [&] {
            if (next <= strip.last) pixels.send(next, sent), gradients.send(next + 1 < strip.last ? next + 1 : -1, sent);
            cp_async_commit();
            next++, sent = sent + SLOT == ALL ? 0 : sent + SLOT;
        };
#pragma unroll
        for (int a = 1; a < COLUMNS<T>; a++) send();
        Floats<W> before[TALL] = {}, here[TALL] = {}, after[TALL]; // dy one to the left of the column of x, at it, one to its right
#pragma unroll 1
        for (int j = strip.first - 1; j <= strip.last; j++) {
            send();
            cp_async_wait<COLUMNS<T> - 1>();
            Floats<W> in[N];
            pixels.take(in, j, taken);
            gradients.take(after, j + 1 < strip.last ? j + 1 : -1, taken);
            taken = taken + SLOT == ALL ? 0 : taken + SLOT;
#pragma unroll
            for (int o = 0; o < TALL; o++) {
#pragma unroll
                for (int p = 0; p < 3; p++) {
#pragma unroll
                    for (int i = 0; i < W; i++) {
                        sum[3 * p][i] += in[o + p].v[i] * after[o].v[i];
                        sum[3 * p + 1][i] += in[o + p].v[i] * here[o].v[i];
                        sum[3 * p + 2][i] += in[o + p].v[i] * before[o].v[i];
                    }
                }
                before[o] = here[o], here[o] = after[o];
            }
        }
    }
    __syncthreads(); // nobody works on pixels in shared memory any more
    fold_rows(sum, s, reinterpret_cast<float(*)[THREADS]>(memory));
    put_part(sum, partial, c, s);
}

// Part blockIdx.y of the gradient by tap blockIdx.z of any window: the output pixels of a part are dealt to the threads of a column.
template <class T, int W>
__device__ __forceinline__ void depthwise_dw_window(
    const T* x, // (images * in_h * in_w, channels), pitch
    int x_pitch,
    const T* dy, // (images * out_h * out_w, channels), pitch
    int dy_pitch,
    float* partial, // (parts, kernel_h * kernel_w, channels)
    const Window& g, Sheet s, int pixels_per_part) {
    const int c = first_column<W>(s), tap = blockIdx.z, i = tap / g.kernel_w, j = tap % g.kernel_w;
    const RowRange pixels = rows_of_part(s, pixels_per_part);
    float sum[1][W] = {};
    for (int pixel = pixels.first; pixel < pixels.last && c < s.cols; pixel += pixels.step) {
        const int image = quotient(pixel, g.by_out_pixels), in_image = pixel - image * g.out_h * g.out_w;
        const int o = quotient(in_image, g.by_out_w), p = in_image - o * g.out_w;
        const int a = o * g.stride_h + i - g.pad_top, b = p * g.stride_w + j - g.pad_left;
        if ((unsigned)a >= (unsigned)g.in_h || (unsigned)b >= (unsigned)g.in_w) continue;
        const Floats<W> v = read<W>(row(x, x_pitch, (image * g.in_h + a) * g.in_w + b) + c), d = read<W>(row(dy, dy_pitch, pixel) + c);
        for (int q = 0; q < W; q++) sum[0][q] += v.v[q] * d.v[q];
    }
    fold_rows(sum, s);
    if (row_in_block(s) != 0 || c >= s.cols) return;
    float* to = partial + ((int64_t)blockIdx.y * g.kernel_h * g.kernel_w + tap) * s.cols + c;
    for (int q = 0; q < W; q++) to[q] = sum[0][q];
}

// W is 1 where rows do not allow packs of 16 bytes.
#define DEPTHWISE(type, T)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 3) depthwise_3x3_##type(                                             \
        const T* x, int x_pitch, const float* w, T* y, int y_pitch, Sheet s, int height, int width, int columns, int turned,   \
        int add) {                                                                                                             \
        __shared__ Pixels<T> memory[MEMORY<TALL + 2, T>];                                                                      \
        if (s.width > 1) depthwise_3x3<T, CHANNELS>(x, x_pitch, w, y, y_pitch, s, height, width, columns, turned, add, memory); \
        else depthwise_3x3<T, 1>(x, x_pitch, w, y, y_pitch, s, height, width, columns, turned, add, memory);                   \
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
    extern "C" __global__ void __launch_bounds__(THREADS, 3) depthwise_dw_3x3_##type(                                          \
        const T* x, int x_pitch, const T* dy, int dy_pitch, float* partial, Sheet s, int height, int width, int columns,       \
        int strips_per_part) {                                                                                                 \
        __shared__ Pixels<T> memory[MEMORY<2 * TALL + 2, T>];                                                                  \
        static_assert(sizeof memory >= 9 * CHANNELS * THREADS * sizeof(float), "the sums are folded there");                   \
        if (s.width > 1) depthwise_dw_3x3<T, CHANNELS>(x, x_pitch, dy, dy_pitch, partial, s, height, width, columns, strips_per_part, memory); \
        else depthwise_dw_3x3<T, 1>(x, x_pitch, dy, dy_pitch, partial, s, height, width, columns, strips_per_part, memory);    \
    }                                                                                                                          \
    KERNEL_EXPORT(depthwise_dw_3x3_##type)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) depthwise_dw_window_##type(                                          \
        const T* x, int x_pitch, const T* dy, int dy_pitch, float* partial, Window window, Sheet s, int pixels_per_part) {     \
        if (s.width > 1) depthwise_dw_window<T, WIDE<T>>(x, x_pitch, dy, dy_pitch, partial, window, s, pixels_per_part);       \
        else depthwise_dw_window<T, 1>(x, x_pitch, dy, dy_pitch, partial, window, s, pixels_per_part);                         \
    }                                                                                                                          \
    KERNEL_EXPORT(depthwise_dw_window_##type)
DEPTHWISE(f32, float)
DEPTHWISE(bf16, bf16)
