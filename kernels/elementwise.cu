// Sums of matrices, element by element.
#include "common.cuh"

constexpr int MOST_SUMMANDS = 64;
struct Summands {
    const void* x[MOST_SUMMANDS]; // (rows, cols) each
    int pitch[MOST_SUMMANDS];
    int count;
};

// y[r, c] (+)= x0[r, c] + x1[r, c] + .. ; a thread takes V neighbouring columns. y may be x0: each element is read before it
// is written, by the same thread.
template <class T, int V>
__device__ __forceinline__ void add_rows(const Summands& s, T* y, int pitch, int rows, int cols, int add) {
    int per_row = (cols + V - 1) / V;
    long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (first >= (long long)rows * per_row) return;
    int r = (int)(first / per_row), c = (int)(first % per_row) * V;
    float sum[V] = {};
    for (int k = 0; k < s.count; k++) {
        const T* x = static_cast<const T*>(s.x[k]) + (long long)r * s.pitch[k] + c;
        if constexpr (V == 1) {
            sum[0] = k == 0 ? load(x) : sum[0] + load(x);
        } else {
            Pack<T> p = load_pack(x);
            for (int i = 0; i < V; i++) sum[i] = k == 0 ? p.v[i] : sum[i] + p.v[i];
        }
    }
    T* to = y + (long long)r * pitch + c;
    if constexpr (V == 1) {
        put(to, sum[0], add);
    } else {
        Pack<T> out;
        if (add) out = load_pack(to);
        for (int i = 0; i < V; i++) out.v[i] = add ? out.v[i] + sum[i] : sum[i];
        store_pack(to, out);
    }
}

#define ADD(name, T, V)                                                                                                         \
    extern "C" __global__ void __launch_bounds__(256) name(Summands xs, T* y, int pitch, int rows, int cols, int add) {         \
        add_rows<T, V>(xs, y, pitch, rows, cols, add);                                                                          \
    }                                                                                                                           \
    KERNEL_EXPORT(name)
ADD(add_f32, float, 1)
ADD(add_f32x4, float, 4)
ADD(add_bf16, bf16, 1)
ADD(add_bf16x8, bf16, 8)
