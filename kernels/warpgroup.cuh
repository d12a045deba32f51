// The matrix product in bf16 on Hopper's warpgroups: tensor cores that read both operands from shared memory.
//
// As in product.cuh, slabs of both operands travel through a ring in shared memory; here they are BK = 64 deep and lie as the hardware
// wants them (SharedMatrix in tile.cuh). A block has one or two warpgroups of four warps, each of which owns WM x BN results and asks for the
// products of one slab after the other, and two or four more warps that bring slabs by asynchronous copies into any place of the ring that is
// free. Two barriers for each place, that it is full and that it is free, are all that they wait for.
#pragma once
#include "product.cuh"

struct Warpgroup {
    using Element = bf16;
    static constexpr int BK = 64, K = 16; // steps of k of a slab, and of one product
};

// Sizes of a block's work: BM x BN results, WM x BN for each warpgroup, slabs brought by so many other threads.
template <int BM_, int BN_, int WM_, int LOADERS_, int STAGES_, int BLOCKS_> struct WarpgroupTile {
    static constexpr int BM = BM_, BN = BN_, WM = WM_, LOADERS = LOADERS_, STAGES = STAGES_;
    static constexpr int GROUPS = BM / WM, THREADS = GROUPS * 128 + LOADERS;
    static constexpr int BLOCKS = BLOCKS_; // that share a multiprocessor
    static constexpr int PITCH = BN + 8;   // floats from row to row of the results: fragments of four rows meet in no bank
};

// EXTENT x BK elements in rows of 128 bytes: of 64 k where these are neighbours in memory, otherwise panels of 64 neighbours along m (or n).
template <int EXTENT, bool K_INNER> struct SwizzledSlab {
    static constexpr bool INNER = K_INNER;
    static constexpr int ROW = 128, PANEL = K_INNER ? 0 : Warpgroup::BK * ROW;
    static constexpr int BYTES = K_INNER ? EXTENT * ROW : (EXTENT + 63) / 64 * PANEL;
    // Columns of a row of the slab, and the bytes to the chunk that starts at a column (of eight).
    static constexpr int ROWS = K_INNER ? EXTENT : Warpgroup::BK, COLS = K_INNER ? Warpgroup::BK : EXTENT;
    static __device__ __forceinline__ int at(int row, int col) { return col / 64 * PANEL + row * ROW + (col / 8 % 8 ^ row % 8) * 16; }
    // Bytes from m (a multiple of 64) and k (of 16) to the next.
    static __device__ __forceinline__ int to(int m, int k) { return K_INNER ? m * ROW + k * 2 : m / 64 * PANEL + k * ROW; }
};

// Brings slabs of one operand into shared memory, 16 bytes at a time. Where k is the inner index eight threads share a row of the slab, and a
// thread has the same eight steps of k of every STEP-th row. Otherwise four threads share a k, and a thread has every fourth chunk of it: what
// a k asks for (a pixel to be found among images) is worked out once for several chunks.
template <int EXTENT, class Operand, int LOADERS> struct SwizzledLoader {
    using Slab = SwizzledSlab<EXTENT, Operand::K_INNER>;
    static constexpr bool K_INNER = Operand::K_INNER;
    static constexpr int SHARE = K_INNER ? 8 : 4, STEP = LOADERS / SHARE, PASSES = Slab::ROWS / STEP;
    static constexpr int FIXED = K_INNER ? PASSES : EXTENT / 32;
    static_assert(STEP % 8 == 0 && Slab::ROWS % STEP == 0, "a thread's rows are swizzled alike");

    const Operand& operand;
    int row, col, place;
    typename Operand::Fixed fixed[FIXED];

    // Of eight neighbouring threads that share two rows these are four apart: their chunks meet in no bank.
    static __device__ __forceinline__ int row_of(int thread) {
        const int r = thread / SHARE;
        return K_INNER ? r : r & ~7 | r >> 1 & 3 | (r & 1) << 2;
    }

    __device__ __forceinline__ SwizzledLoader(const Operand& operand, int first, int thread)
        : operand(operand), row(row_of(thread)), col(thread % SHARE * 8), place(Slab::at(row, col)) {
#pragma unroll
        for (int i = 0; i < FIXED; i++) fixed[i] = operand.fixed(first + (K_INNER ? row + i * STEP : col + i * 32));
    }

    __device__ __forceinline__ void load(unsigned char* slab, int k) const {
        if constexpr (K_INNER) {
            const auto moving = operand.moving(k + col);
#pragma unroll
            for (int p = 0; p < PASSES; p++) put(slab + place + p * STEP * Slab::ROW, operand.find(fixed[p], moving));
        } else {
#pragma unroll
            for (int p = 0; p < PASSES; p++) {
                const auto moving = operand.moving(k + row + p * STEP);
#pragma unroll
                for (int i = 0; i < FIXED; i++)
                    put(slab + (place ^ i % 2 * 64) + i / 2 * Slab::PANEL + p * STEP * Slab::ROW, operand.find(fixed[i], moving));
            }
        }
    }

    static __device__ __forceinline__ void put(unsigned char* to, Spot<bf16> from) { cp_async_16(to, from.at, from.real ? 16 : 0); }
};

