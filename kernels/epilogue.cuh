// Sums down the columns of a block's results, taken while these are still in shared memory: batch norm's statistics, and the sums of
// its gradient.
//
// Rows are cut into parts of PART, whatever the tile; a thread adds up RUN rows of a part in order, then the runs of a part are added in
// order. A second kernel adds up the parts in double precision. So the bits follow from the results alone and not from the tile
// that a launch chose. src/device/cuda/epilogue.rs is the Rust side.
#pragma once
#include "warpgroup.cuh"

constexpr int PART = 64, RUN = 16;

// For each of the first `parts` parts and `cols` columns of the tile that product() has kept: add(row, col, value, pivot, sum) for its rows
// below `rows`, in order, where `value` is what the tile holds and `pivot` what it holds in the part's first row; then
// leave(part, col, pivot, sum). The tile is used up.
template <class Tile, class Add, class Leave>
__device__ __forceinline__ void fold_columns(int rows, int cols, int parts, Add add, Leave leave) {
    constexpr int BN = Tile::BN, PITCH = Tile::PITCH;
    static_assert(Tile::BM % PART == 0 && PART % RUN == 0 && RUN > 2, "whole parts of whole runs");
    float* results = reinterpret_cast<float*>(smem_raw); // [BM][PITCH]
    __syncthreads(); // every thread has put back its results
    for (int i = threadIdx.x; i < Tile::BM / RUN * BN; i += Tile::THREADS) {
        const int col = i % BN, first = i / BN * RUN;
        if (col >= cols) continue;
        float* run = results + first * PITCH + col;
        const float pivot = results[first / PART * PART * PITCH + col];
        float sum[2] = {};
#pragma unroll
        for (int r = 0; r < RUN; r++) {
            if (first + r < rows) add(first + r, col, run[r * PITCH], pivot, sum);
        }
        // In the second and third row of the run, which no other thread reads; the part's first row stays.
        run[PITCH] = sum[0], run[2 * PITCH] = sum[1];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < Tile::BM / PART * BN; i += Tile::THREADS) {
        const int col = i % BN, part = i / BN;
        if (col >= cols || part >= parts) continue;
        const float* first = results + part * PART * PITCH + col;
        float sum[2] = {};
#pragma unroll
        for (int run = 0; run < PART; run += RUN) sum[0] += first[(run + 1) * PITCH], sum[1] += first[(run + 2) * PITCH];
        leave(part, col, first[0], sum);
    }
}
