//! The vocabulary of the engine: shapes, window geometry, number types, values.
//!
//! [`Geom`] is the only place in the crate where an output size or a padding is computed; everything that walks a
//! window (convolution, pooling) receives one ready-made.

mod dtype;
mod geom;
mod precision;
mod shape;

pub use dtype::{DType, Math};
pub use geom::{Geom, Padding, Window};
pub use precision::Precision;
pub use shape::Shape;

use std::fmt;

/// A value of a graph: the index of a row's result, an input, a parameter or a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Val(pub u32);

impl Val {
    /// The value's row in the graph's table of values.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Val {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// The type of a value: its shape and the number type of its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ty {
    pub shape: Shape,
    pub dtype: DType,
}

impl Ty {
    /// A value of `f32`, the type every model is written in before the precision pass.
    pub fn f32(shape: impl Into<Shape>) -> Self {
        Ty { shape: shape.into(), dtype: DType::F32 }
    }

    /// The same number type with another shape.
    pub fn with(self, shape: impl Into<Shape>) -> Self {
        Ty { shape: shape.into(), ..self }
    }

    /// Bytes of the elements, without any padding between rows.
    pub fn bytes(self) -> usize {
        self.shape.len() * self.dtype.size()
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.dtype, self.shape)
    }
}