template <class Tile> struct Multiply<Warpgroup, Tile, true> {
    template <class A, class B>
    static __device__ __forceinline__ void run(const A& a, const B& b, int m0, int n0, int first, int last) {
        using SA = SwizzledSlab<Tile::BM, A::K_INNER>;
        using SB = SwizzledSlab<Tile::BN, B::K_INNER>;
        constexpr int STAGES = Tile::STAGES, STAGE = SA::BYTES + SB::BYTES, RESULTS = Tile::BM * Tile::PITCH * 4;
        constexpr int RING = STAGES * STAGE > RESULTS ? STAGES * STAGE : RESULTS;
        PhaseBarrier* full = reinterpret_cast<PhaseBarrier*>(smem_raw + RING);
        PhaseBarrier* free = full + STAGES;
        if (threadIdx.x < STAGES) full[threadIdx.x].init(Tile::LOADERS), free[threadIdx.x].init(4 * Tile::GROUPS);
        __syncthreads();
        const int steps = max(ceil_div(last - first, Warpgroup::BK), 1); // with nothing to sum, a slab of zeros
        const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
        float sums[Tile::WM / 64][Tile::BN / 2];
        if (group == Tile::GROUPS) {
            const int thread = threadIdx.x - 128 * Tile::GROUPS;
            const SwizzledLoader<Tile::BM, A, Tile::LOADERS> left(a, m0, thread);
            const SwizzledLoader<Tile::BN, B, Tile::LOADERS> right(b, n0, thread);
            for (int step = 0; step < steps; step++) {
                const int place = step % STAGES, round = step / STAGES;
                unsigned char* stage = smem_raw + place * STAGE;
                if (round > 0) free[place].wait((round - 1) % 2);
                left.load(stage, first + step * Warpgroup::BK);
                right.load(stage + SA::BYTES, first + step * Warpgroup::BK);
                full[place].arrive_with_copies();
            }
        } else {
            for (int step = 0; step < steps; step++) {
                const int place = step % STAGES;
                const unsigned char* stage = smem_raw + place * STAGE;
                full[place].wait(step / STAGES % 2);
                proxy_fence();
                add<SA, SB>(sums, stage + SA::to(group * Tile::WM, 0), stage + SA::BYTES, step > 0);
                warpgroup_wait<1>(); // the slab before is done with
                if (step > 0 && threadIdx.x % 32 == 0) free[(step - 1) % STAGES].arrive();
            }
            warpgroup_wait<0>();
        }
        __syncthreads(); // all products are done: the ring may be written over
        if (group < Tile::GROUPS) put(sums, reinterpret_cast<float*>(smem_raw) + group * Tile::WM * Tile::PITCH);
    }

    // Asks for the products of a slab.
    template <class SA, class SB, int TM, int N>
    static __device__ __forceinline__ void add(float (&sums)[TM][N], const unsigned char* a, const unsigned char* b, bool keep) {
        const SharedMatrix x(a, SA::PANEL), y(b, SB::PANEL);
        warpgroup_arrive();
#pragma unroll
        for (int k = 0; k < Warpgroup::BK; k += Warpgroup::K) {
#pragma unroll
            for (int i = 0; i < TM; i++) {
                const SharedMatrix rows = x.from(SA::to(64 * i, k)), cols = y.from(SB::to(0, k));
                warpgroup_mma<Tile::BN, SA::INNER, SB::INNER>(sums[i], rows, cols, keep || k > 0);
            }
        }
        warpgroup_commit();
    }

    // The warpgroup's sums, row by row.
    template <int TM, int N> static __device__ __forceinline__ void put(const float (&sums)[TM][N], float* to) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
        for (int i = 0; i < TM; i++) {
#pragma unroll
            for (int j = 0; j < N / 4; j++) {
                float* at = to + (64 * i + 16 * warp + lane / 4) * Tile::PITCH + 8 * j + lane % 4 * 2;
                *reinterpret_cast<float2*>(at) = make_float2(sums[i][4 * j], sums[i][4 * j + 1]);
                *reinterpret_cast<float2*>(at + 8 * Tile::PITCH) = make_float2(sums[i][4 * j + 2], sums[i][4 * j + 3]);
            }
        }
    }
};

// The tiles that kernels are made for. The names are those of src/ops/conv2d/cuda/mod.rs.
using Giant = WarpgroupTile<256, 128, 128, 128, 4, 1>;
using Square = WarpgroupTile<128, 128, 64, 64, 3, 2>;
using Column = WarpgroupTile<128, 64, 64, 64, 4, 2>;
using Little = WarpgroupTile<64, 64, 64, 64, 4, 3>;
using Strip = WarpgroupTile<128, 32, 64, 64, 4, 2>;
using Least = WarpgroupTile<64, 32, 64, 64, 4, 3>;
