// Batch norm's three rows, forward and backward. Vectors of C elements (one per channel) are always float.
//
// The passes over pixels are bound by memory; their bytes per element are stated for storage types of s bytes. The passes over vectors
// work in double precision, because their differences cancel when a mean is many deviations away; they touch kilobytes.
#include "columns.cuh"

// What each part's rows leave of a column: a pivot, and the sums of d = x - pivot and of d^2.        reads s
//
// Sums of x and x^2 would lose every digit of the variance where the mean is large against the deviation; the pivot is the part's first
// row. The values are those stored: normalising uses the same.
template <int W, class T>
__device__ __forceinline__ void channel_stats(const T* x, int x_pitch, float* partial, Sheet s, int rows_per_part) {
    const int c = first_column<W>(s);
    float sum[2][W] = {};
    Floats<W> pivot = {};
    if (c < s.cols) {
        const Columns<const T> from = {x + c, x_pitch};
        pivot = read<W>(from.row(blockIdx.y * rows_per_part));
        each_row<W>(rows_of_part(s, rows_per_part), from, {}, [&](const Floats<W>& p, const Floats<W>&) {
            for (int w = 0; w < W; ++w) {
                const float d = p.v[w] - pivot.v[w];
                sum[0][w] += d;
                sum[1][w] = fmaf(d, d, sum[1][w]);
            }
        });
    }
    fold_rows(sum, s);
    if (row_in_block(s) != 0 || c >= s.cols) return;
    for (int w = 0; w < W; ++w) {
        float* to = partial + (size_t)blockIdx.y * 3 * s.cols + c + w;
        to[0] = pivot.v[w], to[s.cols] = sum[0][w], to[2 * (size_t)s.cols] = sum[1][w];
    }
}
#define CHANNEL_STATS(type, T, U)                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) channel_stats_##type(                                                \
        const T* x,     /* (rows, cols) */                                                                                     \
        int x_pitch,                                                                                                           \
        float* partial, /* (parts, 3, cols): pivot, sums of d and of d^2 */                                                    \
        Sheet s, int rows_per_part) {                                                                                          \
        if (s.width > 1) channel_stats<WIDE<T>>(x, x_pitch, partial, s, rows_per_part);                                        \
        else channel_stats<1>(x, x_pitch, partial, s, rows_per_part);                                                          \
    }                                                                                                                          \
    KERNEL_EXPORT(channel_stats_##type)
SAME_TYPES(CHANNEL_STATS)

// mean (+)= pivot + sum / rows, var (+)= (squares - sum^2 / rows) / rows, from the sums of d = x - pivot and of d^2 over all rows.
__device__ __forceinline__ void put_stats(
    float pivot, const double (&sum)[2], int rows, float* mean, int add_mean, float* var, int add_var) {
    const double d = sum[0] / rows;
    put(mean, (float)(pivot + d), add_mean);
    put(var, (float)fmax(sum[1] / rows - d * d, 0.0), add_var);
}

// Adds up what channel_stats or the epilogue of a convolution (conv2d.cu) left, `parts_per_group` parts for each blockIdx.y: to mean and
// var where that is all of them, else to sums in `group`, for finish_stats. Every part but the last has `rows_per_part` rows.
//
// All parts are first put on the pivot of part 0. With e = pivot - pivot_0 the sums over n rows become sum + n e and
// squares + e (2 sum + n e): no division for each part, and doubles have the digits that the common pivot may cost.
extern "C" __global__ void __launch_bounds__(THREADS) merge_stats(
    const float* partial, // (parts, 3, cols): pivot, sums of d = y - pivot and of d^2
    int parts, int rows, int cols, int rows_per_part, int parts_per_group,
    double* group, // (groups, 2, cols): sums of y - pivot_0 and of its square
    float* mean, // (cols)
    int add_mean,
    float* var, // (cols)
    int add_var) {
    struct Part {
        float pivot, sum, squares;
    };
    const int c = finished_column(), real = min(c, cols - 1), first = blockIdx.y * parts_per_group;
    const float pivot = partial[real];
    double sum[2] = {};
    add_parts(
        sum, first, min(first + parts_per_group, parts),
        [&](int p) -> Part {
            const float* from = partial + (size_t)p * 3 * cols + real;
            return {from[0], from[cols], from[2 * (size_t)cols]};
        },
        [&](double(&to)[2], int p, const Part& part) {
            const double n = min(rows_per_part, rows - p * rows_per_part), e = (double)part.pivot - pivot;
            to[0] += part.sum + n * e;
            to[1] += part.squares + e * (2.0 * part.sum + n * e);
        });
    if (helper() != 0 || c >= cols) return;
    if (gridDim.y == 1) {
        put_stats(pivot, sum, rows, mean + c, add_mean, var + c, add_var);
    } else {
        double* to = group + (size_t)blockIdx.y * 2 * cols + c;
        to[0] = sum[0], to[cols] = sum[1];
    }
}
KERNEL_EXPORT(merge_stats)

// Mean and variance from the sums of all groups.
extern "C" __global__ void __launch_bounds__(THREADS) finish_stats(
    const float* partial, // (parts, 3, cols): the first row has pivot_0
    const double* group,  // (groups, 2, cols)
    int groups, int rows, int cols,
    float* mean, // (cols)
    int add_mean,
    float* var, // (cols)
    int add_var) {
    struct Group {
        double sum, squares;
    };
    const int c = finished_column(), real = min(c, cols - 1);
    double sum[2] = {};
    add_parts(
        sum, 0, groups,
        [&](int p) -> Group {
            const double* from = group + (size_t)p * 2 * cols + real;
            return {from[0], from[cols]};
        },
        [](double(&to)[2], int, const Group& part) { to[0] += part.sum, to[1] += part.squares; });
    if (helper() == 0 && c < cols) put_stats(partial[c], sum, rows, mean + c, add_mean, var + c, add_var);
}
KERNEL_EXPORT(finish_stats)

// dx (+)= dmean / N + 2 dvar (x - mean) / N        reads s, writes s
template <int W, class T, class U>
__device__ __forceinline__ void channel_stats_dx(
    const T* x, int x_pitch, const float* mean, const float* dmean, const float* dvar, U* dx, int dx_pitch, Sheet s, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    const float each = 1.0f / s.rows;
    const Floats<W> centre = channels<W>(mean + c);
    Floats<W> base = channels<W>(dmean + c), spread = channels<W>(dvar + c);
    for (int w = 0; w < W; ++w) base.v[w] *= each, spread.v[w] *= 2.0f * each;
    map_rows<W>(rows_of_thread(s), Columns<const T>{x + c, x_pitch}, {}, Columns<U>{dx + c, dx_pitch}, add, [&](Floats<W> p, const Floats<W>&) {
        for (int w = 0; w < W; ++w) p.v[w] = fmaf(p.v[w] - centre.v[w], spread.v[w], base.v[w]);
        return p;
    });
}
#define CHANNEL_STATS_DX(type, T, U)                                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS) channel_stats_dx_##type(                                             \
        const T* x, /* (rows, cols) */                                                                                         \
        int x_pitch,                                                                                                           \
        const float* mean, const float* dmean, const float* dvar, /* (cols) each */                                            \
        U* dx,      /* (rows, cols), may be x */                                                                               \
        int dx_pitch, Sheet s, int add) {                                                                                      \
        if (s.width > 1) channel_stats_dx<WIDE<T, U>>(x, x_pitch, mean, dmean, dvar, dx, dx_pitch, s, add);                    \
        else channel_stats_dx<1>(x, x_pitch, mean, dmean, dvar, dx, dx_pitch, s, add);                                         \
    }                                                                                                                          \
    KERNEL_EXPORT(channel_stats_dx_##type)
ALL_TYPES(CHANNEL_STATS_DX)

// The vectors of up to so many batch norms, (channels) each. The Rust side is in src/ops/bn_coefficients/cuda.rs.
constexpr int MOST_COEFFICIENTS = 32;
struct Coefficients {
    const float *mean[MOST_COEFFICIENTS], *var[MOST_COEFFICIENTS];
    const float* gamma[MOST_COEFFICIENTS]; // null: 1 everywhere
    const float* beta[MOST_COEFFICIENTS];
    float *scale[MOST_COEFFICIENTS], *shift[MOST_COEFFICIENTS];
    int channels[MOST_COEFFICIENTS], add_scale[MOST_COEFFICIENTS], add_shift[MOST_COEFFICIENTS];
};

// scale (+)= gamma / sqrt(var + epsilon), shift (+)= beta - mean scale. One thread for each channel of batch norm blockIdx.y.
extern "C" __global__ void __launch_bounds__(THREADS) bn_coefficients(const __grid_constant__ Coefficients all, double epsilon) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y;
    if (c >= all.channels[k]) return;
    const double gamma = all.gamma[k] ? (double)all.gamma[k][c] : 1.0, scale = gamma / sqrt(all.var[k][c] + epsilon);
    put(all.scale[k] + c, (float)scale, all.add_scale[k]);
    put(all.shift[k] + c, (float)(all.beta[k][c] - all.mean[k][c] * scale), all.add_shift[k]);
}
KERNEL_EXPORT(bn_coefficients)

