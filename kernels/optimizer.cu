// The update of all trainable parameters in one launch over their flat range, and what is done to their gradients before. Every vector
// is float and has n elements; a thread takes 16 bytes of each where all of them are aligned for that (`wide`).
//
// knobs = [learning rate, step (from 1), ..] are read from memory: a captured step is replayed with new ones.
#include "elements.cuh"

// w -= decay w, then v = momentum v - lr g, w += v (nesterov: w += momentum v - lr g). Without a velocity, w -= lr g.
//        reads 12 bytes, writes 8 (reads 8, writes 4)
extern "C" __global__ void __launch_bounds__(THREADS) sgd(
    const float* w, const float* g,
    const float* v,      // null without momentum
    const float* knobs, // (4)
    float momentum, int nesterov, float weight_decay,
    float* w_to, // may be w
    int add_w,
    float* v_to, // may be v
    int add_v,
    size_t n, int wide) {
    const float lr = knobs[0], decay = lr * weight_decay;
    auto step = [&](size_t i, auto width) {
        constexpr int W = decltype(width)::value;
        Floats<W> weight = read<W>(w + i), change = read<W>(g + i);
        for (int k = 0; k < W; ++k) change.v[k] *= -lr;
        if (v) {
            Floats<W> velocity = read<W>(v + i);
            for (int k = 0; k < W; ++k) {
                velocity.v[k] = fmaf(momentum, velocity.v[k], change.v[k]);
                change.v[k] = nesterov ? fmaf(momentum, velocity.v[k], change.v[k]) : velocity.v[k];
            }
            write<W>(v_to + i, velocity, add_v);
        }
        for (int k = 0; k < W; ++k) weight.v[k] = fmaf(-decay, weight.v[k], weight.v[k]) + change.v[k];
        write<W>(w_to + i, weight, add_w);
    };
    if (wide) each_of<4>(n, step);
    else each_of<1>(n, step);
}
KERNEL_EXPORT(sgd)

// w -= lr wd w, m += (g - m)(1 - b1), v += (g^2 - v)(1 - b2), w -= alpha m / (sqrt(v) + epsilon), with
// alpha = lr sqrt(1 - b2^t) / (1 - b1^t): powers of the betas rounded to float, in double precision, taken once for each block.
//        reads 16 bytes, writes 12
extern "C" __global__ void __launch_bounds__(THREADS) adam(
    const float* w, const float* g, const float* m, const float* v,
    const float* knobs, // (4)
    float beta_1, float beta_2, float enter_1, float enter_2, float epsilon, float weight_decay,
    float* w_to, // may be w
    int add_w,
    float* m_to, // may be m
    int add_m,
    float* v_to, // may be v
    int add_v,
    size_t n, int wide) {
    __shared__ float alpha;
    if (threadIdx.x == 0) {
        const double t = knobs[1];
        alpha = (float)(knobs[0] * sqrt(1.0 - pow((double)beta_2, t)) / (1.0 - pow((double)beta_1, t)));
    }
    __syncthreads();
    const float rate = alpha, decay = knobs[0] * weight_decay;
    auto step = [&](size_t i, auto width) {
        constexpr int W = decltype(width)::value;
        Floats<W> weight = read<W>(w + i), first = read<W>(m + i), second = read<W>(v + i);
        const Floats<W> gradient = read<W>(g + i);
        for (int k = 0; k < W; ++k) {
            const float d = gradient.v[k];
            first.v[k] = fmaf(d - first.v[k], enter_1, first.v[k]);
            second.v[k] = fmaf(fmaf(d, d, -second.v[k]), enter_2, second.v[k]);
            weight.v[k] = fmaf(-decay, weight.v[k], weight.v[k]) - rate * first.v[k] / (sqrtf(second.v[k]) + epsilon);
        }
        write<W>(w_to + i, weight, add_w);
        write<W>(m_to + i, first, add_m);
        write<W>(v_to + i, second, add_v);
    };
    if (wide) each_of<4>(n, step);
    else each_of<1>(n, step);
}
KERNEL_EXPORT(adam)

// y (+)= max(-limit, min(limit, g)); what is not a number stays so.        reads 4 bytes, writes 4
extern "C" __global__ void __launch_bounds__(THREADS) clip_value(const float* g, float limit, float* y, int add, size_t n, int wide) {
    auto clamp = [&](size_t i, auto width) {
        constexpr int W = decltype(width)::value;
        Floats<W> p = read<W>(g + i);
        for (int k = 0; k < W; ++k) p.v[k] = p.v[k] > limit ? limit : p.v[k] < -limit ? -limit : p.v[k];
        write<W>(y + i, p, add);
    };
    if (wide) each_of<4>(n, clamp);
    else each_of<1>(n, clamp);
}
KERNEL_EXPORT(clip_value)

