// The operands of a matrix product that are not stored as matrices: what a convolution's output pixels see of its input.
//
// A product sums over k the elements a(m, k) b(k, n). An operand answers where an element lies; it splits the answer into the
// part that a thread keeps for the whole product (`fixed`, of m or n) and the part that moves with k (`moving`), so that the inner
// loop adds two small structs. `K_INNER` says whether neighbours in memory differ in k.
#pragma once
#include "elements.cuh"
#include "geom.cuh"

// A coordinate that no offset brings back into an image.
constexpr int OUTSIDE = 1 << 29;

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Where an element lies. One that is not real counts as zero, and must not be read.
template <class T> struct Spot {
    const T* at;
    bool real;
};

// The element `row` rows on, of so many bytes each: one multiply-add.
template <class T> __device__ __forceinline__ const T* rows_on(const T* at, int row, int row_bytes) {
    return reinterpret_cast<const T*>(reinterpret_cast<const char*>(at) + (int64_t)row * row_bytes);
}

// Images read through a window: element (pixel, tap and channel). A source coordinate is a sum of the pixel's and the tap's part.
template <class T> struct Image {
    const T* at; // [images * height * width, channels]
    int row_bytes, height, width;

    struct Pixel {
        int row, y, x; // what tap 0 reads: its row in memory, its coordinates
    };
    struct Tap {
        int rows, y, x; // what the tap adds
        const T* channel; // of row 0
    };

    __device__ __forceinline__ Pixel pixel(int image, int y, int x) const { return {(image * height + y) * width + x, y, x}; }
    __device__ __forceinline__ Tap tap(int y, int x, int channel, bool real) const { return {y * width + x, real ? y : OUTSIDE, x, at + channel}; }

    __device__ __forceinline__ Spot<T> find(Pixel p, Tap t) const {
        const bool real = (unsigned)(p.y + t.y) < (unsigned)height && (unsigned)(p.x + t.x) < (unsigned)width;
        return {rows_on(t.channel, p.row + t.rows, row_bytes), real};
    }
};

// What output pixel m sees through a window, column k = tap * channels + channel.
template <class T> struct Patches {
    Image<T> image;
    Window window;
    int pixels, channels; // images * out_h * out_w; channels of the input
    Divisor by_channels;

    __device__ __forceinline__ typename Image<T>::Pixel pixel(int m) const {
        const int n = quotient(m, window.by_out_pixels), in_image = m - n * window.out_h * window.out_w;
        const int row = quotient(in_image, window.by_out_w), col = in_image - row * window.out_w;
        typename Image<T>::Pixel p = image.pixel(n, row * window.stride_h - window.pad_top, col * window.stride_w - window.pad_left);
        if (m >= pixels) p.y = OUTSIDE;
        return p;
    }

    __device__ __forceinline__ typename Image<T>::Tap tap(int k) const {
        const int tap = quotient(k, by_channels), row = quotient(tap, window.by_kernel_w);
        return image.tap(row, tap - row * window.kernel_w, k - tap * channels, row < window.kernel_h);
    }
};

// The left factor of a convolution: a(pixel, tap and channel).
template <class T> struct PatchRows : Patches<T> {
    static constexpr bool K_INNER = true;
    using Element = T;
    using Fixed = typename Image<T>::Pixel;
    using Moving = typename Image<T>::Tap;
    __device__ __forceinline__ Fixed fixed(int m) const { return this->pixel(m); }
    __device__ __forceinline__ Moving moving(int k) const { return this->tap(k); }
    __device__ __forceinline__ Spot<T> find(Fixed f, Moving m) const { return this->image.find(f, m); }
};

// The left factor of a filter gradient, the same matrix transposed: a(tap and channel, pixel).
template <class T> struct PatchColumns : Patches<T> {
    static constexpr bool K_INNER = false;
    using Element = T;
    using Fixed = typename Image<T>::Tap;
    using Moving = typename Image<T>::Pixel;
    __device__ __forceinline__ Fixed fixed(int m) const { return this->tap(m); }
    __device__ __forceinline__ Moving moving(int k) const { return this->pixel(k); }
    __device__ __forceinline__ Spot<T> find(Fixed f, Moving m) const { return this->image.find(m, f); }
};

// A right factor that is a matrix in memory: b(k, n), [depth, cols] in rows of so many bytes.
template <class T> struct Rows {
    static constexpr bool K_INNER = false;
    using Element = T;
    using Fixed = Spot<T>;
    using Moving = int;
    const T* at;
    int row_bytes, depth, cols;
    __device__ __forceinline__ Fixed fixed(int n) const { return {at + n, n < cols}; }
    __device__ __forceinline__ Moving moving(int k) const { return k; }
    __device__ __forceinline__ Spot<T> find(Fixed n, Moving k) const { return {rows_on(n.at, k, row_bytes), n.real && k < depth}; }
};

