// The matrix product in bf16 on Hopper's warpgroups: tensor cores that read both operands from shared memory.
//
// As in product.cuh, slabs of both operands travel through a ring in shared memory, filled by asynchronous copies; here they are BK = 64
// deep, lie as the hardware wants them (SharedMatrix in tile.cuh), and no thread reads them. Each warpgroup of four warps owns WM x BN
// results. It asks for the products of a slab and, while they go on, for the copies of a later slab: into the place of the slab before
// the last, whose products all have waited for. One barrier per slab.
#pragma once
#include "product.cuh"

struct Warpgroup {
    using Element = bf16;
    static constexpr int BK = 64, K = 16; // steps of k of a slab, and of one product
};

// Sizes of a block's work: BM x BN results, WM x BN for each warpgroup.
template <int BM_, int BN_, int WM_, int STAGES_, int BLOCKS_> struct WarpgroupTile {
    static constexpr int BM = BM_, BN = BN_, WM = WM_, STAGES = STAGES_;
    static constexpr int THREADS = BM / WM * 128, BLOCKS = BLOCKS_; // blocks that share a multiprocessor
    static constexpr int PITCH = BN + 4;
};

// EXTENT x BK elements in rows of 128 bytes: of 64 k where these are neighbours in memory, otherwise panels of 64 neighbours along m (or n).
template <int EXTENT, bool K_INNER> struct SwizzledSlab {
    static constexpr int ROW = 128, PANEL = K_INNER ? 0 : Warpgroup::BK * ROW;
    static constexpr int BYTES = K_INNER ? EXTENT * ROW : (EXTENT + 63) / 64 * PANEL;
    // Columns of a row of the slab, and the bytes to the chunk that starts at a column (of eight).
    static constexpr int ROWS = K_INNER ? EXTENT : Warpgroup::BK, COLS = K_INNER ? Warpgroup::BK : EXTENT;
    static __device__ __forceinline__ int at(int row, int col) { return col / 64 * PANEL + row * ROW + (col / 8 % 8 ^ row % 8) * 16; }
    // Bytes from m (a multiple of 64) and k (of 16) to the next.
    static __device__ __forceinline__ int to(int m, int k) { return K_INNER ? m * ROW + k * 2 : m / 64 * PANEL + k * ROW; }
};

// Brings slabs of one operand into shared memory, 16 bytes at a time. A thread's chunks of a slab lie in one column, some rows apart.
template <int EXTENT, class Operand, int THREADS> struct SwizzledLoader {
    using Slab = SwizzledSlab<EXTENT, Operand::K_INNER>;
    static constexpr int ACROSS = Slab::COLS / 8, STEP = THREADS / ACROSS, PASSES = Slab::ROWS / STEP;
    static_assert(STEP % 8 == 0 && Slab::ROWS % STEP == 0, "a thread's chunks are swizzled alike");

    const Operand& operand;
    int row, col, place;
    typename Operand::Fixed fixed[Operand::K_INNER ? PASSES : 1];

    __device__ __forceinline__ SwizzledLoader(const Operand& operand, int first)
        : operand(operand), row(threadIdx.x / ACROSS), col(threadIdx.x % ACROSS * 8), place(Slab::at(row, col)) {
#pragma unroll
        for (int p = 0; p < (Operand::K_INNER ? PASSES : 1); p++) fixed[p] = operand.fixed(first + (Operand::K_INNER ? row + p * STEP : col));
    }

    __device__ __forceinline__ void load(unsigned char* slab, int k) const {
        if constexpr (Operand::K_INNER) {
            const auto moving = operand.moving(k + col);
#pragma unroll
            for (int p = 0; p < PASSES; p++) put(slab, p, operand.find(fixed[p], moving));
        } else {
#pragma unroll
            for (int p = 0; p < PASSES; p++) put(slab, p, operand.find(fixed[0], operand.moving(k + row + p * STEP)));
        }
    }

    __device__ __forceinline__ void put(unsigned char* slab, int pass, const bf16* from) const {
        cp_async_16(slab + place + pass * STEP * Slab::ROW, from ? from : operand.base(), from ? 16 : 0);
    }
};

template <class Tile> struct Multiply<Warpgroup, Tile, true> {
    template <class A, class B>
    static __device__ __forceinline__ void run(const A& a, const B& b, int m0, int n0, int first, int last) {
        using SA = SwizzledSlab<Tile::BM, A::K_INNER>;
        using SB = SwizzledSlab<Tile::BN, B::K_INNER>;
        constexpr int STAGE = SA::BYTES + SB::BYTES, AHEAD = Tile::STAGES - 2, TM = Tile::WM / 64;
        const SwizzledLoader<Tile::BM, A, Tile::THREADS> left(a, m0);
        const SwizzledLoader<Tile::BN, B, Tile::THREADS> right(b, n0);
        const int steps = last > first ? ceil_div(last - first, Warpgroup::BK) : 0;
        auto load = [&](int step) {
            if (step < steps) {
                unsigned char* stage = smem_raw + step % Tile::STAGES * STAGE;
                left.load(stage, first + step * Warpgroup::BK);
                right.load(stage + SA::BYTES, first + step * Warpgroup::BK);
            }
            cp_async_commit();
        };
        const int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
        float sums[TM][Tile::BN / 2] = {};
#pragma unroll
        for (int step = 0; step < AHEAD; step++) load(step);
        for (int step = 0; step < steps; step++) {
            cp_async_wait<AHEAD - 1>();
            proxy_fence();
            __syncthreads(); // this slab has landed for all, and the products of the slab before the last are done
            const unsigned char* stage = smem_raw + step % Tile::STAGES * STAGE;
            const SharedMatrix x(stage + SA::to(group * Tile::WM, 0), SA::PANEL), y(stage + SA::BYTES, SB::PANEL);
            warpgroup_arrive();
#pragma unroll
            for (int k = 0; k < Warpgroup::BK; k += Warpgroup::K) {
#pragma unroll
                for (int i = 0; i < TM; i++)
                    warpgroup_mma<Tile::BN, A::K_INNER, B::K_INNER>(sums[i], x.from(SA::to(64 * i, k)), y.from(SB::to(0, k)));
            }
            warpgroup_commit();
            load(step + AHEAD);
            warpgroup_wait<1>();
        }
        warpgroup_wait<0>();
        cp_async_wait<0>();
        __syncthreads();
        put(sums, reinterpret_cast<float*>(smem_raw) + group * Tile::WM * Tile::PITCH);
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
using Giant = WarpgroupTile<256, 128, 128, 4, 1>;
using Square = WarpgroupTile<128, 128, 64, 3, 2>;
using Column = WarpgroupTile<128, 64, 64, 4, 2>;
using Little = WarpgroupTile<64, 64, 64, 4, 3>;
using Strip = WarpgroupTile<128, 32, 64, 4, 2>;
using Least = WarpgroupTile<64, 32, 64, 4, 3>;
