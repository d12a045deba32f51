// Sums over the rows of a matrix, one or two per column, in a fixed order and without atomics.
//
// The rows are cut into parts of `rows_per_part`. A block takes the columns of its place in the sheet and the part blockIdx.y: its threads
// go down the rows side by side, fold_rows adds up what they hold, and the part's sums go to scratch memory. A second kernel adds up
// the parts in double precision, in order. The cut follows from the shape and the order within a part from types and alignment, so one
// matrix in one place always gives the same bits.
#pragma once
#include "rows.cuh"

// The rows of this block's part that a thread takes.
__device__ __forceinline__ RowRange rows_of_part(Sheet s, int rows_per_part) {
    const int first = blockIdx.y * rows_per_part;
    return {first + row_in_block(s), min(first + rows_per_part, s.rows), rows_of_block(s)};
}

// Adds up the K sums of W columns that the threads of a column hold; afterwards those in row 0 of the block have the totals. Halves of
// the block are folded onto each other, in the same order always. `held` is shared memory that nobody uses any more.
template <int K, int W> __device__ __forceinline__ void fold_rows(float (&sum)[K][W], Sheet s, float (*held)[THREADS]) {
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
template <int K, int W> __device__ __forceinline__ void fold_rows(float (&sum)[K][W], Sheet s) {
    __shared__ float held[K * W][THREADS];
    fold_rows(sum, s, held);
}

// Leaves a part's sums, held by row 0 of the block, in `partial`: (parts, K, cols).
template <int K, int W> __device__ __forceinline__ void put_part(const float (&sum)[K][W], float* partial, int c, Sheet s) {
    if (row_in_block(s) != 0 || c >= s.cols) return;
    for (int k = 0; k < K; ++k)
        for (int w = 0; w < W; ++w) partial[((size_t)blockIdx.y * K + k) * s.cols + c + w] = sum[k][w];
}

// The blocks of a second pass: 8 columns, and 32 threads for each of them, which take the parts t, t + 32, ..
constexpr int FINISHED = 8, HELPERS = THREADS / FINISHED;
__device__ __forceinline__ int finished_column() { return blockIdx.x * FINISHED + threadIdx.x % FINISHED; }
__device__ __forceinline__ int helper() { return threadIdx.x / FINISHED; }

// Adds up K sums of a column over the parts first <= p < last in double precision: add(sum, p, load(p)) puts a part in. The threads of a
// column take turns and fold their sums, in the same order always; helper 0 has the result.
template <int K, class Load, class Add> __device__ __forceinline__ void add_parts(double (&sum)[K], int first, int last, Load load, Add add) {
    constexpr int N = 8; // parts on their way at once
    for (int p = first + helper(); p < last; p += N * HELPERS) {
        decltype(load(p)) some[N];
#pragma unroll
        for (int i = 0; i < N; ++i) some[i] = load(min(p + i * HELPERS, last - 1));
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (p + i * HELPERS < last) add(sum, p + i * HELPERS, some[i]);
        }
    }
    __shared__ double held[K][THREADS];
    const int t = threadIdx.x;
    for (int k = 0; k < K; ++k) held[k][t] = sum[k];
    for (int half = HELPERS / 2; half; half /= 2) {
        __syncthreads();
        if (helper() < half)
            for (int k = 0; k < K; ++k) held[k][t] += held[k][t + half * FINISHED];
    }
    for (int k = 0; k < K; ++k) sum[k] = held[k][t];
}
