// One pass over the rows of matrices: what a thread does with each row of its columns, with several rows on their way from memory at once.
#pragma once
#include "elements.cuh"

// The columns of a thread: row r of them starts at at + r * pitch.
template <class T> struct Columns {
    T* at; // null: there is no such matrix
    int pitch;
    __device__ __forceinline__ T* row(int r) const { return ::row(at, pitch, r); }
};

// The rows of a thread: first, first + step, .. below last.
struct RowRange {
    int first, last, step;
};
__device__ __forceinline__ RowRange rows_of_thread(Sheet s) { return {first_row(s), s.rows, row_step(s)}; }

// RowRange that a thread has on their way at once, so that it waits for memory once for all of them.
template <int W, class T, class U = T> constexpr int BATCH = W * (sizeof(T) > sizeof(U) ? sizeof(T) : sizeof(U)) > 16 ? 2 : 4;

// Calls f(a[r], b[r]) for each row r in order; where there is no b, it sees zeros.
template <int W, class T, class F>
__device__ __forceinline__ void each_row(RowRange rows, Columns<const T> a, Columns<const T> b, F f) {
    constexpr int N = BATCH<W, T>;
    for (int r = rows.first; r < rows.last; r += N * rows.step) {
        Raw<W, T> p[N], q[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int at = r + i * rows.step;
            p[i] = fetch_if<W>(at < rows.last, a.row(at));
            q[i] = fetch_if<W>(at < rows.last && b.at, b.row(at));
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (r + i * rows.step < rows.last) f(floats(p[i]), floats(q[i]));
        }
    }
}

// y[r] = f(a[r], b[r]) for each row r, or plus what lies there; where there is no b, f sees zeros. y may be a.
template <bool ADD, int W, class T, class U, class F>
__device__ __forceinline__ void map_rows(RowRange rows, Columns<const T> a, Columns<const T> b, Columns<U> y, F f) {
    constexpr int N = ADD ? BATCH<W, T, U> / 2 : BATCH<W, T, U>;
    for (int r = rows.first; r < rows.last; r += N * rows.step) {
        Raw<W, T> p[N], q[N];
        Raw<W, U> old[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int at = r + i * rows.step;
            p[i] = fetch_if<W>(at < rows.last, a.row(at));
            q[i] = fetch_if<W>(at < rows.last && b.at, b.row(at));
            if constexpr (ADD) old[i] = fetch_if<W>(at < rows.last, const_cast<const U*>(y.row(at)));
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int at = r + i * rows.step;
            if (at >= rows.last) break;
            Floats<W> result = f(floats(p[i]), floats(q[i]));
            if constexpr (ADD) {
                const Floats<W> before = floats(old[i]);
                for (int w = 0; w < W; ++w) result.v[w] = before.v[w] + result.v[w];
            }
            write<W>(y.row(at), result);
        }
    }
}
template <int W, class T, class U, class F>
__device__ __forceinline__ void map_rows(RowRange rows, Columns<const T> a, Columns<const T> b, Columns<U> y, int add, F f) {
    if (add) map_rows<true, W>(rows, a, b, y, f);
    else map_rows<false, W>(rows, a, b, y, f);
}
