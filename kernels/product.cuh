// The matrix product behind convolution: one main loop for three arithmetics.
//
// A block computes BM x BN results. Slabs of BK columns of `a` and BK rows of `b` travel through a ring of STAGES buffers in
// shared memory, filled by asynchronous copies of 16 bytes ahead of their use, with one barrier per slab. Each warp owns
// WM x WN results in registers, in f32. At the end the results pass through shared memory once more, so that whole rows are
// finished and written in vectors. Every result sums over k in ascending order, whatever the tile: an image's results have
// the same bits in any batch.
#pragma once
#include "operand.cuh"
#include "tile.cuh"

extern __shared__ __align__(1024) unsigned char smem_raw[];

// Sizes of a block's work.
template <int BM_, int BN_, int WM_, int WN_, int STAGES_> struct Tile {
    static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, STAGES = STAGES_;
    static constexpr int THREADS = BM / WM * (BN / WN) * 32, BLOCKS = 0; // as many blocks as fit a multiprocessor
    static constexpr int PITCH = BN + 4; // floats from row to row of the results in shared memory
};

// EXTENT x DEPTH elements in shared memory, the inner index contiguous. Rows are padded so that neither the copies nor the
// reads of the arithmetic meet in a bank: by 16 bytes, or by what the arithmetic asks for where k is the outer index.
template <class Math, int EXTENT, bool K_INNER> struct Slab {
    using Element = typename Math::Element;
    static constexpr int ROWS = K_INNER ? EXTENT : Math::BK, COLS = K_INNER ? Math::BK : EXTENT;
    static constexpr int PITCH = COLS + (K_INNER ? 16 / (int)sizeof(Element) : Math::OUTER_PAD);
    static constexpr int ELEMENTS = ROWS * PITCH;
    static constexpr bool INNER = K_INNER;
    const Element* data;
    __device__ __forceinline__ const Element* at(int i, int k) const { return data + (K_INNER ? i * PITCH + k : k * PITCH + i); }
};

