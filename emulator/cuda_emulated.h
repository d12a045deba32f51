// CUDA for a host C++ compiler: what a kernel in kernels/*.cu may use, so that the same source runs on a processor.
//
// Included before a .cu (-include) when it is compiled for the emulated driver; nvcc never sees it. Each thread of a block is
// a fiber, a block runs on one thread of the host, shared memory is thread-local memory. The functions declared in namespace
// `emulated` are the runtime (fiber.cpp, collective.cpp, shadow.cpp, launch.cpp); instructions that only hardware has (mma,
// ldmatrix, cp.async) are twins that kernels/tile.cuh calls in the place of inline PTX.
#pragma once
#define DEFROST_EMULATED 1

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#define __global__ __attribute__((noinline))
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __constant__
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
// At block scope and in `extern __shared__ T x[]` alike: the thread-local segment of the shared object is shared memory.
#define __shared__ thread_local

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct __align__(8) float2 { float x, y; };
struct __align__(16) float4 { float x, y, z, w; };
struct __align__(8) int2 { int x, y; };
struct __align__(16) int4 { int x, y, z, w; };
struct __align__(8) uint2 { unsigned x, y; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
struct __align__(4) uchar4 { unsigned char x, y, z, w; };

// Functions of this header belong to the machine, not to the kernel: their own accesses are not checked.
#define EMULATED_INLINE __attribute__((no_sanitize("thread"))) inline

namespace emulated {

// Where in a kernel's source something was asked for; as a default argument it is the caller's line.
struct Where {
    const char* file;
    int line;
};
#define EMULATED_HERE emulated::Where at = {__builtin_FILE(), __builtin_LINE()}

// Constant within a fiber, so a compiler may ask once. They return values, not references: reading them is no memory access.
uint3 thread_index() __attribute__((const));
uint3 block_index() __attribute__((const));
uint3 block_size() __attribute__((const));
uint3 grid_size() __attribute__((const));
unsigned lane() __attribute__((const));

void barrier(Where at);

enum class Collective : uint8_t { SyncWarp, Shuffle, Ballot, Mma, LoadMatrix, Product, ProductWait };
struct Shuffle { unsigned value, result; unsigned source; };
struct Ballot { bool vote; unsigned result; };
enum class Tile : uint8_t { Bf16_16x8x16, Tf32_16x8x8 };
struct Mma { Tile tile; float* d; const unsigned* a; const unsigned* b; const float* c; };
struct LoadMatrix { unsigned* result; const void* row; int count; bool transposed; };
// A matrix of bf16 in swizzled rows of 128 bytes: 64 of k for each m, or 64 neighbours along m for each k, `panel` bytes to the next 64.
struct Swizzled { const char* start; int panel; bool k_inner; };
// A warpgroup's product of 64 x 16 by 16 x `cols`: what it does for one warp, its 16 rows. It is carried out between now and the wait for
// its group, a lane's sums in d, to which it is added if `keep`.
struct Product { float* d; Swizzled a, b; int cols; bool keep; };
// Waits for all lanes of `mask`, computes once for all of them.
void collective(Collective kind, unsigned mask, void* operand, Where at);

enum class Access : uint8_t { Read, Write, Atomic };
// Checks an access that the compiler's instrumentation does not see.
void access(const void* address, size_t bytes, Access kind, Where at);

// Copies `bytes` of `size` (4, 8 or 16) bytes from global to shared memory and fills the rest with zeros; it lands between
// now and the wait for its group.
void copy_async(void* to, const void* from, int size, int bytes, Where at);
void copy_commit();
// Waits until at most `pending` of the latest groups are on their way.
void copy_wait(int pending);

// Closes a group of products.
void product_commit();
// Lets products see what this thread has written to shared memory.
void proxy_fence();

// A barrier in shared memory: made for a number of arrivals, which end a phase; an arrival, at once or when this thread's copies have
// landed; a wait for the end of the phase of a parity.
void phase_init(void* at, unsigned arrivals, Where where);
void phase_arrive(void* at, Where where);
void phase_arrive_with_copies(void* at, Where where);
void phase_wait(void* at, unsigned parity, Where where);

// The ten bits of a tf32's significand, rounded to nearest, ties away from zero (cvt.rna.tf32.f32).
inline unsigned round_tf32(float x) {
    unsigned bits = std::bit_cast<unsigned>(x);
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

// The spelling of a parameter as the Rust declaration has it.
template <class T> std::string spell() {
    if constexpr (std::is_pointer_v<T>) {
        using E = std::remove_pointer_t<T>;
        return (std::is_const_v<E> ? "*const " : "*mut ") + spell<std::remove_const_t<E>>();
    } else if constexpr (std::is_same_v<T, float>) {
        return "f32";
    } else if constexpr (std::is_same_v<T, double>) {
        return "f64";
    } else if constexpr (std::is_integral_v<T>) {
        return (std::is_signed_v<T> ? "i" : "u") + std::to_string(8 * sizeof(T));
    } else {
        return T::spelling() + std::string();
    }
}
template <class T> concept Named = requires { T::spelling(); };
template <class T> requires(std::is_class_v<T> && !Named<T>) std::string spell() {
    return "struct " + std::to_string(sizeof(T));
}

// What a kernel's shared object exports for it: how to call it, and its parameters.
struct Kernel {
    void (*call)(void** arguments);
    const char* (*signature)();
};
template <auto F> struct Exported;
template <class... A, void (*F)(A...)> struct Exported<F> {
    template <size_t... I>
    __attribute__((no_sanitize("thread"), noinline)) static void spread(void** arguments, std::index_sequence<I...>) {
        F(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
    }
    __attribute__((no_sanitize("thread"), noinline)) static void call(void** arguments) {
        spread(arguments, std::index_sequence_for<A...>{});
    }
    __attribute__((no_sanitize("thread"), noinline)) static const char* signature() {
        static const std::string text = [] {
            std::string list;
            ((list += (list.empty() ? "" : ", ") + spell<std::remove_cv_t<A>>()), ...);
            return list;
        }();
        return text.c_str();
    }
};
} // namespace emulated

#define KERNEL_EXPORT(k)                                                                                                        \
    extern "C" __attribute__((used, visibility("default"))) const emulated::Kernel kernel_##k = {                               \
        &emulated::Exported<&k>::call, &emulated::Exported<&k>::signature};

#define threadIdx (emulated::thread_index())
#define blockIdx (emulated::block_index())
#define blockDim (emulated::block_size())
#define gridDim (emulated::grid_size())
#define warpSize 32

// --- barriers and warps -----------------------------------------------------------------------------------------------------
EMULATED_INLINE void __syncthreads(EMULATED_HERE) {
    emulated::barrier(at);
}
EMULATED_INLINE void __syncwarp(unsigned mask = ~0u, EMULATED_HERE) {
    emulated::collective(emulated::Collective::SyncWarp, mask, nullptr, at);
}
EMULATED_INLINE void __threadfence() {}
EMULATED_INLINE void __threadfence_block() {}

template <class T> EMULATED_INLINE T emulated_shuffle(unsigned mask, T value, unsigned source, emulated::Where at) {
    static_assert(sizeof(T) == 4, "shuffle four bytes at a time");
    emulated::Shuffle s{std::bit_cast<unsigned>(value), 0, source};
    emulated::collective(emulated::Collective::Shuffle, mask, &s, at);
    return std::bit_cast<T>(s.result);
}
template <class T> EMULATED_INLINE T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATED_HERE) {
    unsigned lane = emulated::lane(), w = width;
    return emulated_shuffle(mask, value, (lane & ~(w - 1)) | (source & (w - 1)), at);
}
template <class T> EMULATED_INLINE T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMULATED_HERE) {
    unsigned lane = emulated::lane(), source = lane ^ bits, w = width;
    return emulated_shuffle(mask, value, source >= (lane & ~(w - 1)) + w ? lane : source, at);
}
template <class T> EMULATED_INLINE T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATED_HERE) {
    unsigned lane = emulated::lane(), w = width;
    return emulated_shuffle(mask, value, (lane & (w - 1)) + delta < w ? lane + delta : lane, at);
}
template <class T> EMULATED_INLINE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATED_HERE) {
    unsigned lane = emulated::lane(), w = width;
    return emulated_shuffle(mask, value, (lane & (w - 1)) >= delta ? lane - delta : lane, at);
}
EMULATED_INLINE unsigned __ballot_sync(unsigned mask, bool vote, EMULATED_HERE) {
    emulated::Ballot b{vote, 0};
    emulated::collective(emulated::Collective::Ballot, mask, &b, at);
    return b.result;
}
EMULATED_INLINE bool __any_sync(unsigned mask, bool vote, EMULATED_HERE) {
    return __ballot_sync(mask, vote, at) != 0;
}
EMULATED_INLINE bool __all_sync(unsigned mask, bool vote, EMULATED_HERE) {
    return __ballot_sync(mask, !vote, at) == 0;
}

