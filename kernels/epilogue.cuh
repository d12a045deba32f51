// Sums down the columns of a block's results, taken while these are still in shared memory: batch norm's statistics, and the sums of
// its gradient.
//
// Rows are cut into parts of PART, whatever the tile; a thread adds up RUN rows of a part in order, then the runs of a part are added in
// order. A second kernel adds up the parts in double precision. So the bits follow from the results alone and not from the tile
// that a launch chose. src/device/cuda/epilogue.rs is the Rust side.
#pragma once
#include "warpgroup.cuh"

constexpr int PART = 64, RUN = 16;

// For each of the first `parts` parts and `cols` columns of the tile that product() has kept, W columns at a time: add(row, value, pivot,
// fetched, sum) for its rows below `rows`, in order, where `value` is what the tile holds, `pivot` what it holds in the part's first
// row and `fetched` what sums.fetch(row, col) brought; then leave(part, col, pivot, sum). The tile is used up.
template <class Tile, int W, class Sums>
__device__ __forceinline__ void fold_columns(int rows, int cols, int parts, const Sums& sums) {
    constexpr int ACROSS = Tile::BN / W, PITCH = Tile::PITCH, AT_ONCE = 8;
    static_assert(Tile::BM % PART == 0 && PART % RUN == 0 && RUN % AT_ONCE == 0, "whole parts of whole runs");
    float* results = reinterpret_cast<float*>(smem_raw); // [BM][PITCH]
    __syncthreads(); // every thread has put back its results
    for (int i = threadIdx.x; i < Tile::BM / RUN * ACROSS; i += Tile::THREADS) {
        const int col = i % ACROSS * W, first = i / ACROSS * RUN;
        if (col >= cols) continue;
        float* run = results + first * PITCH + col;
        const Floats<W> pivot = read<W>(results + first / PART * PART * PITCH + col);
        Floats<W> sum[2] = {};
#pragma unroll 1
        for (int r = 0; r < RUN && first + r < rows; r += AT_ONCE) {
            typename Sums::Fetched fetched[AT_ONCE];
#pragma unroll
            for (int q = 0; q < AT_ONCE; q++) {
                if (first + r + q < rows) fetched[q] = sums.fetch(first + r + q, col);
            }
#pragma unroll
            for (int q = 0; q < AT_ONCE; q++) {
                if (first + r + q < rows) sums.add(read<W>(run + (r + q) * PITCH), pivot, fetched[q], sum);
            }
        }
        // In the second and third row of the run, which no other thread reads; the part's first row stays.
        write<W>(run + PITCH, sum[0]), write<W>(run + 2 * PITCH, sum[1]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < Tile::BM / PART * Tile::BN; i += Tile::THREADS) {
        const int col = i % Tile::BN, part = i / Tile::BN;
        if (col >= cols || part >= parts) continue;
        const float* first = results + part * PART * PITCH + col;
        float sum[2] = {};
#pragma unroll
        for (int run = 0; run < PART; run += RUN) sum[0] += first[(run + 1) * PITCH], sum[1] += first[(run + 2) * PITCH];
        sums.leave(part, col, first[0], sum);
    }
}
