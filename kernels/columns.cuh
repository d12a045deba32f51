// Sums over the rows of a matrix, one or two per column, in a fixed order and without atomics.
//
// The rows are cut into parts of `rows_per_part`. A block takes the columns of its place in the sheet and the part blockIdx.y: its threads
// go down the rows side by side, fold_rows adds up what they hold, and the part's sums go to scratch memory. A second kernel adds up
// the parts in double precision, in order. The cut follows from the shape and the order within a part from types and alignment, so one
// matrix in one place always gives the same bits.
#pragma once
#include "elements.cuh"

// The rows of this block's part.
struct Part {
    int first, last;
};
__device__ __forceinline__ Part part_rows(Sheet s, int rows_per_part) {
    const int first = blockIdx.y * rows_per_part;
    return {first, min(first + rows_per_part, s.rows)};
}

// Adds up the K sums of W columns that the threads of a column hold; afterwards those in row 0 of the block have the totals. Halves of
// the block are folded onto each other, in the same order always.
template <int K, int W> __device__ __forceinline__ void fold_rows(float (&sum)[K][W], Sheet s) {
    __shared__ float held[K * W][THREADS];
    const int t = threadIdx.x;
    for (int k = 0; k < K; ++k)
        for (int w = 0; w < W; ++w) held[k * W + w][t] = sum[k][w];
    __syncthreads();
    for (int half = THREADS / 2; half >= 1 << s.across; half /= 2) {
        if (t < half)
            for (int i = 0; i < K * W; ++i) held[i][t] += held[i][t + half];
        __syncthreads();
    }
    for (int k = 0; k < K; ++k)
        for (int w = 0; w < W; ++w) sum[k][w] = held[k * W + w][t];
}

// Leaves a part's sums, held by row 0 of the block, in `partial`: (parts, K, cols).
template <int K, int W> __device__ __forceinline__ void put_part(const float (&sum)[K][W], float* partial, int c, Sheet s) {
    if (row_in_block(s) != 0 || c >= s.cols) return;
    for (int k = 0; k < K; ++k)
        for (int w = 0; w < W; ++w) partial[((size_t)blockIdx.y * K + k) * s.cols + c + w] = sum[k][w];
}

// The blocks of a second pass: 32 columns, and eight threads for each of them, which take the parts t, t + 8, ..
constexpr int FINISHED = 32, HELPERS = THREADS / FINISHED;

// Mean and squared deviations of n elements.
struct Moments {
    double n, mean, m2;
};

// The moments of two groups together (Chan, Golub and LeVeque, 1979).
__device__ __forceinline__ Moments merge(Moments a, Moments b) {
    const double n = a.n + b.n;
    if (n == 0.0) return a;
    const double delta = b.mean - a.mean;
    return {n, a.mean + delta * (b.n / n), a.m2 + b.m2 + delta * delta * (a.n * (b.n / n))};
}
