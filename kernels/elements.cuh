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

// W neighbouring elements of a row as memory holds them: what is on its way to a thread waits in half the registers if it is bf16.
template <int W, class T> struct __align__(W * sizeof(T) < 16 ? 8 : 16) Raw {
    static constexpr int WORDS = W * sizeof(T) / 4;
    unsigned word[WORDS];
};
template <class T> struct Raw<1, T> {
    T value;
};

// The elements from `at` on. W > 1 reads 16 bytes at a time (8 where that is all) and asks for an address aligned to that.
template <int W, class T> __device__ __forceinline__ Raw<W, T> fetch(const T* at) {
    Raw<W, T> raw;
    if constexpr (W == 1) {
        raw.value = *at;
    } else if constexpr (W * sizeof(T) == 8) {
        const uint2 q = *reinterpret_cast<const uint2*>(at);
        raw.word[0] = q.x, raw.word[1] = q.y;
    } else {
        for (int i = 0; i < Raw<W, T>::WORDS; i += 4) {
            const uint4 q = reinterpret_cast<const uint4*>(at)[i / 4];
            raw.word[i] = q.x, raw.word[i + 1] = q.y, raw.word[i + 2] = q.z, raw.word[i + 3] = q.w;
        }
    }
    return raw;
}

// The same if `real`, else zeros: nothing is read.
template <int W, class T> __device__ __forceinline__ Raw<W, T> fetch_if(bool real, const T* at) {
    return real ? fetch<W>(at) : Raw<W, T>{};
}

template <int W, class T> __device__ __forceinline__ Floats<W> floats(const Raw<W, T>& raw) {
    Floats<W> all;
    if constexpr (W == 1) {
        all.v[0] = load(&raw.value);
    } else {
        for (int w = 0; w < W; ++w) {
            if constexpr (sizeof(T) == 4) all.v[w] = __uint_as_float(raw.word[w]);
            else all.v[w] = w % 2 ? bf16_high(raw.word[w / 2]) : bf16_low(raw.word[w / 2]);
        }
    }
    return all;
}

template <int W, class T> __device__ __forceinline__ Floats<W> read(const T* at) { return floats(fetch<W>(at)); }

// Writes the elements from `at` on, as `fetch` reads them.
template <int W, class T> __device__ __forceinline__ void write(T* at, const Floats<W>& all) {
    if constexpr (W == 1) {
        store(at, all.v[0]);
    } else {
        constexpr int WORDS = Raw<W, T>::WORDS;
        unsigned word[WORDS];
        for (int i = 0; i < WORDS; ++i) {
            if constexpr (sizeof(T) == 4) word[i] = __float_as_uint(all.v[i]);
            else word[i] = bf16_pair(all.v[2 * i], all.v[2 * i + 1]);
        }
        if constexpr (WORDS == 2) {
            *reinterpret_cast<uint2*>(at) = make_uint2(word[0], word[1]);
        } else {
            for (int i = 0; i < WORDS; i += 4)
                reinterpret_cast<uint4*>(at)[i / 4] = make_uint4(word[i], word[i + 1], word[i + 2], word[i + 3]);
        }
    }
}

// Writes, or adds to what lies there: the sum is taken in float and rounded once.
template <int W, class T> __device__ __forceinline__ void write(T* at, Floats<W> all, int add) {
    if (add) {
        const Floats<W> old = read<W>(at);
        for (int w = 0; w < W; ++w) all.v[w] = old.v[w] + all.v[w];
    }
    write<W>(at, all);
}

// W elements of a per-channel vector, read once for all rows of a thread. It may lie anywhere; where it is aligned it takes a quarter of the
// reads.
template <int W> __device__ __forceinline__ Floats<W> channels(const float* at) {
    if constexpr (W % 4 == 0) {
        if (reinterpret_cast<uintptr_t>(at) % 16 == 0) return read<W>(at);
    }
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
