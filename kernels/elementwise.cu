// One pass over matrices: bias, activations, copies between places and storage types, constants, sums. All of them are bound by memory: the
// roofline of each is the bytes it must touch, stated per element for a storage type of s bytes (2s where it adds to its destination).
#include "rows.cuh"
#include <type_traits>

// y (+)= x + b        reads s, writes s
template <int W, class T>
__device__ __forceinline__ void bias_add(const T* x, int x_pitch, const float* b, T* y, int y_pitch, Sheet s, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    const Floats<W> bias = channels<W>(b + c);
    map_rows<W>(rows_of_thread(s), Columns<const T>{x + c, x_pitch}, {}, Columns<T>{y + c, y_pitch}, add, [&](Floats<W> p, const Floats<W>&) {
        for (int w = 0; w < W; ++w) p.v[w] += bias.v[w];
        return p;
    });
}
#define BIAS_ADD(type, T, U)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS) bias_add_##type(                                                     \
        const T* x,     /* (rows, cols) */                                                                                     \
        int x_pitch,                                                                                                           \
        const float* b, /* (cols) */                                                                                           \
        U* y,           /* (rows, cols), may be x */                                                                           \
        int y_pitch, Sheet s, int add) {                                                                                       \
        if (s.width > 1) bias_add<WIDE<T>>(x, x_pitch, b, y, y_pitch, s, add);                                                 \
        else bias_add<1>(x, x_pitch, b, y, y_pitch, s, add);                                                                   \
    }                                                                                                                          \
    KERNEL_EXPORT(bias_add_##type)
SAME_TYPES(BIAS_ADD)

// y (+)= act(x)        reads s, writes s
template <int W, class T>
__device__ __forceinline__ void activation(const T* x, int x_pitch, T* y, int y_pitch, Sheet s, int act, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    map_rows<W>(rows_of_thread(s), Columns<const T>{x + c, x_pitch}, {}, Columns<T>{y + c, y_pitch}, add, [&](Floats<W> p, const Floats<W>&) {
        for (int w = 0; w < W; ++w) p.v[w] = activate(act, p.v[w]);
        return p;
    });
}
#define ACTIVATION(type, T, U)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) activation_##type(                                                   \
        const T* x, /* (rows, cols) */                                                                                         \
        int x_pitch,                                                                                                           \
        U* y,       /* (rows, cols), may be x */                                                                               \
        int y_pitch, Sheet s, int act, int add) {                                                                              \
        if (s.width > 1) activation<WIDE<T>>(x, x_pitch, y, y_pitch, s, act, add);                                             \
        else activation<1>(x, x_pitch, y, y_pitch, s, act, add);                                                               \
    }                                                                                                                          \
    KERNEL_EXPORT(activation_##type)
SAME_TYPES(ACTIVATION)

// dx (+)= dy act'(x), from y = act(x)        reads 2s, writes s
template <int W, class T, class U>
__device__ __forceinline__ void activation_dx(
    const T* dy, int dy_pitch, const T* y, int y_pitch, U* dx, int dx_pitch, Sheet s, int act, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    const Columns<const T> gradient = {dy + c, dy_pitch}, result = {y + c, y_pitch};
    map_rows<W>(rows_of_thread(s), gradient, result, Columns<U>{dx + c, dx_pitch}, add, [&](Floats<W> p, const Floats<W>& of) {
        for (int w = 0; w < W; ++w) p.v[w] = through(act, p.v[w], of.v[w]);
        return p;
    });
}
#define ACTIVATION_DX(type, T, U)                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) activation_dx_##type(                                                \
        const T* dy, /* (rows, cols) */                                                                                        \
        int dy_pitch,                                                                                                          \
        const T* y,  /* (rows, cols) */                                                                                        \
        int y_pitch,                                                                                                           \
        U* dx,       /* (rows, cols), may be dy */                                                                             \
        int dx_pitch, Sheet s, int act, int add) {                                                                             \
        if (s.width > 1) activation_dx<WIDE<T, U>>(dy, dy_pitch, y, y_pitch, dx, dx_pitch, s, act, add);                       \
        else activation_dx<1>(dy, dy_pitch, y, y_pitch, dx, dx_pitch, s, act, add);                                            \
    }                                                                                                                          \
    KERNEL_EXPORT(activation_dx_##type)
ALL_TYPES(ACTIVATION_DX)

// y (+)= x, between places and storage types: casts, and the columns of a concat.        reads s, writes s
template <int W, class T, class U>
__device__ __forceinline__ void copy(const T* x, int x_pitch, U* y, int y_pitch, Sheet s, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    const Columns<const T> from = {x + c, x_pitch};
    map_rows<W>(rows_of_thread(s), from, {}, Columns<U>{y + c, y_pitch}, add, [](const Floats<W>& p, const Floats<W>&) { return p; });
}
#define COPY(type, T, U)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) copy_##type(                                                         \
        const T* x, /* (rows, cols) */                                                                                         \
        int x_pitch,                                                                                                           \
        U* y,       /* (rows, cols) */                                                                                         \
        int y_pitch, Sheet s, int add) {                                                                                       \
        if (s.width > 1) copy<WIDE<T, U>>(x, x_pitch, y, y_pitch, s, add);                                                     \
        else copy<1>(x, x_pitch, y, y_pitch, s, add);                                                                          \
    }                                                                                                                          \
    KERNEL_EXPORT(copy_##type)
ALL_TYPES(COPY)

// y (+)= value        writes s
template <int W, class U> __device__ __forceinline__ void fill(float value, U* y, int y_pitch, Sheet s, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    Floats<W> p;
    for (int w = 0; w < W; ++w) p.v[w] = value;
    for (int r = first_row(s); r < s.rows; r += row_step(s)) write<W>(row(y, y_pitch, r) + c, p, add);
}
#define FILL(type, T, U)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS) fill_##type(                                                         \
        float value,                                                                                                           \
        U* y, /* (rows, cols) */                                                                                               \
        int y_pitch, Sheet s, int add) {                                                                                       \
        if (s.width > 1) fill<WIDE<U>>(value, y, y_pitch, s, add);                                                             \
        else fill<1>(value, y, y_pitch, s, add);                                                                               \
    }                                                                                                                          \
    KERNEL_EXPORT(fill_##type)
SAME_TYPES(FILL)

// Up to so many summands. The Rust side is in src/ops/add/cuda.rs.
constexpr int MOST_SUMMANDS = 64;
struct Summands {
    const void* x[MOST_SUMMANDS]; // (rows, cols) each
    int pitch[MOST_SUMMANDS];
    int half[MOST_SUMMANDS]; // 1: bf16, 0: float
    int count;
};

// y (+)= x0 + x1 + .., in this order, of whatever storage types        reads the sum of all s, writes s
template <int W, class U> __device__ __forceinline__ void add_up(const Summands& all, U* y, int y_pitch, Sheet s, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    constexpr int N = BATCH<W, U>;
    const RowRange rows = rows_of_thread(s);
    for (int r = rows.first; r < rows.last; r += N * rows.step) {
        Floats<W> sum[N] = {};
        for (int k = 0; k < all.count; ++k) {
            const auto take = [&](auto* x) {
                Raw<W, std::remove_const_t<std::remove_pointer_t<decltype(x)>>> p[N];
#pragma unroll
                for (int i = 0; i < N; ++i) p[i] = fetch_if<W>(r + i * rows.step < rows.last, row(x, all.pitch[k], r + i * rows.step) + c);
#pragma unroll
                for (int i = 0; i < N; ++i) {
                    const Floats<W> next = floats(p[i]);
                    for (int w = 0; w < W; ++w) sum[i].v[w] = k == 0 ? next.v[w] : sum[i].v[w] + next.v[w];
                }
            };
            if (!all.half[k]) take(static_cast<const float*>(all.x[k]));
            else if constexpr (W != WIDE<float>) take(static_cast<const bf16*>(all.x[k]));
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (r + i * rows.step < rows.last) write<W>(row(y, y_pitch, r + i * rows.step) + c, sum[i], add);
        }
    }
}
extern "C" __global__ void __launch_bounds__(THREADS, 4) add_f32(
    const __grid_constant__ Summands all,
    float* y, // (rows, cols), may be the first x
    int y_pitch, Sheet s, int add) {
    if (s.width == 8) add_up<8>(all, y, y_pitch, s, add);
    else if (s.width == 4) add_up<4>(all, y, y_pitch, s, add);
    else add_up<1>(all, y, y_pitch, s, add);
}
KERNEL_EXPORT(add_f32)
extern "C" __global__ void __launch_bounds__(THREADS) add_bf16(
    const __grid_constant__ Summands all,
    bf16* y, // (rows, cols), may be the first x
    int y_pitch, Sheet s, int add) {
    if (s.width == 8) add_up<8>(all, y, y_pitch, s, add);
    else add_up<1>(all, y, y_pitch, s, add);
}
KERNEL_EXPORT(add_bf16)
