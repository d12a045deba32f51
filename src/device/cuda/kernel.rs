//! Kernels declared once in Rust, with typed arguments: a call with another number or order of them does not compile, and a
//! test compares each declaration with the kernel's own parameters.
//!
//! ```text
//! kernels! { in "elementwise";
//!     fn scale_f32(x: *const f32, pitch: i32, y: *mut f32, rows: i32, cols: i32);
//! }
//! call.launch(scale_f32, grid, 256, 0, (x.ptr, x.pitch, y.ptr, y.rows, y.cols));
//! ```

use super::driver::{Declared, DevicePtr};
use std::marker::PhantomData;

/// A kernel that takes arguments of the types `A`.
pub struct Kernel<A> {
    pub name: &'static str,
    pub file: &'static str,
    pub signature: fn() -> String,
    arguments: PhantomData<fn(A)>,
}

impl<A> Clone for Kernel<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Kernel<A> {}

impl<A> Kernel<A> {
    /// Made by [`kernels!`](crate::kernels).
    pub const fn new(name: &'static str, file: &'static str, signature: fn() -> String) -> Self {
        Kernel { name, file, signature, arguments: PhantomData }
    }

    /// The declaration, for the test.
    pub fn declared(&self) -> Declared {
        Declared { name: self.name, file: self.file, signature: (self.signature)() }
    }
}

/// A type in the declaration of a kernel.
pub trait Parameter {
    /// What is passed for it.
    type Argument: bytemuck::NoUninit;
    /// How the kernel's own source spells it.
    fn spell() -> String;
}

/// A type that a kernel's pointer points to.
pub trait Element {
    /// Its name.
    fn spell() -> String;
}

macro_rules! numbers {
    ($($number:ty => $name:literal),+) => {$(
        impl Parameter for $number {
            type Argument = $number;
            fn spell() -> String { $name.into() }
        }
        impl Element for $number {
            fn spell() -> String { $name.into() }
        }
    )+};
}
numbers!(f32 => "f32", f64 => "f64", i32 => "i32", u32 => "u32", i64 => "i64", u64 => "u64");

impl Element for u8 {
    fn spell() -> String {
        "u8".into()
    }
}

impl Element for half::bf16 {
    fn spell() -> String {
        "bf16".into()
    }
}

impl<T: Element> Parameter for *const T {
    type Argument = DevicePtr;
    fn spell() -> String {
        format!("*const {}", T::spell())
    }
}

impl<T: Element> Parameter for *mut T {
    type Argument = DevicePtr;
    fn spell() -> String {
        format!("*mut {}", T::spell())
    }
}

// SAFETY: a transparent u64.
unsafe impl bytemuck::Zeroable for DevicePtr {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for DevicePtr {}

/// A struct that Rust and a kernel share, passed by value: `kernel_struct!(Geometry)`. Both sides must have the same size.
#[macro_export]
macro_rules! kernel_struct {
    ($name:ty) => {
        impl $crate::device::cuda::kernel::Parameter for $name {
            type Argument = $name;
            fn spell() -> String {
                format!("struct {}", size_of::<$name>())
            }
        }
    };
}

/// The arguments of a launch.
pub trait Arguments {
    /// Appends each argument in words of eight bytes, and the word at which it starts.
    fn pack(&self, words: &mut Vec<u64>, starts: &mut Vec<usize>);
}

fn pack<T: bytemuck::NoUninit>(value: &T, words: &mut Vec<u64>, starts: &mut Vec<usize>) {
    let bytes = bytemuck::bytes_of(value);
    starts.push(words.len());
    let first = words.len();
    words.resize(first + bytes.len().div_ceil(8), 0);
    bytemuck::cast_slice_mut(&mut words[first..])[..bytes.len()].copy_from_slice(bytes);
}

macro_rules! tuples {
    ($($name:ident)*) => {
        impl<$($name: bytemuck::NoUninit),*> Arguments for ($($name,)*) {
            #[allow(non_snake_case)]
            fn pack(&self, words: &mut Vec<u64>, starts: &mut Vec<usize>) {
                let ($($name,)*) = self;
                $(pack($name, words, starts);)*
            }
        }
    };
}

macro_rules! tuples_up_to {
    ($first:ident $($rest:ident)*) => { tuples!($first $($rest)*); tuples_up_to!($($rest)*); };
    () => {};
}
tuples_up_to!(A B C D E F G H I J K L M N O P Q R S T U V W X Y Z);

/// Declares the kernels of one or more `.cu` files; see the module's text. Also defines `declared()`, the list of them.
#[macro_export]
macro_rules! kernels {
    ($(in $file:literal; $(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*)*) => {
        $($(
            #[allow(non_upper_case_globals)]
            pub const $name: $crate::device::cuda::Kernel<($(<$type as $crate::device::cuda::kernel::Parameter>::Argument,)*)> =
                $crate::device::cuda::Kernel::new(stringify!($name), $file, || {
                    let parameters: &[String] = &[$(<$type as $crate::device::cuda::kernel::Parameter>::spell()),*];
                    parameters.join(", ")
                });
        )*)*

        /// The kernels declared here.
        pub fn declared() -> Vec<$crate::device::cuda::driver::Declared> {
            vec![$($($name.declared()),*),*]
        }
    };
}
