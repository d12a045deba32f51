// What each network's authors did to an image before it entered (src/ops/preprocess/mod.rs has the table), and its gradient. Every mode
// is one formula with other numbers, in the order of operations of Keras: divisions by 1 and differences to 0 are exact.
#include "elements.cuh"

// For each colour of the result: what is subtracted and what the difference is divided by.
struct Colours {
    float mean[3], deviation[3];
};

// y[c] (+)= (x[c] / divisor - mean[c]) / deviation[c], the channels of x in reverse order if `reversed`. One thread for each pixel: three
// channels here and hundreds soon after, so that this is never what takes time.        reads s, writes s
template <class T, class U>
__device__ __forceinline__ void preprocess(
    const T* x, int x_pitch, int reversed, float divisor, Colours k, U* y, int y_pitch, int pixels, int add) {
    const int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= pixels) return;
    const T* from = row(x, x_pitch, r);
    for (int c = 0; c < 3; ++c) {
        const float colour = load(from + (reversed ? 2 - c : c));
        put(row(y, y_pitch, r) + c, (colour / divisor - k.mean[c]) / k.deviation[c], add);
    }
}
#define PREPROCESS(type, T, U)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) preprocess_##type(                                                   \
        const T* x, /* (pixels, 3) */                                                                                          \
        int x_pitch, int reversed, float divisor,                                                                              \
        float mean_0, float mean_1, float mean_2, float deviation_0, float deviation_1, float deviation_2,                     \
        U* y,       /* (pixels, 3) */                                                                                          \
        int y_pitch, int pixels, int add) {                                                                                    \
        const Colours k = {{mean_0, mean_1, mean_2}, {deviation_0, deviation_1, deviation_2}};                                 \
        preprocess(x, x_pitch, reversed, divisor, k, y, y_pitch, pixels, add);                                                 \
    }                                                                                                                          \
    KERNEL_EXPORT(preprocess_##type)
ALL_TYPES(PREPROCESS)
