// Kernels that are wrong on purpose, each in one way, and one that is right: what the emulator must find, and what it must let
// pass. All take x and y of 128 floats and run on two blocks of 64 threads, one element for each thread.
#include "common.cuh"

#define FAULT(name, body)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(64) name(const float* x, float* y) {                                           \
        int t = threadIdx.x, i = blockIdx.x * 64 + t;                                                                           \
        body                                                                                                                    \
    }                                                                                                                           \
    KERNEL_EXPORT(name)

// Shared memory handed over between threads and within a warp, a copy that is waited for: all as it should be.
FAULT(fault_none, {
    __shared__ __align__(16) float s[64];
    __shared__ float turned[64];
    if (t < 16) emulated::copy_async(&s[4 * t], &x[blockIdx.x * 64 + 4 * t], 16, 16, {__FILE__, __LINE__});
    emulated::copy_commit();
    emulated::copy_wait(0);
    __syncthreads();
    turned[t] = s[63 - t];
    __syncwarp();
    y[i] = turned[t ^ 1] + warp_sum(1.0f);
})
FAULT(fault_read_past_end, { y[i] = x[i + 1]; })
FAULT(fault_read_before_start, { y[i] = x[i - 1]; })
FAULT(fault_write_past_end, { y[i + 1] = x[i]; })
FAULT(fault_write_before_start, { y[i - 1] = x[i]; })
FAULT(fault_write_to_input, { const_cast<float*>(x)[i] = 0.0f; y[i] = 0.0f; })
FAULT(fault_misaligned, { y[i] = reinterpret_cast<const float4*>(x + 1)[t / 8].x; })
FAULT(fault_shared_unwritten, {
    __shared__ float s[65];
    s[t] = x[i];
    __syncthreads();
    y[i] = s[t + 1];
})
FAULT(fault_barrier_not_reached, {
    if (t < 48) {
        y[i] = x[i];
        __syncthreads();
    }
})
// Two barriers, on two lines.
__device__ void one_barrier() { __syncthreads(); }
__device__ void other_barrier() { __syncthreads(); }
FAULT(fault_barrier_in_two_places, {
    y[i] = x[i];
    if (t < 32) one_barrier();
    else other_barrier();
})
FAULT(fault_shared_race, {
    __shared__ float s[64];
    s[t] = 0.0f;
    __syncthreads();
    s[t] = x[i];
    y[i] = s[63 - t];
})
FAULT(fault_shared_race_in_warp, {
    __shared__ float s[64];
    s[t] = 0.0f;
    __syncthreads();
    s[t] = x[i];
    y[i] = s[t ^ 1];
})
FAULT(fault_shared_overwritten_while_read, {
    __shared__ float s[64];
    s[t] = x[i];
    __syncthreads();
    y[i] = s[63 - t];
    s[t] = 0.0f;
})
FAULT(fault_copy_read_before_wait, {
    __shared__ __align__(16) float s[256];
    emulated::copy_async(&s[4 * t], &x[blockIdx.x * 64 + 4 * (t % 16)], 16, 16, {__FILE__, __LINE__});
    emulated::copy_commit();
    y[i] = s[4 * t];
    emulated::copy_wait(0);
})
FAULT(fault_copy_read_before_barrier, {
    __shared__ __align__(16) float s[256];
    for (int k = 0; k < 4; k++) s[4 * t + k] = 0.0f;
    __syncthreads();
    emulated::copy_async(&s[4 * t], &x[blockIdx.x * 64 + 4 * (t % 16)], 16, 16, {__FILE__, __LINE__});
    emulated::copy_commit();
    emulated::copy_wait(0);
    y[i] = s[4 * (63 - t)];
})
FAULT(fault_blocks_race, {
    y[t] = x[i];
    y[64 + t] = x[i];
})
FAULT(fault_result_unwritten, {
    if (i != 100) y[i] = x[i];
})
FAULT(fault_result_read_before_written, { y[i] += x[i]; })
FAULT(fault_too_much_shared, {
    extern __shared__ __align__(16) unsigned char smem_raw[];
    smem_raw[t] = 1;
    y[i] = smem_raw[t];
})