// --- memory -----------------------------------------------------------------------------------------------------------------
template <class T> __forceinline__ T __ldg(const T* p) { return *p; }
template <class T> __forceinline__ T __ldcs(const T* p) { return *p; }
template <class T> __forceinline__ T __ldcg(const T* p) { return *p; }
template <class T> __forceinline__ void __stcs(T* p, T v) { *p = v; }
template <class T> __forceinline__ void __stcg(T* p, T v) { *p = v; }
// Integers alone: sums of floats by atomics have another order in every run.
template <class T> EMULATED_INLINE T emulated_atomic(T* p, T v, T (*f)(T, T), emulated::Where at) {
    emulated::access(p, sizeof(T), emulated::Access::Atomic, at);
    T old = *p;
    *p = f(old, v);
    return old;
}
EMULATED_INLINE int atomicAdd(int* p, int v, EMULATED_HERE) {
    return emulated_atomic<int>(p, v, [](int a, int b) { return a + b; }, at);
}
EMULATED_INLINE unsigned atomicAdd(unsigned* p, unsigned v, EMULATED_HERE) {
    return emulated_atomic<unsigned>(p, v, [](unsigned a, unsigned b) { return a + b; }, at);
}
EMULATED_INLINE unsigned atomicMax(unsigned* p, unsigned v, EMULATED_HERE) {
    return emulated_atomic<unsigned>(p, v, [](unsigned a, unsigned b) { return a > b ? a : b; }, at);
}

