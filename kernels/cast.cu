// Copies of filters in bf16, all in one launch.
#include "elements.cuh"

constexpr int MOST_WEIGHTS = 64;
constexpr int CAST_THREADS = 256, PER_THREAD = 8, PER_BLOCK = CAST_THREADS * PER_THREAD;

// Arrays without gaps. Array i takes the blocks from first[i] on.
struct Weights {
    const float* from[MOST_WEIGHTS];
    bf16* to[MOST_WEIGHTS];
    int elements[MOST_WEIGHTS];
    int first[MOST_WEIGHTS];
    int count, add;
};
static_assert(sizeof(Weights) == 1544, "as declared in src/ops/cast/cuda.rs");

// to[i] (+)= from[i], rounded
extern "C" __global__ void __launch_bounds__(CAST_THREADS) cast_weights(Weights w) {
    int i = 0;
    while (i + 1 < w.count && (int)blockIdx.x >= w.first[i + 1]) i++;
    const float* from = w.from[i];
    bf16* to = w.to[i];
    const int start = ((int)blockIdx.x - w.first[i]) * PER_BLOCK, end = min(start + PER_BLOCK, w.elements[i]);
    const bool packs = end - start == PER_BLOCK && reinterpret_cast<uintptr_t>(from) % 16 == 0 && reinterpret_cast<uintptr_t>(to) % 16 == 0;
    if (packs) {
        const int k = start + threadIdx.x * PER_THREAD;
        write<PER_THREAD>(to + k, read<PER_THREAD>(from + k), w.add);
    } else {
        for (int k = start + threadIdx.x; k < end; k += CAST_THREADS) put(to + k, from[k], w.add);
    }
}
KERNEL_EXPORT(cast_weights)
