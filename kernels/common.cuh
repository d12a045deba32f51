// What every kernel starts from: types, 16-byte packs, sums over warps and blocks.
//
// A matrix is `T* x, int pitch`: row r starts at x + (long long)r * pitch. Storage is float or bf16, arithmetic is float.
// kernels/*.cu compile twice: by nvcc for a GPU, and by the host's compiler with emulator/cuda_emulated.h for the tests.
#pragma once

#ifndef DEFROST_EMULATED
#include <cstdint>
#include <cuda_bf16.h>
// The emulator exports a kernel's signature; a fat binary has its own table.
#define KERNEL_EXPORT(k)
#endif

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float load(const float* p) { return *p; }
__device__ __forceinline__ float load(const bf16* p) { return __bfloat162float(*p); }
__device__ __forceinline__ void store(float* p, float v) { *p = v; }
__device__ __forceinline__ void store(bf16* p, float v) { *p = __float2bfloat16(v); }

// v as it is once it is stored.
template <class T> __device__ __forceinline__ float stored(float v) {
    T t;
    store(&t, v);
    return load(&t);
}

// Writes a result, or adds it to what lies there.
template <class T> __device__ __forceinline__ void put(T* p, float v, int add) { store(p, add ? load(p) + v : v); }

// 16 bytes of a row: 4 floats or 8 bf16, read and written by one instruction. The address must be aligned to 16 bytes.
template <class T> struct Pack {
    static constexpr int N = 16 / sizeof(T);
    float v[N];
};
__device__ __forceinline__ Pack<float> load_pack(const float* p) {
    float4 q = *reinterpret_cast<const float4*>(p);
    return {{q.x, q.y, q.z, q.w}};
}
__device__ __forceinline__ void store_pack(float* p, const Pack<float>& a) {
    *reinterpret_cast<float4*>(p) = make_float4(a.v[0], a.v[1], a.v[2], a.v[3]);
}
__device__ __forceinline__ float bf16_low(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float bf16_high(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ __forceinline__ unsigned bf16_pair(float low, float high) {
    return __bfloat16_as_ushort(__float2bfloat16(low)) | (unsigned)__bfloat16_as_ushort(__float2bfloat16(high)) << 16;
}
__device__ __forceinline__ Pack<bf16> load_pack(const bf16* p) {
    uint4 q = *reinterpret_cast<const uint4*>(p);
    return {{bf16_low(q.x), bf16_high(q.x), bf16_low(q.y), bf16_high(q.y), bf16_low(q.z), bf16_high(q.z), bf16_low(q.w), bf16_high(q.w)}};
}
__device__ __forceinline__ void store_pack(bf16* p, const Pack<bf16>& a) {
    *reinterpret_cast<uint4*>(p) = make_uint4(bf16_pair(a.v[0], a.v[1]), bf16_pair(a.v[2], a.v[3]), bf16_pair(a.v[4], a.v[5]), bf16_pair(a.v[6], a.v[7]));
}

// The sum over the 32 lanes of a warp, in every lane.
__device__ __forceinline__ float warp_sum(float v) {
    for (int bits = 16; bits; bits /= 2) v += __shfl_xor_sync(0xffffffffu, v, bits);
    return v;
}
__device__ __forceinline__ float warp_max(float v) {
    for (int bits = 16; bits; bits /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, bits));
    return v;
}

// The sum over a block of THREADS threads (a multiple of 32), in every thread. All threads call it.
template <int THREADS> __device__ __forceinline__ float block_sum(float v) {
    __shared__ float parts[THREADS / 32];
    v = warp_sum(v);
    __syncthreads(); // the last call's parts have been read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    float sum = 0.0f;
    for (int i = 0; i < THREADS / 32; i++) sum += parts[i];
    return sum;
}