// Four numbers at once.
__device__ __forceinline__ void load4(float (&to)[4], const float* from) {
    const float4 v = *reinterpret_cast<const float4*>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

// ---- f32: the exact path, no tensor cores. Lanes form 4 rows x 8 columns; each keeps WM/4 x WN/8 results.
struct Exact {
    using Element = float;
    static constexpr int BK = 16, OUTER_PAD = 4;

    template <int WM, int WN> struct Sums {
        static constexpr int TM = WM / 4, TN = WN / 8;
        float sum[TM][TN] = {};

        // Rows and columns of a lane: groups of four where the slab is read along them, else one in four (or eight) apart.
        template <bool K_INNER> static __device__ __forceinline__ int row(int i, int lane) {
            return K_INNER ? (lane >> 3) + 4 * i : (i >> 2) * 16 + (lane >> 3) * 4 + (i & 3);
        }
        template <bool K_INNER> static __device__ __forceinline__ int col(int j, int lane) {
            return K_INNER ? (lane & 7) + 8 * j : (j >> 2) * 32 + (lane & 7) * 4 + (j & 3);
        }

        // Four steps of k of one side: part[i][k], read in vectors of four along the inner index.
        template <class S, int N, class Index> static __device__ __forceinline__ void read(float (&part)[N][4], S s, int k, Index index) {
            if constexpr (S::INNER) {
#pragma unroll
                for (int i = 0; i < N; i++) load4(part[i], s.at(index(i), k));
            } else {
#pragma unroll
                for (int i = 0; i < N; i += 4) {
#pragma unroll
                    for (int q = 0; q < 4; q++) {
                        float v[4];
                        load4(v, s.at(index(i), k + q));
#pragma unroll
                        for (int r = 0; r < 4; r++) part[i + r][q] = v[r];
                    }
                }
            }
        }

        template <class A, class B> __device__ __forceinline__ void add(A a, B b, int m, int n, int lane) {
#pragma unroll
            for (int k = 0; k < BK; k += 4) {
                float x[TM][4], y[TN][4];
                read(x, a, k, [&](int i) { return m + row<A::INNER>(i, lane); });
                read(y, b, k, [&](int j) { return n + col<B::INNER>(j, lane); });
#pragma unroll
                for (int q = 0; q < 4; q++) {
#pragma unroll
                    for (int i = 0; i < TM; i++) {
#pragma unroll
                        for (int j = 0; j < TN; j++) sum[i][j] = fmaf(x[i][q], y[j][q], sum[i][j]);
                    }
                }
            }
        }

        template <class A, class B> __device__ __forceinline__ void put(float* to, int pitch, int lane) const {
#pragma unroll
            for (int i = 0; i < TM; i++) {
#pragma unroll
                for (int j = 0; j < TN; j++) to[row<A::INNER>(i, lane) * pitch + col<B::INNER>(j, lane)] = sum[i][j];
            }
        }
    };
};

// ---- Tensor cores: results as fragments of 16 x 8.
template <class Step> struct Tensor {
    using Element = typename Step::Element;
    static constexpr int BK = Step::BK, OUTER_PAD = Step::OUTER_PAD;

    template <int WM, int WN> struct Sums {
        static constexpr int TM = WM / 16, TN = WN / 8;
        float sum[TM][TN][4] = {};

        template <class A, class B> __device__ __forceinline__ void add(A a, B b, int m, int n, int lane) {
#pragma unroll
            for (int k = 0; k < BK; k += Step::K) {
                unsigned x[TM][4], y[TN][2];
#pragma unroll
                for (int i = 0; i < TM; i++) Step::left(x[i], a, m + 16 * i, k, lane);
#pragma unroll
                for (int j = 0; j < TN; j += 2) Step::right(y[j], y[j + 1], b, n + 8 * j, k, lane);
#pragma unroll
                for (int i = 0; i < TM; i++) {
#pragma unroll
                    for (int j = 0; j < TN; j++) Step::mma(sum[i][j], x[i], y[j]);
                }
            }
        }

        template <class A, class B> __device__ __forceinline__ void put(float* to, int pitch, int lane) const {
#pragma unroll
            for (int i = 0; i < TM; i++) {
#pragma unroll
                for (int j = 0; j < TN; j++) {
                    float* at = to + (16 * i + (lane >> 2)) * pitch + 8 * j + (lane & 3) * 2;
                    *reinterpret_cast<float2*>(at) = make_float2(sum[i][j][0], sum[i][j][1]);
                    *reinterpret_cast<float2*>(at + 8 * pitch) = make_float2(sum[i][j][2], sum[i][j][3]);
                }
            }
        }
    };
};

// bf16: products of bf16, 16 steps of k at once.
struct Bf16Step {
    using Element = bf16;
    static constexpr int BK = 32, K = 16, OUTER_PAD = 8;

    template <class S> static __device__ __forceinline__ void left(unsigned (&a)[4], S s, int m, int k, int lane) {
        if constexpr (S::INNER) ldmatrix_x4(a, s.at(m + (lane & 15), k + (lane >> 4) * 8));
        else ldmatrix_x4_trans(a, s.at(m + (lane >> 3 & 1) * 8, k + (lane & 7) + (lane >> 4) * 8));
    }
    template <class S> static __device__ __forceinline__ void right(unsigned (&b)[2], unsigned (&c)[2], S s, int n, int k, int lane) {
        unsigned r[4];
        if constexpr (S::INNER) ldmatrix_x4(r, s.at(n + (lane & 7) + (lane >> 4) * 8, k + (lane >> 3 & 1) * 8));
        else ldmatrix_x4_trans(r, s.at(n + (lane >> 4) * 8, k + (lane & 15)));
        b[0] = r[0], b[1] = r[1], c[0] = r[2], c[1] = r[3];
    }
    static __device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_bf16(d, a, b); }
};
using Bf16 = Tensor<Bf16Step>;