// With ds = dscale - mean dshift: dmean = -scale dshift, dvar = -1/2 gamma rstd^3 ds, dgamma = rstd ds, dbeta = dshift.
extern "C" __global__ void __launch_bounds__(THREADS) bn_coefficients_dx(
    const float* mean, const float* var,
    const float* gamma, // null: 1 everywhere
    const float* dscale, const float* dshift,
    double epsilon,
    float* dmean, int add_mean,
    float* dvar, int add_var,
    float* dgamma, // null if gamma is
    int add_gamma,
    float* dbeta, int add_beta,
    int channels) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) return;
    const double g = gamma ? (double)gamma[c] : 1.0, rstd = 1.0 / sqrt(var[c] + epsilon);
    const double db = dshift[c], ds = dscale[c] - mean[c] * db;
    put(dmean + c, (float)(-g * rstd * db), add_mean);
    put(dvar + c, (float)(-0.5 * g * rstd * rstd * rstd * ds), add_var);
    if (dgamma) put(dgamma + c, (float)(rstd * ds), add_gamma);
    put(dbeta + c, dshift[c], add_beta);
}
KERNEL_EXPORT(bn_coefficients_dx)

// Up to so many moving averages, (channels) each. The Rust side is in src/ops/moving_average/cuda.rs.
constexpr int MOST_AVERAGES = 64;
struct Averages {
    const float *moving[MOST_AVERAGES], *batch[MOST_AVERAGES];
    float* y[MOST_AVERAGES]; // may be moving
    int channels[MOST_AVERAGES], add[MOST_AVERAGES];
};

