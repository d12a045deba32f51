// Matrices element by element: 16 bytes at a time where rows are aligned for it, arithmetic in float whatever the storage
// type, and the thread mapping that all kernels of one pass over memory share.
//
// A matrix is a pointer and a pitch (elements from row to row, at least as many as columns). Rows are pixels, columns are channels.
#pragma once
#include "common.cuh"

// W neighbouring elements of a row.
template <int W> struct Floats {
    float v[W];
};

// Elements a thread takes at a time: 16 bytes of the narrowest type.
template <class T, class U = T> constexpr int WIDE = 16 / (sizeof(T) < sizeof(U) ? sizeof(T) : sizeof(U));

// Row r of a matrix. Offsets have 64 bits: a batch of activations has more than 2^31 of them.
template <class T> __device__ __forceinline__ T* row(T* x, int pitch, int r) { return x + (size_t)r * pitch; }

// The elements from `at` on. W > 1 reads 16 bytes at a time and asks for an aligned address.
template <int W, class T> __device__ __forceinline__ Floats<W> read(const T* at) {
    Floats<W> all;
    if constexpr (W == 1) {
        all.v[0] = load(at);
    } else {
        constexpr int N = Pack<T>::N;
        for (int i = 0; i < W; i += N) {
            const Pack<T> some = load_pack(at + i);
            for (int k = 0; k < N; ++k) all.v[i + k] = some.v[k];
        }
    }
    return all;
}

// Writes the elements from `at` on, or adds to them: the sum is taken in float and rounded once.
template <int W, class T> __device__ __forceinline__ void write(T* at, Floats<W> all, int add) {
    if constexpr (W == 1) {
        put(at, all.v[0], add);
    } else {
        constexpr int N = Pack<T>::N;
        for (int i = 0; i < W; i += N) {
            Pack<T> some;
            if (add) some = load_pack(at + i);
            for (int k = 0; k < N; ++k) some.v[k] = add ? some.v[k] + all.v[i + k] : all.v[i + k];
            store_pack(at + i, some);
        }
    }
}

// W elements of a per-channel vector, which may lie anywhere: read once for all rows of a thread.
template <int W> __device__ __forceinline__ Floats<W> channels(const float* at) {
    Floats<W> p;
    for (int w = 0; w < W; ++w) p.v[w] = at[w];
    return p;
}

constexpr int THREADS = 256; // of every block

// How the threads of a launch lie on a matrix: a block covers 2^across packs of columns times THREADS / 2^across rows. A thread stays in
// its columns, so that it reads per-channel vectors once, and goes down row_step rows at a time. device::cuda::sheet::Sheet is the
// Rust side.
struct Sheet {
    int rows, cols;
    int across;
    int width; // columns of a pack: 16 bytes of the narrowest type, or 1 where a matrix is not aligned for that
};
static_assert(sizeof(Sheet) == 16, "as declared in src/device/cuda/sheet.rs");

template <int W> __device__ __forceinline__ int first_column(Sheet s) {
    return ((blockIdx.x << s.across) + (threadIdx.x & ((1 << s.across) - 1))) * W;
}
__device__ __forceinline__ int rows_of_block(Sheet s) { return THREADS >> s.across; }
__device__ __forceinline__ int row_in_block(Sheet s) { return threadIdx.x >> s.across; }
__device__ __forceinline__ int first_row(Sheet s) { return blockIdx.y * rows_of_block(s) + row_in_block(s); }
__device__ __forceinline__ int row_step(Sheet s) { return gridDim.y * rows_of_block(s); }

// The mapping of kernels over a vector of n elements: calls f(i, width) for packs of W elements and then, one by one, for the
// rest, where `width` is a type whose value is the number of elements from i on.
template <int W> struct Width {
    static constexpr int value = W;
};
template <int W, class F> __device__ __forceinline__ void each_of(size_t n, F f) {
    const size_t thread = (size_t)blockIdx.x * blockDim.x + threadIdx.x, threads = (size_t)gridDim.x * blockDim.x;
    for (size_t i = thread; i < n / W; i += threads) f(i * W, Width<W>{});
    if constexpr (W > 1) {
        for (size_t i = n / W * W + thread; i < n; i += threads) f(i, Width<1>{});
    }
}

// Activations, as numbered in src/ops/activation/cuda.rs.
constexpr int LINEAR = 0, RELU = 1, SIGMOID = 2;

// act(z). What is not a number stays so.
__device__ __forceinline__ float activate(int act, float z) {
    if (act == RELU) return z < 0.0f ? 0.0f : z;
    if (act == SIGMOID) return 1.0f / (1.0f + expf(-z));
    return z;
}

// dy act'(z), written in y = act(z).
__device__ __forceinline__ float through(int act, float dy, float y) {
    if (act == RELU) return y > 0.0f ? dy : 0.0f;
    if (act == SIGMOID) return dy * y * (1.0f - y);
    return dy;
}

// dz = dy act'(x scale + shift), the gradient before the activation. It computes z with the fused multiply-add that the forward pass had,
// so that both agree to the bit on where a relu was open.
__device__ __forceinline__ float before(int act, float dy, float x, float scale, float shift) {
    return act == LINEAR ? dy : through(act, dy, activate(act, fmaf(x, scale, shift)));
}

// Instances of a kernel for storage types: NAME(suffix, type of the matrices read, type of the matrix written).
#define SAME_TYPES(NAME) NAME(f32, float, float) NAME(bf16, bf16, bf16)
#define ALL_TYPES(NAME) SAME_TYPES(NAME) NAME(bf16_f32, bf16, float) NAME(f32_bf16, float, bf16)