// tf32: f32 in memory, rounded on the way to the tensor cores, 8 steps of k at once.
struct Tf32Step {
    using Element = float;
    static constexpr int BK = 16, K = 8, OUTER_PAD = 8;

    static __device__ __forceinline__ unsigned rounded(const float* x) { return round_tf32(__float_as_uint(*x)); }

    template <class S> static __device__ __forceinline__ void left(unsigned (&a)[4], S s, int m, int k, int lane) {
        if constexpr (S::INNER) {
            ldmatrix_x4(a, s.at(m + (lane & 15), k + (lane >> 4) * 4));
#pragma unroll
            for (int i = 0; i < 4; i++) a[i] = round_tf32(a[i]);
        } else {
            const int g = lane >> 2, t = lane & 3;
            a[0] = rounded(s.at(m + g, k + t)), a[1] = rounded(s.at(m + g + 8, k + t));
            a[2] = rounded(s.at(m + g, k + t + 4)), a[3] = rounded(s.at(m + g + 8, k + t + 4));
        }
    }
    template <class S> static __device__ __forceinline__ void right(unsigned (&b)[2], unsigned (&c)[2], S s, int n, int k, int lane) {
        if constexpr (S::INNER) {
            unsigned r[4];
            ldmatrix_x4(r, s.at(n + (lane & 7) + (lane >> 4) * 8, k + (lane >> 3 & 1) * 4));
            b[0] = round_tf32(r[0]), b[1] = round_tf32(r[1]), c[0] = round_tf32(r[2]), c[1] = round_tf32(r[3]);
        } else {
            const int g = lane >> 2, t = lane & 3;
            b[0] = rounded(s.at(n + g, k + t)), b[1] = rounded(s.at(n + g, k + t + 4));
            c[0] = rounded(s.at(n + 8 + g, k + t)), c[1] = rounded(s.at(n + 8 + g, k + t + 4));
        }
    }
    static __device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_tf32(d, a, b); }
};
using Tf32 = Tensor<Tf32Step>;

// Brings slabs of one operand into shared memory. With VEC, 16 bytes at a time by asynchronous copies: the operand's inner
// extent, its pitch and its address are multiples of 16 bytes, so that a vector is there as a whole or not at all. Without, one
// element at a time by plain stores. A thread's vectors of a slab lie in one column, some rows apart.
template <class Math, int EXTENT, class Operand, int THREADS, bool VEC> struct Loader {
    using T = typename Math::Element;
    using S = Slab<Math, EXTENT, Operand::K_INNER>;
    static constexpr int CHUNK = VEC ? 16 / (int)sizeof(T) : 1;
    static constexpr int ACROSS = S::COLS / CHUNK, STEP = THREADS / ACROSS, PASSES = S::ROWS / STEP;
    static_assert(THREADS % ACROSS == 0 && S::ROWS % STEP == 0, "every thread has the same number of vectors");
    static constexpr bool CACHED = VEC && Operand::K_INNER;

    const Operand& operand;
    int first, row, col; // of m or n; of the slab
    typename Operand::Fixed fixed[CACHED ? PASSES : 1];

    __device__ __forceinline__ Loader(const Operand& operand, int first)
        : operand(operand), first(first), row(threadIdx.x / ACROSS), col(threadIdx.x % ACROSS * CHUNK) {
#pragma unroll
        for (int p = 0; p < (CACHED ? PASSES : 1); p++) fixed[p] = operand.fixed(first + (Operand::K_INNER ? row + p * STEP : col));
    }

    __device__ __forceinline__ void load(T* slab, int k) const {
        if constexpr (Operand::K_INNER) {
            const auto moving = operand.moving(k + col);
#pragma unroll
            for (int p = 0; p < PASSES; p++) {
                if constexpr (CACHED) put(slab, p, operand.find(fixed[p], moving));
                else put(slab, p, operand.find(operand.fixed(first + row + p * STEP), moving));
            }
        } else {
#pragma unroll
            for (int p = 0; p < PASSES; p++) put(slab, p, operand.find(fixed[0], operand.moving(k + row + p * STEP)));
        }
    }

    __device__ __forceinline__ void put(T* slab, int pass, Spot<T> from) const {
        T* to = slab + (row + pass * STEP) * S::PITCH + col;
        if constexpr (VEC) cp_async_16(to, from.at, from.real ? 16 : 0);
        else ::store(to, from.real ? ::load(from.at) : 0.0f);
    }
};

