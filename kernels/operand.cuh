// The operands of a matrix product that are not stored as matrices: what a convolution's output pixels see of its input.
//
// A product sums over k the elements a(m, k) b(k, n). An operand answers where an element lies; it splits the answer into the
// part that a thread keeps for the whole product (`fixed`, of m or n) and the part that moves with k (`moving`), so that the inner
// loop adds two small structs. `K_INNER` says whether neighbours in memory differ in k. No element: a null pointer, read as zero.
#pragma once
#include "elements.cuh"
#include "geom.cuh"

// A coordinate that no offset brings back into an image.
constexpr int OUTSIDE = 1 << 29;

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Images read through a window: element (pixel, tap and channel). A source coordinate is a sum of the pixel's and the tap's part.
template <class T> struct Image {
    const T* at; // [images * height * width, channels], pitch
    int pitch, height, width;

    struct Pixel {
        int image, y, x; // the image's first row in memory; the coordinate of tap 0
    };
    struct Tap {
        int y, x, channel; // what the tap adds
    };

    __device__ __forceinline__ const T* find(Pixel p, Tap t) const {
        const int y = p.y + t.y, x = p.x + t.x;
        const bool real = (unsigned)y < (unsigned)height && (unsigned)x < (unsigned)width;
        return real ? at + (int64_t)(p.image + y * width + x) * pitch + t.channel : nullptr;
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
        const int y = row * window.stride_h - window.pad_top;
        return {n * window.in_h * window.in_w, m < pixels ? y : OUTSIDE, col * window.stride_w - window.pad_left};
    }

    __device__ __forceinline__ typename Image<T>::Tap tap(int k) const {
        const int tap = quotient(k, by_channels), row = quotient(tap, window.by_kernel_w);
        return {row < window.kernel_h ? row : OUTSIDE, tap - row * window.kernel_w, k - tap * channels};
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
    __device__ __forceinline__ const T* find(Fixed f, Moving m) const { return this->image.find(f, m); }
    __device__ __forceinline__ const T* base() const { return this->image.at; }
};

// The left factor of a filter gradient, the same matrix transposed: a(tap and channel, pixel).
template <class T> struct PatchColumns : Patches<T> {
    static constexpr bool K_INNER = false;
    using Element = T;
    using Fixed = typename Image<T>::Tap;
    using Moving = typename Image<T>::Pixel;
    __device__ __forceinline__ Fixed fixed(int m) const { return this->tap(m); }
    __device__ __forceinline__ Moving moving(int k) const { return this->pixel(k); }
    __device__ __forceinline__ const T* find(Fixed f, Moving m) const { return this->image.find(m, f); }
    __device__ __forceinline__ const T* base() const { return this->image.at; }
};

// A right factor that is a matrix in memory: b(k, n), [depth, cols] with a pitch.
template <class T> struct Rows {
    static constexpr bool K_INNER = false;
    using Element = T;
    using Fixed = int;
    using Moving = int;
    const T* at;
    int pitch, depth, cols;
    __device__ __forceinline__ Fixed fixed(int n) const { return n < cols ? n : -1; }
    __device__ __forceinline__ Moving moving(int k) const { return k < depth ? k : -1; }
    __device__ __forceinline__ const T* find(Fixed n, Moving k) const { return (n | k) < 0 ? nullptr : at + (int64_t)k * pitch + n; }
    __device__ __forceinline__ const T* base() const { return at; }
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
    int row, col, channel; // within the class; row OUTSIDE beyond the last
};

__device__ __forceinline__ ClassTap class_tap(const Lattice& l, int k, int channels, Divisor by_channels) {
    const int tap = quotient(k, by_channels), row = l.row_of(tap);
    return {row < l.taps_h && l.taps_w > 0 ? row : OUTSIDE, tap - row * l.taps_w, k - tap * channels};
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
        if (m >= pixels) return {0, -OUTSIDE, 0};
        int image, a, b;
        lattice.split(m, image, a, b);
        return {image * dy.height * dy.width, a + lattice.shift_h, b + lattice.shift_w};
    }
    __device__ __forceinline__ Moving moving(int k) const {
        const ClassTap t = class_tap(lattice, k, channels, by_channels);
        return {-t.row, -t.col, t.channel};
    }
    __device__ __forceinline__ const T* find(Fixed f, Moving m) const { return dy.find(f, m); }
    __device__ __forceinline__ const T* base() const { return dy.at; }
};

// The right factor of an input gradient: b(tap and output channel, input channel) of w [taps, inputs, channels].
template <class T> struct TurnedFilter {
    static constexpr bool K_INNER = true;
    using Element = T;
    using Fixed = int;
    struct Moving {
        int tap, channel;
    };
    const T* w;
    Lattice lattice;
    int inputs, channels;
    Divisor by_channels;

    __device__ __forceinline__ Fixed fixed(int n) const { return n < inputs ? n : -1; }
    __device__ __forceinline__ Moving moving(int k) const {
        const ClassTap t = class_tap(lattice, k, channels, by_channels);
        if (t.row == OUTSIDE) return {-1, 0};
        const int row = lattice.first_h + t.row * lattice.window.stride_h, col = lattice.first_w + t.col * lattice.window.stride_w;
        return {row * lattice.window.kernel_w + col, t.channel};
    }
    __device__ __forceinline__ const T* find(Fixed n, Moving m) const {
        return (n | m.tap) < 0 ? nullptr : w + ((int64_t)m.tap * inputs + n) * channels + m.channel;
    }
    __device__ __forceinline__ const T* base() const { return w; }
};
