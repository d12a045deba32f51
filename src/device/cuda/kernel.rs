//! Kernels declared once in Rust, with typed arguments: a call with another number or order of them does not compile, and a
//! test compares each declaration with the kernel's own parameters.
//!
//! ```text
//! kernels! { in "elementwise";
//!     fn scale_f32(x: *const f32, pitch: i32, y: *mut f32, rows: i32, cols: i32);
//! }
//! call.launch(scale_f32, grid, 256, 0, (x.ptr, x.pitch, y.ptr, y.rows, y.cols));
//! ```
//!
//! A kernel with an instance for each storage type is declared once: `fn copy<T, U>(x: *const T, y: *mut U) for all;`, where `same`
//! has the instances that read and write one type, and `all` the mixed ones too. `copy.of(&[x], y)` picks one by its operands.

use super::Matrix;
use super::driver::{Declared, DevicePtr};
use crate::base::DType;
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
    pub fn declared(&self) -> Vec<Declared> {
        vec![Declared { name: self.name, file: self.file, signature: (self.signature)() }]
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

/// One kernel for several storage types: the instance `name_f32` reads and writes matrices of f32, `name_bf16` of bf16, and
/// `name_bf16_f32` reads bf16 and writes f32.
pub struct Typed<A: 'static> {
    name: &'static str,
    instances: &'static [(DType, DType, Kernel<A>)],
}

impl<A> Typed<A> {
    /// Made by [`kernels!`](crate::kernels).
    pub const fn new(name: &'static str, instances: &'static [(DType, DType, Kernel<A>)]) -> Self {
        Typed { name, instances }
    }

    /// The instance for these operands.
    ///
    /// # Panics
    /// If there is none, or if the sources differ in type: the precision pass asks for no such rows.
    pub fn of(&self, sources: &[Matrix], written: Matrix) -> Kernel<A> {
        let read = sources[0].dtype;
        let found = self.instances.iter().find(|(r, w, _)| (*r, *w) == (read, written.dtype));
        let same = sources.iter().all(|x| x.dtype == read);
        let wrong =
            || panic!("{} has no instance from {:?} to {}", self.name, sources.iter().map(|x| x.dtype).collect::<Vec<_>>(), written.dtype);
        found.filter(|_| same).unwrap_or_else(wrong).2
    }

    /// The declarations, for the test.
    pub fn declared(&self) -> Vec<Declared> {
        self.instances.iter().flat_map(|(_, _, kernel)| kernel.declared()).collect()
    }
}

/// Declares the kernels of one or more `.cu` files; see the module's text. Also defines `declared()`, the list of them.
#[macro_export]
macro_rules! kernels {
    ($(in $file:literal; $(
        fn $name:ident $(<$t:ident, $u:ident>)? ($($argument:ident: $type:ty),* $(,)?) $(for $types:ident)?;
    )*)*) => {
        $($($crate::kernel!($file $name [$($t $u)?] [$($types)?] ($($type),*));)*)*

        /// The kernels declared here.
        pub fn declared() -> Vec<$crate::device::cuda::driver::Declared> {
            [$($($name.declared()),*),*].concat()
        }
    };
}

/// One declaration of [`kernels!`](crate::kernels).
#[macro_export]
macro_rules! kernel {
    ($file:literal $name:ident [] [] ($($type:ty),*)) => {
        #[allow(non_upper_case_globals)]
        pub const $name: $crate::device::cuda::Kernel<($(<$type as $crate::device::cuda::kernel::Parameter>::Argument,)*)> =
            $crate::device::cuda::Kernel::new(stringify!($name), $file, || {
                let parameters: &[String] = &[$(<$type as $crate::device::cuda::kernel::Parameter>::spell()),*];
                parameters.join(", ")
            });
    };
    ($file:literal $name:ident [$t:ident $u:ident] [$types:ident] ($($type:ty),*)) => {
        #[allow(non_upper_case_globals)]
        pub const $name: $crate::device::cuda::kernel::Typed<$name::Arguments> =
            $crate::device::cuda::kernel::Typed::new(stringify!($name), $name::INSTANCES);

        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use $crate::base::DType;
            use $crate::device::cuda::{Kernel, kernel::{Element, Parameter}};

            // An argument does not depend on what a pointer points to.
            #[allow(dead_code)]
            type $t = f32;
            #[allow(dead_code)]
            type $u = f32;
            pub type Arguments = ($(<$type as Parameter>::Argument,)*);

            // A kernel that sums reads matrices alone, one that fills writes one alone.
            #[allow(clippy::extra_unused_type_parameters)]
            const fn instance<$t: Element, $u: Element>(name: &'static str) -> Kernel<Arguments> {
                Kernel::new(name, $file, || {
                    let parameters: &[String] = &[$(<$type as Parameter>::spell()),*];
                    parameters.join(", ")
                })
            }

            pub const INSTANCES: &[(DType, DType, Kernel<Arguments>)] = $crate::kernel!(@$types $name);
        }
    };
    (@same $name:ident) => {
        &[
            (DType::F32, DType::F32, instance::<f32, f32>(concat!(stringify!($name), "_f32"))),
            (DType::Bf16, DType::Bf16, instance::<half::bf16, half::bf16>(concat!(stringify!($name), "_bf16"))),
        ]
    };
    (@all $name:ident) => {
        &[
            (DType::F32, DType::F32, instance::<f32, f32>(concat!(stringify!($name), "_f32"))),
            (DType::Bf16, DType::Bf16, instance::<half::bf16, half::bf16>(concat!(stringify!($name), "_bf16"))),
            (DType::Bf16, DType::F32, instance::<half::bf16, f32>(concat!(stringify!($name), "_bf16_f32"))),
            (DType::F32, DType::Bf16, instance::<f32, half::bf16>(concat!(stringify!($name), "_f32_bf16"))),
        ]
    };
}
