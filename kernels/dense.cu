// The fully connected layer: a matrix product with few columns, the classes. f32 under every precision.
#include "elements.cuh"

// Columns that a warp computes together, and terms that a lane has on their way at once.
constexpr int GROUP = 8, BATCH = 4;

// y[n, c] (+)= sum_k x[n, k] w[k, c]: a warp has one row and GROUP columns, its lanes share the sum over k.
extern "C" __global__ void __launch_bounds__(THREADS) dense_f32(
    const float* x, // (rows, depth), pitch
    int x_pitch,
    const float* w, // (depth, cols)
    float* y,       // (rows, cols), pitch
    int y_pitch, int rows, int depth, int cols, int add) {
    const int groups = (cols + GROUP - 1) / GROUP, warp = (blockIdx.x * THREADS + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (warp >= rows * groups) return; // whole warps
    const int n = warp / groups, c = warp % groups * GROUP, count = min(GROUP, cols - c);
    const float* from = row(x, x_pitch, n);
    float sum[GROUP] = {};
    for (int k0 = lane; k0 < depth; k0 += 32 * BATCH) {
        float in[BATCH], weight[BATCH][GROUP];
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
            const int k = k0 + 32 * b;
            in[b] = k < depth ? from[k] : 0.0f;
#pragma unroll
            for (int i = 0; i < GROUP; i++) weight[b][i] = k < depth && i < count ? w[(int64_t)k * cols + c + i] : 0.0f;
        }
#pragma unroll
        for (int b = 0; b < BATCH; b++) {
#pragma unroll
            for (int i = 0; i < GROUP; i++) sum[i] = fmaf(in[b], weight[b][i], sum[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
        const float total = warp_sum(sum[i]);
        if (lane == 0 && i < count) write<1>(row(y, y_pitch, n) + c + i, Floats<1>{{total}}, add);
    }
}
KERNEL_EXPORT(dense_f32)

// dx[n, k] (+)= sum_c dy[n, c] w[k, c]: a thread has one element.
extern "C" __global__ void __launch_bounds__(THREADS) dense_dx_f32(
    const float* dy, // (rows, cols), pitch
    int dy_pitch,
    const float* w, // (depth, cols)
    float* dx,      // (rows, depth), pitch
    int dx_pitch, int rows, int depth, int cols, int add) {
    const int64_t index = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (index >= (int64_t)rows * depth) return;
    const int n = (int)(index / depth), k = (int)(index % depth);
    float sum = 0.0f;
    for (int c = 0; c < cols; c++) sum = fmaf(row(dy, dy_pitch, n)[c], w[(int64_t)k * cols + c], sum);
    write<1>(row(dx, dx_pitch, n) + k, Floats<1>{{sum}}, add);
}
KERNEL_EXPORT(dense_dx_f32)

// dw[k, c] (+)= sum_n x[n, k] dy[n, c]: a thread has one element, rows in order.
extern "C" __global__ void __launch_bounds__(THREADS) dense_dw_f32(
    const float* x, // (rows, depth), pitch
    int x_pitch,
    const float* dy, // (rows, cols), pitch
    int dy_pitch,
    float* dw, // (depth, cols)
    int rows, int depth, int cols, int add) {
    const int64_t index = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (index >= (int64_t)depth * cols) return;
    const int k = (int)(index / cols), c = (int)(index % cols);
    float sum = 0.0f;
    for (int n = 0; n < rows; n++) sum = fmaf(row(x, x_pitch, n)[k], row(dy, dy_pitch, n)[c], sum);
    write<1>(dw + index, Floats<1>{{sum}}, add);
}
KERNEL_EXPORT(dense_dw_f32)
