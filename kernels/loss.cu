// Softmax and the loss, always in float. A warp takes a sample (a row of k classes), its lanes the classes lane, lane + 32, ..; a batch has
// a few thousand logits at most, so these take the time of a launch.
#include "elements.cuh"

constexpr int WARPS = THREADS / 32;
__device__ __forceinline__ int lane() { return threadIdx.x % 32; }
__device__ __forceinline__ int warp() { return threadIdx.x / 32; }

// The largest logit of a row, and the sum of exp(logit - largest).
struct Normaliser {
    float largest, sum;
};
__device__ __forceinline__ Normaliser normaliser(const float* x, int classes) {
    float largest = -INFINITY, sum = 0.0f;
    for (int k = lane(); k < classes; k += 32) largest = fmaxf(largest, x[k]);
    largest = warp_max(largest);
    for (int k = lane(); k < classes; k += 32) sum += expf(x[k] - largest);
    return {largest, warp_sum(sum)};
}

// y (+)= exp(x) / sum exp(x) along a row. A block takes eight samples.
extern "C" __global__ void __launch_bounds__(THREADS) softmax(
    const float* x, // (samples, classes)
    int x_pitch,
    float* y, // (samples, classes)
    int y_pitch, int samples, int classes, int add) {
    const int n = blockIdx.x * WARPS + warp();
    if (n >= samples) return;
    x = row(x, x_pitch, n), y = row(y, y_pitch, n);
    const Normaliser z = normaliser(x, classes);
    for (int k = lane(); k < classes; k += 32) put(y + k, expf(x[k] - z.largest) / z.sum, add);
}
KERNEL_EXPORT(softmax)

// dx (+)= y (dy - sum dy y) along a row, from y = softmax(x). A block takes eight samples.
extern "C" __global__ void __launch_bounds__(THREADS) softmax_dx(
    const float* dy, // (samples, classes)
    int dy_pitch,
    const float* y, // (samples, classes)
    int y_pitch,
    float* dx, // (samples, classes)
    int dx_pitch, int samples, int classes, int add) {
    const int n = blockIdx.x * WARPS + warp();
    if (n >= samples) return;
    dy = row(dy, dy_pitch, n), y = row(y, y_pitch, n), dx = row(dx, dx_pitch, n);
    float inner = 0.0f;
    for (int k = lane(); k < classes; k += 32) inner = fmaf(dy[k], y[k], inner);
    inner = warp_sum(inner);
    for (int k = lane(); k < classes; k += 32) put(dx + k, y[k] * (dy[k] - inner), add);
}
KERNEL_EXPORT(softmax_dx)

// A target after label smoothing: t (1 - s) + s / k.
__device__ __forceinline__ float smooth(float t, float smoothing, int classes) {
    return fmaf(t, 1.0f - smoothing, smoothing / classes);
}

// p (+)= softmax(x), losses (+)= -w sum t' log p, loss (+)= sum of losses / samples. One block for the whole batch: warp y takes
// the samples y, y + 8, .. and adds up their losses in order, then one thread adds up the eight sums.
extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy(
    const float* x, // logits (samples, classes)
    int x_pitch,
    const float* t, // targets (samples, classes)
    int t_pitch,
    const float* weights, // (samples)
    float smoothing,
    float* loss, // (1)
    int add_loss,
    float* p, // probabilities (samples, classes)
    int p_pitch, int add_p,
    float* losses, // weighted (samples)
    int add_losses, int samples, int classes) {
    __shared__ double sums[WARPS];
    double sum = 0.0;
    for (int n = warp(); n < samples; n += WARPS) {
        const float *logits = row(x, x_pitch, n), *targets = row(t, t_pitch, n);
        float* out = row(p, p_pitch, n);
        const Normaliser z = normaliser(logits, classes);
        const float log_sum = logf(z.sum);
        float l = 0.0f;
        for (int k = lane(); k < classes; k += 32) {
            const float log_p = logits[k] - z.largest - log_sum;
            l = fmaf(-smooth(targets[k], smoothing, classes), log_p, l);
            put(out + k, expf(log_p), add_p);
        }
        l = warp_sum(l) * weights[n];
        if (lane() == 0) put(losses + n, l, add_losses);
        sum += l;
    }
    if (lane() == 0) sums[warp()] = sum;
    __syncthreads();
    if (lane() == 0 && warp() == 0) {
        for (int y = 1; y < WARPS; ++y) sum += sums[y];
        put(loss, (float)(sum / samples), add_loss);
    }
}
KERNEL_EXPORT(cross_entropy)

// dx (+)= dloss w / samples (p sum t' - t'). A block takes eight samples.
extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy_dx(
    const float* dloss, // (1)
    const float* p,      // probabilities (samples, classes)
    int p_pitch,
    const float* t, // targets (samples, classes)
    int t_pitch,
    const float* weights, // (samples)
    float smoothing,
    float* dx, // (samples, classes)
    int dx_pitch, int samples, int classes, int add) {
    const int n = blockIdx.x * WARPS + warp();
    if (n >= samples) return;
    p = row(p, p_pitch, n), t = row(t, t_pitch, n), dx = row(dx, dx_pitch, n);
    float total = 0.0f;
    for (int k = lane(); k < classes; k += 32) total += smooth(t[k], smoothing, classes);
    total = warp_sum(total);
    const float factor = *dloss * weights[n] / samples;
    for (int k = lane(); k < classes; k += 32)
        put(dx + k, factor * fmaf(p[k], total, -smooth(t[k], smoothing, classes)), add);
}
KERNEL_EXPORT(cross_entropy_dx)
