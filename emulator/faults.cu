// Kernels that are wrong on purpose, each in one way, and one that is right: what the emulator must find, and what it must let
// pass. All take x and y of 128 floats and run on two blocks of 64 threads, one element for each thread.
#include "tile.cuh"

#define FAULT(name, body)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(64) name(const float* x, float* y) {                                           \
        int t = threadIdx.x, i = blockIdx.x * 64 + t;                                                                           \
        body                                                                                                                    \
    }                                                                                                                           \
    KERNEL_EXPORT(name)

// Operands of a warpgroup's product, 64 x 64 and 64 x 32.
struct Operands {
    __align__(1024) unsigned short a[64 * 64];
    __align__(1024) unsigned short b[32 * 64];
    __device__ void fill(int t, unsigned short value) {
        for (int i = t; i < 64 * 64; i += 64) a[i] = value;
        for (int i = t; i < 32 * 64; i += 64) b[i] = value;
    }
    __device__ void multiply(float (&d)[16]) const {
        warpgroup_arrive();
        warpgroup_mma<32, true, true>(d, SharedMatrix(a, 0), SharedMatrix(b, 0), false);
        warpgroup_commit();
    }
};

// Shared memory handed over between threads, within a warp and to a product, copies that are waited for: all as it should be.
FAULT(fault_none, {
    __shared__ Operands operands;
    __shared__ PhaseBarrier landed;
    __shared__ __align__(16) float copied[64];
    if (t == 0) landed.init(16);
    operands.fill(t, 0x3f80);
    proxy_fence();
    __syncthreads();
    float d[16];
    operands.multiply(d);
    if (t < 16) {
        cp_async_16(&copied[4 * t], &x[blockIdx.x * 64 + 4 * t], 16);
        landed.arrive_with_copies();
    }
    warpgroup_wait<0>();
    landed.wait(0);
    __shared__ __align__(16) float s[64];
    __shared__ float turned[64];
    if (t < 16) emulated::copy_async(&s[4 * t], &x[blockIdx.x * 64 + 4 * t], 16, 16, {__FILE__, __LINE__});
    emulated::copy_commit();
    emulated::copy_wait(0);
    __syncthreads();
    turned[t] = s[63 - t];
    __syncwarp();
    y[i] = turned[t ^ 1] + warp_sum(1.0f) + d[0] + copied[63 - t];
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
FAULT(fault_copy_read_before_phase, {
    __shared__ PhaseBarrier landed;
    __shared__ __align__(16) float s[256];
    if (t == 0) landed.init(64);
    __syncthreads();
    cp_async_16(&s[4 * t], &x[blockIdx.x * 64 + 4 * (t % 16)], 16);
    landed.arrive_with_copies();
    y[i] = s[4 * t];
    landed.wait(0);
})
FAULT(fault_phase_never_ends, {
    __shared__ PhaseBarrier all;
    if (t == 0) all.init(65);
    __syncthreads();
    y[i] = x[i];
    all.arrive();
    all.wait(0);
})
FAULT(fault_product_without_fence, {
    __shared__ Operands operands;
    operands.fill(t, 0);
    __syncthreads();
    float d[16];
    operands.multiply(d);
    warpgroup_wait<0>();
    y[i] = d[0];
})
FAULT(fault_product_operand_overwritten, {
    __shared__ Operands operands;
    operands.fill(t, 0);
    proxy_fence();
    __syncthreads();
    float d[16];
    operands.multiply(d);
    operands.fill(t, 1);
    warpgroup_wait<0>();
    y[i] = d[0];
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
