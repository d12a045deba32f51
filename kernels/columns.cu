// Sums of a matrix over its rows, one per column: bias gradients, and the second pass of every such sum.
#include "columns.cuh"

// The sums of each part of x over its rows, to be added up by finish_sums.        reads s
template <int W, class T>
__device__ __forceinline__ void column_sum(const T* x, int x_pitch, float* partial, Sheet s, int rows_per_part) {
    const int c = first_column<W>(s);
    const Part part = part_rows(s, rows_per_part);
    float sum[1][W] = {};
    if (c < s.cols) {
#pragma unroll 4
        for (int r = part.first + row_in_block(s); r < part.last; r += rows_of_block(s)) {
            const Floats<W> p = read<W>(row(x, x_pitch, r) + c);
            for (int w = 0; w < W; ++w) sum[0][w] += p.v[w];
        }
    }
    fold_rows(sum, s);
    put_part(sum, partial, c, s);
}
#define COLUMN_SUM(type, T, U)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) column_sum_##type(                                                   \
        const T* x,     /* (rows, cols) */                                                                                     \
        int x_pitch,                                                                                                           \
        float* partial, /* (parts, 1, cols) */                                                                                 \
        Sheet s, int rows_per_part) {                                                                                          \
        if (s.width > 1) column_sum<WIDE<T>>(x, x_pitch, partial, s, rows_per_part);                                           \
        else column_sum<1>(x, x_pitch, partial, s, rows_per_part);                                                             \
    }                                                                                                                          \
    KERNEL_EXPORT(column_sum_##type)
SAME_TYPES(COLUMN_SUM)

// The sum over the parts first <= p < last, the p-th at from[p * stride], in double precision: eight threads of a column add up the parts, the
// first of them adds up the eight and has the result.
__device__ __forceinline__ double add_parts(const float* from, size_t stride, int first, int last, bool real) {
    __shared__ double held[HELPERS][FINISHED];
    const int lane = threadIdx.x % FINISHED, helper = threadIdx.x / FINISHED;
    double sum = 0.0;
    if (real) {
#pragma unroll 4
        for (int p = first + helper; p < last; p += HELPERS) sum += from[p * stride];
    }
    held[helper][lane] = sum;
    __syncthreads();
    if (helper == 0)
        for (int h = 1; h < HELPERS; ++h) sum += held[h][lane];
    return sum;
}

// y0 (+)= the first sums, y1 (+)= the second, over all parts: sum blockIdx.y is one of `sums`.
extern "C" __global__ void __launch_bounds__(THREADS) finish_sums(
    const float* partial, // (parts, sums, cols)
    int parts, int sums, int cols,
    float* y0, // (cols)
    int add0,
    float* y1, // (cols)
    int add1) {
    const int c = blockIdx.x * FINISHED + threadIdx.x % FINISHED, k = blockIdx.y;
    const double sum = add_parts(partial + (size_t)k * cols + c, (size_t)sums * cols, 0, parts, c < cols);
    if (threadIdx.x < FINISHED && c < cols) put((k == 0 ? y0 : y1) + c, (float)sum, k == 0 ? add0 : add1);
}
KERNEL_EXPORT(finish_sums)

// group[g] = the sum of `parts_per_group` parts from part g * parts_per_group on, with g = blockIdx.y: fewer parts for finish_sums.
extern "C" __global__ void __launch_bounds__(THREADS) gather_sums(
    const float* partial, // (parts, cols)
    int parts, int cols, int parts_per_group,
    float* group) { // (groups, cols)
    const int c = blockIdx.x * FINISHED + threadIdx.x % FINISHED, first = blockIdx.y * parts_per_group;
    const double sum = add_parts(partial + c, cols, first, min(first + parts_per_group, parts), c < cols);
    if (threadIdx.x < FINISHED && c < cols) group[(size_t)blockIdx.y * cols + c] = (float)sum;
}
KERNEL_EXPORT(gather_sums)
