// The tensor-core tile: asynchronous copies into shared memory, matrix loads from it, and products of small matrices.
//
// The only file with inline PTX. Each wrapper has a twin below that calls the emulator, which is what a C++ compiler sees; fragment
// layouts are those of the PTX ISA, section "Matrix multiply-accumulate operation using mma". Lane l of a warp is written as
// group g = l / 4 and thread t = l % 4.
#pragma once
#include "common.cuh"

#ifndef DEFROST_EMULATED

__device__ __forceinline__ unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

// Starts a copy of 16 bytes to shared memory; of `bytes` < 16 the rest is filled with zeros. Both addresses are multiples of 16.
__device__ __forceinline__ void cp_async_16(void* to, const void* from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}

// The same for 8 bytes, at multiples of 8. They pass through the L1 cache, where a neighbour finds them.
__device__ __forceinline__ void cp_async_8(void* to, const void* from, int bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}

// Closes a group of copies.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `LATER` groups of this thread are under way.
template <int LATER> __device__ __forceinline__ void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory"); }

// Loads four 8x8 matrices of 16-bit elements, the rows of matrix i at the addresses that lanes 8i..8i+7 give (multiples of 16).
// r[i] = elements (g, 2t) and (g, 2t + 1) of matrix i. A row of four floats passes as one of eight halves: r[i] = float (g, t).
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// The same, transposed: r[i] = elements (2t, g) and (2t + 1, g) of matrix i.
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// d[16,8] += a[16,16] b[16,8] in bf16 with f32 sums. a: (g, 2t..), (g+8, 2t..), (g, 2t+8..), (g+8, 2t+8..); b: (2t.., g), (2t+8.., g);
// d: (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1).
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d[16,8] += a[16,8] b[8,8] in tf32 with f32 sums. a: (g, t), (g+8, t), (g, t+4), (g+8, t+4); b: (t, g), (t+4, g); d as above.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The bits of a float rounded to tf32: 10 bits of fraction, to nearest, ties away from zero.
__device__ __forceinline__ unsigned round_tf32(unsigned float_bits) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(__uint_as_float(float_bits)));
    return bits;
}

#else // the emulator's twins

EMULATED_INLINE void cp_async_16(void* to, const void* from, int bytes, EMULATED_HERE) { emulated::copy_async(to, from, 16, bytes, at); }
EMULATED_INLINE void cp_async_8(void* to, const void* from, int bytes, EMULATED_HERE) { emulated::copy_async(to, from, 8, bytes, at); }
EMULATED_INLINE void cp_async_commit() { emulated::copy_commit(); }
template <int LATER> EMULATED_INLINE void cp_async_wait() { emulated::copy_wait(LATER); }

EMULATED_INLINE void ldmatrix_x4(unsigned (&r)[4], const void* row, EMULATED_HERE) {
    emulated::LoadMatrix load{r, row, 4, false};
    emulated::collective(emulated::Collective::LoadMatrix, ~0u, &load, at);
}
EMULATED_INLINE void ldmatrix_x4_trans(unsigned (&r)[4], const void* row, EMULATED_HERE) {
    emulated::LoadMatrix load{r, row, 4, true};
    emulated::collective(emulated::Collective::LoadMatrix, ~0u, &load, at);
}
EMULATED_INLINE void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMULATED_HERE) {
    emulated::Mma mma{emulated::Tile::Bf16_16x8x16, d, a, b, d};
    emulated::collective(emulated::Collective::Mma, ~0u, &mma, at);
}
EMULATED_INLINE void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], EMULATED_HERE) {
    emulated::Mma mma{emulated::Tile::Tf32_16x8x8, d, a, b, d};
    emulated::collective(emulated::Collective::Mma, ~0u, &mma, at);
}
EMULATED_INLINE unsigned round_tf32(unsigned float_bits) { return emulated::round_tf32(__uint_as_float(float_bits)); }

#endif
