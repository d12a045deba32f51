// Rows of a matrix that stays on the device, chosen by their numbers: the images of a batch out of those of a data set.
#include "common.cuh"

constexpr int GATHER_THREADS = 256, PER_THREAD = 4, PER_BLOCK = GATHER_THREADS * PER_THREAD;

// y[i, :] = x[chosen[i], :] for i = blockIdx.y. Rows have any length, the 3 * 299 * 299 numbers of an image as well, so that they are
// read one by one: neighbours by neighbouring threads.        reads s, writes f32
template <class T> __device__ __forceinline__ void gather(const T* x, const unsigned* chosen, float* y, int len) {
    const T* from = x + (int64_t)chosen[blockIdx.y] * len;
    float* to = y + (int64_t)blockIdx.y * len;
    const int start = blockIdx.x * PER_BLOCK + threadIdx.x;
#pragma unroll
    for (int k = 0; k < PER_THREAD; k++) {
        const int i = start + k * GATHER_THREADS;
        if (i < len) to[i] = from[i];
    }
}
#define GATHER(type, T)                                                                                                         \
    extern "C" __global__ void __launch_bounds__(GATHER_THREADS) gather_##type(                                                 \
        const T* x,             /* (count, len) */                                                                              \
        const unsigned* chosen, /* (rows) */                                                                                    \
        float* y,               /* (rows, len) */                                                                               \
        int len) {                                                                                                              \
        gather(x, chosen, y, len);                                                                                              \
    }                                                                                                                           \
    KERNEL_EXPORT(gather_##type)
GATHER(f32, float)
GATHER(u8, unsigned char)