// --- arithmetic -------------------------------------------------------------------------------------------------------------
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned((unsigned long long)x * y >> 32); }
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(unsigned(x)) + 1 : 0; }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
// Rounded by themselves: never merged into a fused multiply-add.
__attribute__((noinline)) inline float __fmul_rn(float a, float b) { return a * b; }
__attribute__((noinline)) inline float __fadd_rn(float a, float b) { return a + b; }
__attribute__((noinline)) inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }

// --- bfloat16 ---------------------------------------------------------------------------------------------------------------
struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    static const char* spelling() { return "bf16"; }
};
struct __align__(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
inline float __bfloat162float(__nv_bfloat16 h) { return std::bit_cast<float>(uint32_t(h.bits) << 16); }
// Rounds to nearest, ties to even; NaN becomes the quiet NaN.
inline __nv_bfloat16 __float2bfloat16(float x) {
    uint32_t bits = std::bit_cast<uint32_t>(x);
    __nv_bfloat16 h;
    h.bits = (bits & 0x7fffffff) > 0x7f800000 ? 0x7fff : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    return h;
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __float2bfloat16(x); }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__float2bfloat16(x), __float2bfloat16(y)}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {__bfloat162float(v.x), __bfloat162float(v.y)}; }
inline float __low2float(__nv_bfloat162 v) { return __bfloat162float(v.x); }
inline float __high2float(__nv_bfloat162 v) { return __bfloat162float(v.y); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) { return h.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return std::bit_cast<__nv_bfloat16>(uint16_t(bits)); }
