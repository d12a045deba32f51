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

// ---- Hopper: products that a warpgroup, four warps, computes from shared memory while it goes on.

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER(...) asm volatile(__VA_ARGS__)
#else
#define HOPPER(...) __trap() // never launched on another chip
#endif

// Lets the tensor cores of a warpgroup see what this thread has written to shared memory, or has learnt of by a barrier.
__device__ __forceinline__ void proxy_fence() { HOPPER("fence.proxy.async.shared::cta;" ::: "memory"); }

// A barrier in shared memory. Its phases end one after the other, each when so many threads have arrived.
struct PhaseBarrier {
    uint64_t state;
    __device__ __forceinline__ void init(int arrivals) { HOPPER("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(this)), "r"(arrivals) : "memory"); }
    __device__ __forceinline__ void arrive() { HOPPER("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(this)) : "memory"); }
    // Arrives when all copies that this thread has begun have landed.
    __device__ __forceinline__ void arrive_with_copies() {
        HOPPER("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(this)) : "memory");
    }
    // Waits for the end of phase 0, 2, .. (parity 0) or 1, 3, .. (parity 1): the one that is under way, or else the one before it.
    __device__ __forceinline__ void wait(unsigned parity) {
        HOPPER("{\n.reg .pred done;\nAGAIN: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra DONE;\nbra AGAIN;\nDONE:\n}"
               ::"r"(shared_address(this)), "r"(parity) : "memory");
    }
};

// A matrix in shared memory, 1024-byte aligned, in rows of 128 bytes whose 16-byte chunks are swizzled: chunk c of row r lies at c ^ r % 8.
// Either a row holds 64 steps of k of one m (or n), or it holds 64 neighbours along m of one k, with `panel` bytes to the next 64.
struct SharedMatrix {
    uint64_t descriptor; // PTX ISA, "Matrix descriptor": address, distance of panels, distance of eight rows, swizzle of 128 bytes
    __device__ __forceinline__ SharedMatrix(const void* start, int panel)
        : descriptor((uint64_t)(shared_address(start) >> 4) | (uint64_t)(panel >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | 1ull << 62) {}
    // The matrix that starts so many bytes on.
    __device__ __forceinline__ SharedMatrix from(int bytes) const {
        SharedMatrix m = *this;
        m.descriptor += bytes >> 4;
        return m;
    }
};

// Lets the products that follow use the sums as they are in registers.
__device__ __forceinline__ void warpgroup_arrive() { HOPPER("wgmma.fence.sync.aligned;" ::: "memory"); }
// Closes a group of products.
__device__ __forceinline__ void warpgroup_commit() { HOPPER("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `LATER` groups of products are under way.
template <int LATER> __device__ __forceinline__ void warpgroup_wait() {
    HOPPER("wgmma.wait_group.sync.aligned %0;" ::"n"(LATER) : "memory");
}

#define SUMS_8(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define SUMS_16(d, i) SUMS_8(d, i), SUMS_8(d, i + 8)
#define SUMS_32(d, i) SUMS_16(d, i), SUMS_16(d, i + 16)
#define SUMS_64(d, i) SUMS_32(d, i), SUMS_32(d, i + 32)
#define NAMES_16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define NAMES_32 NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_64 NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

// d[64,N] = a[64,16] b[16,N] in bf16 with f32 sums, added to d if `keep`. Warp w of the warpgroup has rows 16 w..16 w + 15, and for each
// eight columns j the numbers d[4j..] as mma_bf16 has them. A and B say whether k is the inner index of a and b in memory.
template <int N, bool A, bool B> __device__ __forceinline__ void warpgroup_mma(float (&d)[N / 2], SharedMatrix a, SharedMatrix b, bool keep) {
#define WARPGROUP_MMA(n, names, sums, a_desc, b_desc, a_turned, b_turned, kept)                                                 \
    HOPPER("{\n.reg .pred keep;\nsetp.ne.b32 keep, " kept ", 0;\n"                                                              \
           "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" names "}, " a_desc ", " b_desc ", keep, 1, 1, "         \
           a_turned ", " b_turned ";\n}" : sums : "l"(a.descriptor), "l"(b.descriptor), "n"(!A), "n"(!B), "r"((int)keep))
    static_assert(N == 32 || N == 64 || N == 128, "columns that there is an instance for");
    if constexpr (N == 32) WARPGROUP_MMA(32, NAMES_16, SUMS_16(d, 0), "%16", "%17", "%18", "%19", "%20");
    if constexpr (N == 64) WARPGROUP_MMA(64, NAMES_32, SUMS_32(d, 0), "%32", "%33", "%34", "%35", "%36");
    if constexpr (N == 128) WARPGROUP_MMA(128, NAMES_64, SUMS_64(d, 0), "%64", "%65", "%66", "%67", "%68");
#undef WARPGROUP_MMA
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

EMULATED_INLINE void proxy_fence() { emulated::proxy_fence(); }
struct PhaseBarrier {
    uint64_t state;
    EMULATED_INLINE void init(int arrivals, EMULATED_HERE) { emulated::phase_init(this, arrivals, at); }
    EMULATED_INLINE void arrive(EMULATED_HERE) { emulated::phase_arrive(this, at); }
    EMULATED_INLINE void arrive_with_copies(EMULATED_HERE) { emulated::phase_arrive_with_copies(this, at); }
    EMULATED_INLINE void wait(unsigned parity, EMULATED_HERE) { emulated::phase_wait(this, parity, at); }
};
struct SharedMatrix {
    const char* start;
    int panel;
    EMULATED_INLINE SharedMatrix(const void* start, int panel) : start(static_cast<const char*>(start)), panel(panel) {}
    EMULATED_INLINE SharedMatrix from(int bytes) const { return {start + bytes, panel}; }
};
EMULATED_INLINE void warpgroup_arrive() {}
EMULATED_INLINE void warpgroup_commit() { emulated::product_commit(); }
template <int LATER> EMULATED_INLINE void warpgroup_wait(EMULATED_HERE) {
    int later = LATER;
    emulated::collective(emulated::Collective::ProductWait, ~0u, &later, at);
}
template <int N, bool A, bool B>
EMULATED_INLINE void warpgroup_mma(float (&d)[N / 2], SharedMatrix a, SharedMatrix b, bool keep, EMULATED_HERE) {
    emulated::Product product{d, {a.start, a.panel, A}, {b.start, b.panel, B}, N, keep};
    emulated::collective(emulated::Collective::Product, ~0u, &product, at);
}

#endif
