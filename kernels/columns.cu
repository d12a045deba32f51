// Sums of a matrix over its rows, one per column: bias gradients, and the second pass of every such sum.
#include "columns.cuh"

// The sums of each part of x over its rows, to be added up by finish_sums.        reads s
template <int W, class T>
__device__ __forceinline__ void column_sum(const T* x, int x_pitch, float* partial, Sheet s, int rows_per_part) {
    const int c = first_column<W>(s);
    float sum[1][W] = {};
    if (c < s.cols) {
        each_row<W>(rows_of_part(s, rows_per_part), Columns<const T>{x + c, x_pitch}, {}, [&](const Floats<W>& p, const Floats<W>&) {
            for (int w = 0; w < W; ++w) sum[0][w] += p.v[w];
        });
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

// The sum over the parts first <= p < last, the p-th at from[p * stride], for helper 0 of a column.
__device__ __forceinline__ double sum_of_parts(const float* from, size_t stride, int first, int last) {
    double sum[1] = {};
    add_parts(sum, first, last, [&](int p) { return from[p * stride]; }, [](double(&to)[1], int, float part) { to[0] += part; });
    return sum[0];
}

// y0 (+)= the first sums, y1 (+)= the second, over all parts: sum blockIdx.y is one of `sums`.
extern "C" __global__ void __launch_bounds__(THREADS) finish_sums(
    const float* partial, // (parts, sums, cols)
    int parts, int sums, int cols,
    float* y0, // (cols)
    int add0,
    float* y1, // (cols)
    int add1) {
    const int c = finished_column(), k = blockIdx.y;
    const double sum = sum_of_parts(partial + (size_t)k * cols + min(c, cols - 1), (size_t)sums * cols, 0, parts);
    if (helper() == 0 && c < cols) put((k == 0 ? y0 : y1) + c, (float)sum, k == 0 ? add0 : add1);
}
KERNEL_EXPORT(finish_sums)

// group[g] = the sum of `parts_per_group` parts from part g * parts_per_group on, with g = blockIdx.y: fewer parts for finish_sums.
extern "C" __global__ void __launch_bounds__(THREADS) gather_sums(
    const float* partial, // (parts, cols)
    int parts, int cols, int parts_per_group,
    float* group) { // (groups, cols)
    const int c = finished_column(), first = blockIdx.y * parts_per_group;
    const double sum = sum_of_parts(partial + min(c, cols - 1), cols, first, min(first + parts_per_group, parts));
    if (helper() == 0 && c < cols) group[(size_t)blockIdx.y * cols + c] = (float)sum;
}
KERNEL_EXPORT(gather_sums)