// y (+)= moving stay + batch enter. One thread for each channel of average blockIdx.y.
extern "C" __global__ void __launch_bounds__(THREADS) moving_average(const __grid_constant__ Averages all, float stay, float enter) {
    const int c = blockIdx.x * blockDim.x + threadIdx.x, k = blockIdx.y;
    if (c >= all.channels[k]) return;
    put(all.y[k] + c, fmaf(all.moving[k][c], stay, all.batch[k][c] * enter), all.add[k]);
}
KERNEL_EXPORT(moving_average)

// y (+)= act(z), z = x scale + shift        reads s, writes s
//
// The gradients compute z again with the same fused multiply-add (`before`).
template <int W, class T, class U>
__device__ __forceinline__ void scale_shift(
    const T* x, int x_pitch, const float* scale, const float* shift, U* y, int y_pitch, Sheet s, int act, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    const Floats<W> a = channels<W>(scale + c), b = channels<W>(shift + c);
    map_rows<W>(rows_of_thread(s), Columns<const T>{x + c, x_pitch}, {}, Columns<U>{y + c, y_pitch}, add, [&](Floats<W> p, const Floats<W>&) {
        for (int w = 0; w < W; ++w) p.v[w] = activate(act, fmaf(p.v[w], a.v[w], b.v[w]));
        return p;
    });
}
#define SCALE_SHIFT(type, T, U)                                                                                                \
    extern "C" __global__ void __launch_bounds__(THREADS) scale_shift_##type(                                                  \
        const T* x, /* (rows, cols) */                                                                                         \
        int x_pitch,                                                                                                           \
        const float* scale, const float* shift, /* (cols) each */                                                              \
        U* y,       /* (rows, cols), may be x */                                                                               \
        int y_pitch, Sheet s, int act, int add) {                                                                              \
        if (s.width > 1) scale_shift<WIDE<T, U>>(x, x_pitch, scale, shift, y, y_pitch, s, act, add);                           \
        else scale_shift<1>(x, x_pitch, scale, shift, y, y_pitch, s, act, add);                                                \
    }                                                                                                                          \
    KERNEL_EXPORT(scale_shift_##type)
SAME_TYPES(SCALE_SHIFT)

// The sums of dz x and of dz of each part, to be added up by finish_sums.        reads 2s
template <int W, class T>
__device__ __forceinline__ void scale_shift_sums(
    const T* dy, int dy_pitch, const T* x, int x_pitch, const float* scale, const float* shift, float* partial, Sheet s,
    int rows_per_part, int act) {
    const int c = first_column<W>(s);
    float sum[2][W] = {};
    if (c < s.cols) {
        const Floats<W> a = channels<W>(scale + c), b = channels<W>(shift + c);
        const Columns<const T> gradient = {dy + c, dy_pitch}, input = {x + c, x_pitch};
        each_row<W>(rows_of_part(s, rows_per_part), gradient, input, [&](const Floats<W>& g, const Floats<W>& p) {
            for (int w = 0; w < W; ++w) {
                const float dz = before(act, g.v[w], p.v[w], a.v[w], b.v[w]);
                sum[0][w] = fmaf(dz, p.v[w], sum[0][w]);
                sum[1][w] += dz;
            }
        });
    }
    fold_rows(sum, s);
    put_part(sum, partial, c, s);
}
#define SCALE_SHIFT_SUMS(type, T, U)                                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS, 3) scale_shift_sums_##type(                                             \
        const T* dy,    /* (rows, cols) */                                                                                     \
        int dy_pitch,                                                                                                          \
        const T* x,     /* (rows, cols) */                                                                                     \
        int x_pitch,                                                                                                           \
        const float* scale, const float* shift, /* (cols) each */                                                              \
        float* partial, /* (parts, 2, cols): sums of dz x, of dz */                                                            \
        Sheet s, int rows_per_part, int act) {                                                                                 \
        if (s.width > 1) scale_shift_sums<WIDE<T>>(dy, dy_pitch, x, x_pitch, scale, shift, partial, s, rows_per_part, act);    \
        else scale_shift_sums<1>(dy, dy_pitch, x, x_pitch, scale, shift, partial, s, rows_per_part, act);                      \
    }                                                                                                                          \
    KERNEL_EXPORT(scale_shift_sums_##type)
SAME_TYPES(SCALE_SHIFT_SUMS)

// The vectors of a batch norm's input gradient, (cols) each; the last three are null where the statistics are constants.
struct ScaleShiftDx {
    const float *scale, *shift, *mean, *dmean, *dvar;
};

// dx (+)= dz scale (+ dmean / N + 2 dvar (x - mean) / N)        reads 2s (s if linear and without statistics: x is not read), writes s
template <int W, class T, class U>
__device__ __forceinline__ void scale_shift_dx(
    const T* dy, int dy_pitch, const T* x, int x_pitch, ScaleShiftDx k, U* dx, int dx_pitch, Sheet s, int act, int add) {
    const int c = first_column<W>(s);
    if (c >= s.cols) return;
    const bool stats = k.mean != nullptr, reads_x = stats || act != LINEAR;
    const float each = 1.0f / s.rows;
    const Floats<W> a = channels<W>(k.scale + c), b = channels<W>(k.shift + c);
    Floats<W> centre = {}, base = {}, spread = {};
    if (stats) {
        centre = channels<W>(k.mean + c), base = channels<W>(k.dmean + c), spread = channels<W>(k.dvar + c);
        for (int w = 0; w < W; ++w) base.v[w] *= each, spread.v[w] *= 2.0f * each;
    }
    const Columns<const T> gradient = {dy + c, dy_pitch}, input = {reads_x ? x + c : nullptr, x_pitch};
    map_rows<W>(rows_of_thread(s), gradient, input, Columns<U>{dx + c, dx_pitch}, add, [&](Floats<W> g, const Floats<W>& p) {
        for (int w = 0; w < W; ++w) {
            const float dz = before(act, g.v[w], p.v[w], a.v[w], b.v[w]);
            g.v[w] = fmaf(dz, a.v[w], fmaf(p.v[w] - centre.v[w], spread.v[w], base.v[w]));
        }
        return g;
    });
}
#define SCALE_SHIFT_DX(type, T, U)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS) scale_shift_dx_##type(                                               \
        const T* dy, /* (rows, cols) */                                                                                        \
        int dy_pitch,                                                                                                          \
        const T* x,  /* (rows, cols) */                                                                                        \
        int x_pitch,                                                                                                           \
        const float* scale, const float* shift, const float* mean, const float* dmean, const float* dvar,                      \
        U* dx,       /* (rows, cols), may be dy */                                                                             \
        int dx_pitch, Sheet s, int act, int add) {                                                                             \
        const ScaleShiftDx k = {scale, shift, mean, dmean, dvar};                                                              \
        if (s.width > 1) scale_shift_dx<WIDE<T, U>>(dy, dy_pitch, x, x_pitch, k, dx, dx_pitch, s, act, add);                   \
        else scale_shift_dx<1>(dy, dy_pitch, x, x_pitch, k, dx, dx_pitch, s, act, add);                                        \
    }                                                                                                                          \
    KERNEL_EXPORT(scale_shift_dx_##type)
ALL_TYPES(SCALE_SHIFT_DX)