// The ring of slabs, and the tile of results that takes its place at the end: a block's shared memory.
template <class Math, class Tile, class A, class B> struct Ring {
    using SA = Slab<Math, Tile::BM, A::K_INNER>;
    using SB = Slab<Math, Tile::BN, B::K_INNER>;
    static constexpr int STAGE = SA::ELEMENTS + SB::ELEMENTS;
};

// Leaves the sums over first <= k < last of a(m, k) b(k, n) of a block's tile in shared memory, as floats [BM][PITCH]. All threads have to
// meet before these are read. warpgroup.cuh has another for the arithmetic of that name.
template <class Math, class Tile, bool VEC> struct Multiply {
    template <class A, class B>
    static __device__ __forceinline__ void run(const A& a, const B& b, int m0, int n0, int first, int last) {
        using R = Ring<Math, Tile, A, B>;
        using T = typename Math::Element;
        T* ring = reinterpret_cast<T*>(smem_raw); // [STAGES][a's slab, b's slab]
        const Loader<Math, Tile::BM, A, Tile::THREADS, VEC> left(a, m0);
        const Loader<Math, Tile::BN, B, Tile::THREADS, VEC> right(b, n0);
        const int steps = last > first ? ceil_div(last - first, Math::BK) : 0;
        auto load = [&](int step) {
            if (step < steps) {
                T* stage = ring + step % Tile::STAGES * R::STAGE;
                left.load(stage, first + step * Math::BK);
                right.load(stage + R::SA::ELEMENTS, first + step * Math::BK);
            }
            cp_async_commit();
        };
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const int m = warp % (Tile::BM / Tile::WM) * Tile::WM, n = warp / (Tile::BM / Tile::WM) * Tile::WN;
        typename Math::template Sums<Tile::WM, Tile::WN> sums;
#pragma unroll
        for (int step = 0; step < Tile::STAGES - 1; step++) load(step);
        for (int step = 0; step < steps; step++) {
            cp_async_wait<Tile::STAGES - 2>();
            __syncthreads(); // this slab has landed for all, and all are done with the one before
            load(step + Tile::STAGES - 1);
            const T* stage = ring + step % Tile::STAGES * R::STAGE;
            sums.add(typename R::SA{stage}, typename R::SB{stage + R::SA::ELEMENTS}, m, n, lane);
        }
        cp_async_wait<0>();
        __syncthreads();
        float* results = reinterpret_cast<float*>(smem_raw);
        sums.template put<typename R::SA, typename R::SB>(results + m * Tile::PITCH + n, Tile::PITCH, lane);
    }
};

// Rows of a thread whose further operands are on their way at a time.
constexpr int TOGETHER = 4;