// Folds what the 256 threads of a block hold into s[0], halves onto halves.
template <class V, class F> __device__ __forceinline__ void fold(V (&s)[THREADS], V mine, F join) {
    s[threadIdx.x] = mine;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) s[threadIdx.x] = join(s[threadIdx.x], s[threadIdx.x + half]);
        __syncthreads();
    }
}

// The sum of squares of each block's elements, in double precision from the thread on.        reads 4 bytes
extern "C" __global__ void __launch_bounds__(THREADS) sum_squares(
    const float* g,
    double* partial, // (blocks)
    size_t n, int wide) {
    __shared__ double s[THREADS];
    double sum = 0.0;
    auto add = [&](size_t i, auto width) {
        constexpr int W = decltype(width)::value;
        const Floats<W> p = read<W>(g + i);
        float squares = 0.0f;
        for (int k = 0; k < W; ++k) squares = fmaf(p.v[k], p.v[k], squares);
        sum += squares;
    };
    if (wide) each_of<4>(n, add);
    else each_of<1>(n, add);
    fold(s, sum, [](double a, double b) { return a + b; });
    if (threadIdx.x == 0) partial[blockIdx.x] = s[0];
}
KERNEL_EXPORT(sum_squares)

// norm (+)= sqrt(sum of partial), scale = min(1, limit / norm), or not a number if the norm is infinite. One block.
extern "C" __global__ void __launch_bounds__(THREADS) finish_norm(
    const double* partial, // (parts)
    int parts, float limit,
    float* scale, // (1)
    float* norm,   // (1)
    int add) {
    __shared__ double s[THREADS];
    double sum = 0.0;
    for (int p = threadIdx.x; p < parts; p += THREADS) sum += partial[p];
    fold(s, sum, [](double a, double b) { return a + b; });
    if (threadIdx.x != 0) return;
    const double length = sqrt(s[0]), share = limit / length;
    *scale = length - length == 0.0 ? (float)(share < 1.0 ? share : 1.0) : NAN;
    put(norm, (float)length, add);
}
KERNEL_EXPORT(finish_norm)

// y (+)= scale g        reads 4 bytes, writes 4
extern "C" __global__ void __launch_bounds__(THREADS) scale_by(
    const float* g,
    const float* scale, // (1)
    float* y,            // may be g
    int add, size_t n, int wide) {
    const float by = *scale;
    auto scaled = [&](size_t i, auto width) {
        constexpr int W = decltype(width)::value;
        Floats<W> p = read<W>(g + i);
        for (int k = 0; k < W; ++k) p.v[k] *= by;
        write<W>(y + i, p, add);
    };
    if (wide) each_of<4>(n, scaled);
    else each_of<1>(n, scaled);
}
KERNEL_EXPORT(scale_by)

// The largest magnitude of each block's elements, as bits. Without their sign the bits of floats are in the order of their magnitudes,
// infinity above every finite number and what is not a number above infinity: the maximum of whole numbers is the answer.        reads 4 bytes
extern "C" __global__ void __launch_bounds__(THREADS) largest(
    const float* x,
    unsigned* partial, // (blocks)
    size_t n, int wide) {
    __shared__ unsigned s[THREADS];
    unsigned most = 0;
    auto look = [&](size_t i, auto width) {
        constexpr int W = decltype(width)::value;
        const Floats<W> p = read<W>(x + i);
        for (int k = 0; k < W; ++k) {
            const unsigned bits = __float_as_uint(p.v[k]) & 0x7fffffffu;
            most = bits > most ? bits : most;
        }
    };
    if (wide) each_of<4>(n, look);
    else each_of<1>(n, look);
    fold(s, most, [](unsigned a, unsigned b) { return a > b ? a : b; });
    if (threadIdx.x == 0) partial[blockIdx.x] = s[0];
}
KERNEL_EXPORT(largest)

// y (+)= the largest of partial. One block.
extern "C" __global__ void __launch_bounds__(THREADS) finish_largest(
    const unsigned* partial, // (parts)
    int parts,
    float* y, // (1)
    int add) {
    __shared__ unsigned s[THREADS];
    unsigned most = 0;
    for (int p = threadIdx.x; p < parts; p += THREADS) most = partial[p] > most ? partial[p] : most;
    fold(s, most, [](unsigned a, unsigned b) { return a > b ? a : b; });
    if (threadIdx.x == 0) put(y, __uint_as_float(s[0]), add);
}
KERNEL_EXPORT(finish_largest)