// The pixels of an input that lie in one residue class of the stride. Within a class the gradient is a dense convolution of
// stride one: input pixel (s a + r) is read through the taps i = first + s i', by the output pixels a + shift - i'.
struct Lattice {
    Window window;
    int row, col;             // the class: residues of the input coordinates
    int first_h, first_w;     // the first tap of each axis
    int shift_h, shift_w;
    int taps_h, taps_w;       // taps of the class; may be none
    int rows, cols;           // pixels of the class in each image

    __device__ __forceinline__ Lattice(const Window& g, int index) : window(g) {
        row = index / g.stride_w, col = index % g.stride_w;
        first_h = (row + g.pad_top) % g.stride_h, first_w = (col + g.pad_left) % g.stride_w;
        shift_h = (row + g.pad_top) / g.stride_h, shift_w = (col + g.pad_left) / g.stride_w;
        taps_h = max(ceil_div(g.kernel_h - first_h, g.stride_h), 0), taps_w = max(ceil_div(g.kernel_w - first_w, g.stride_w), 0);
        rows = max(ceil_div(g.in_h - row, g.stride_h), 0), cols = max(ceil_div(g.in_w - col, g.stride_w), 0);
    }

    // The row of a tap of the class.
    __device__ __forceinline__ int row_of(int tap) const {
        if (window.stride_w == 1) return quotient(tap, window.by_kernel_w);
        return taps_w > 0 ? tap / taps_w : 0;
    }

    // Image and class coordinates of the m-th pixel.
    __device__ __forceinline__ void split(int m, int& image, int& a, int& b) const {
        image = m / (rows * cols);
        const int in_image = m - image * rows * cols;
        a = in_image / cols, b = in_image - a * cols;
    }

    // Where the m-th pixel lies among all input pixels.
    __device__ __forceinline__ int64_t input_pixel(int m) const {
        if (window.stride_h == 1 && window.stride_w == 1) return m;
        int image, a, b;
        split(m, image, a, b);
        return ((int64_t)image * window.in_h + a * window.stride_h + row) * window.in_w + b * window.stride_w + col;
    }
};

// One tap of a class and an output channel, from k = tap * channels + channel.
struct ClassTap {
    int row, col, channel; // within the class
    bool real;
};

__device__ __forceinline__ ClassTap class_tap(const Lattice& l, int k, int channels, Divisor by_channels) {
    const int tap = quotient(k, by_channels), row = l.row_of(tap);
    return {row, tap - row * l.taps_w, k - tap * channels, row < l.taps_h && l.taps_w > 0};
}

// The left factor of an input gradient: a(pixel of the class, tap and output channel) of dy.
template <class T> struct GradientRows {
    static constexpr bool K_INNER = true;
    using Element = T;
    using Fixed = typename Image<T>::Pixel;
    using Moving = typename Image<T>::Tap;
    Image<T> dy;
    Lattice lattice;
    int pixels, channels; // of the class over all images; output channels
    Divisor by_channels;

    __device__ __forceinline__ Fixed fixed(int m) const {
        if (m >= pixels) return {0, OUTSIDE, 0};
        int image, a, b;
        lattice.split(m, image, a, b);
        return dy.pixel(image, a + lattice.shift_h, b + lattice.shift_w);
    }
    __device__ __forceinline__ Moving moving(int k) const {
        const ClassTap t = class_tap(lattice, k, channels, by_channels);
        return dy.tap(-t.row, -t.col, t.channel, t.real);
    }
    __device__ __forceinline__ Spot<T> find(Fixed f, Moving m) const { return dy.find(f, m); }
};

// The right factor of an input gradient: b(tap and output channel, input channel) of w [taps, inputs, channels].
template <class T> struct TurnedFilter {
    static constexpr bool K_INNER = true;
    using Element = T;
    using Fixed = int; // n, or negative
    using Moving = Spot<T>; // of n = 0
    const T* w;
    Lattice lattice;
    int inputs, channels;
    Divisor by_channels;

    __device__ __forceinline__ Fixed fixed(int n) const { return n < inputs ? n : -1; }
    __device__ __forceinline__ Moving moving(int k) const {
        const ClassTap t = class_tap(lattice, k, channels, by_channels);
        const int row = lattice.first_h + t.row * lattice.window.stride_h, col = lattice.first_w + t.col * lattice.window.stride_w;
        const int tap = row * lattice.window.kernel_w + col;
        return {rows_on(w + t.channel, tap * inputs, channels * (int)sizeof(T)), t.real};
    }
    __device__ __forceinline__ Spot<T> find(Fixed n, Moving m) const { return {rows_on(m.at, n, channels * (int)sizeof(T)), m.real && n >= 0}; }
};