// Results (m0.., n0..) of the sum over first <= k < last of a(m, k) b(k, n), finished and written by `finish`: a thread has W neighbouring
// columns, from finish.start(col) on, of some rows of the tile, and calls finish.fetch(row) for what a row needs from memory, then
// finish.leave(row, sums, fetched). Results beyond the matrix are among them. With `keep` the tile then holds what `leave` left in the
// sums, for epilogue.cuh.
template <class Math, class Tile, bool VEC, int W, class A, class B, class Finish>
__device__ __forceinline__ void product(const A& a, const B& b, int m0, int n0, int first, int last, Finish finish, bool keep = false) {
    Multiply<Math, Tile, VEC>::run(a, b, m0, n0, first, last);
    __syncthreads();
    constexpr int ACROSS = Tile::BN / W, STEP = Tile::THREADS / ACROSS;
    static_assert(Tile::THREADS % ACROSS == 0, "a thread stays in its columns");
    const int col = threadIdx.x % ACROSS * W;
    float* results = reinterpret_cast<float*>(smem_raw) + col; // [BM][PITCH]
    finish.start(col);
#pragma unroll 1
    for (int row = threadIdx.x / ACROSS; row < Tile::BM; row += STEP * TOGETHER) {
        typename Finish::Fetched fetched[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            if (row + i * STEP < Tile::BM) fetched[i] = finish.fetch(row + i * STEP);
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const int here = row + i * STEP;
            if (here >= Tile::BM) continue;
            Floats<W> sums = read<W>(results + here * Tile::PITCH);
            finish.leave(here, sums, fetched[i]);
            if (keep) write<W>(results + here * Tile::PITCH, sums);
        }
    }
}

// The tiles that kernels are made for. The names are those of src/ops/conv2d/cuda.rs, which picks one by the shape.
using Large = Tile<128, 128, 64, 64, 3>;
using Tall = Tile<128, 64, 64, 32, 4>;
using Narrow = Tile<128, 32, 32, 32, 4>;
using Small = Tile<64, 32, 32, 16, 4>;
// The same work for the exact arithmetic, whose warps hold at most 32 x 64 results.
using LargeExact = Tile<128, 128, 32, 64, 3>;
using TallExact = Tile<128, 64, 32, 64, 3>;
using NarrowExact = Tile<128, 32, 32, 32, 4>;
using SmallExact = Tile<64, 32, 16, 32, 4>;

// Instances of a kernel: NAME(suffix, arithmetic, tile, whether operands are read in vectors). One tile serves operands whose
// channels or addresses do not allow vectors: the three channels of a picture.
#define PRODUCTS(NAME)                                                                                                          \
    NAME(f32_128x128, Exact, LargeExact, true)                                                                                  \
    NAME(f32_128x64, Exact, TallExact, true)                                                                                    \
    NAME(f32_128x32, Exact, NarrowExact, true)                                                                                  \
    NAME(f32_64x32, Exact, SmallExact, true)                                                                                    \
    NAME(f32_any, Exact, SmallExact, false)                                                                                     \
    NAME(tf32_128x128, Tf32, Large, true)                                                                                       \
    NAME(tf32_128x64, Tf32, Tall, true)                                                                                         \
    NAME(tf32_128x32, Tf32, Narrow, true)                                                                                       \
    NAME(tf32_64x32, Tf32, Small, true)                                                                                         \
    NAME(tf32_any, Tf32, Small, false)                                                                                          \
    NAME(bf16_128x128, Bf16, Large, true)                                                                                       \
    NAME(bf16_128x64, Bf16, Tall, true)                                                                                         \
    NAME(bf16_128x32, Bf16, Narrow, true)                                                                                       \
    NAME(bf16_64x32, Bf16, Small, true)                                                                                         \
    NAME(bf16_any, Bf16, Small, false)                                                                                          \
    NAME(bf16_warpgroup_256x128, Warpgroup, Giant, true)                                                                        \
    NAME(bf16_warpgroup_128x128, Warpgroup, Square, true)                                                                       \
    NAME(bf16_warpgroup_128x64, Warpgroup, Column, true)                                                                        \
    NAME(bf16_warpgroup_64x64, Warpgroup, Little, true)                                                                         \
    NAME(bf16_warpgroup_128x32, Warpgroup, Strip, true)                                                                         \
    NAME(bf16_warpgroup_64x32, Warpgroup, Least, true)
