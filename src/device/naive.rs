//! The specification: plain f64 arrays.
//!
//! An op's `naive.rs` reads its inputs as dense owned [`Array`]s, computes with plain loops, and hands results back;
//! pitch, [`Write::Add`] and aliasing are settled here once, so that no naive op can get them wrong or depend on them.

use super::{Call, Device, Fusible, Operand, Write};
use crate::base::{DType, Precision, Shape};
use crate::error::Result;
use std::cell::RefCell;
use std::ops::{Index, IndexMut};

/// The f64 device. It holds no state of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Naive;

impl Device for Naive {
    type Memory = RefCell<Vec<f64>>;
    type Recording = ();

    fn describe(&self) -> String {
        "naive (f64 loops, one thread)".into()
    }

    fn fuses(&self) -> Fusible {
        Fusible::ALL
    }

    fn float(&self) -> DType {
        DType::F64
    }

    fn stores_half(&self) -> bool {
        false
    }

    fn precisions(&self) -> &'static [Precision] {
        &[Precision::F64]
    }

    fn alloc(&self, bytes: usize) -> Result<Self::Memory> {
        Ok(RefCell::new(vec![0.0; bytes.div_ceil(8)]))
    }

    fn size(&self, memory: &Self::Memory) -> usize {
        memory.borrow().len() * 8
    }

    fn write(&self, memory: &mut Self::Memory, offset: usize, bytes: &[u8]) {
        bytemuck::cast_slice_mut::<f64, u8>(memory.get_mut())[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn read(&self, memory: &Self::Memory, offset: usize, bytes: &mut [u8]) {
        bytes.copy_from_slice(&bytemuck::cast_slice::<f64, u8>(&memory.borrow())[offset..offset + bytes.len()]);
    }
}

/// A dense array of f64 in row-major order, indexed by as many coordinates as it has axes (or as a flat list).
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: Shape,
    pub data: Vec<f64>,
}

impl Array {
    /// An array of zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Array { data: vec![0.0; shape.len()], shape }
    }

    /// The same elements passed through `f`.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Array { shape: self.shape, data: self.data.iter().map(|&x| f(x)).collect() }
    }

    /// The four axes of an activation or a kernel.
    ///
    /// # Panics
    /// If the array has another rank; shape inference has ruled that out before anything runs.
    pub fn four(&self) -> [usize; 4] {
        self.shape.four().expect("shape inference admits four axes here")
    }
}

impl Index<usize> for Array {
    type Output = f64;
    fn index(&self, i: usize) -> &f64 {
        &self.data[i]
    }
}

impl IndexMut<usize> for Array {
    fn index_mut(&mut self, i: usize) -> &mut f64 {
        &mut self.data[i]
    }
}

fn flat<const N: usize>(shape: &Shape, at: [usize; N]) -> usize {
    debug_assert_eq!(shape.rank(), N);
    at.iter().zip(shape.dims()).fold(0, |flat, (&i, &d)| {
        debug_assert!(i < d, "index {at:?} lies outside {shape}");
        flat * d + i
    })
}

impl<const N: usize> Index<[usize; N]> for Array {
    type Output = f64;
    fn index(&self, at: [usize; N]) -> &f64 {
        &self.data[flat(&self.shape, at)]
    }
}

impl<const N: usize> IndexMut<[usize; N]> for Array {
    fn index_mut(&mut self, at: [usize; N]) -> &mut f64 {
        let i = flat(&self.shape, at);
        &mut self.data[i]
    }
}

impl Call<'_, Naive> {
    /// Input `i`, as a dense copy.
    pub fn input(&self, i: usize) -> Array {
        let Operand { ty, place, .. } = self.ins[i];
        let memory = self.arenas.get(place.arena).borrow();
        let (first, cols) = (place.offset / 8, ty.shape.cols());
        let rows = (0..ty.shape.rows()).flat_map(|r| &memory[first + r * place.pitch..][..cols]);
        Array { shape: ty.shape, data: rows.copied().collect() }
    }

    /// The shape of result `i`.
    pub fn shape(&self, i: usize) -> Shape {
        self.outs[i].ty.shape
    }

    /// Writes result `i`, or adds it to what lies there, as the plan says.
    pub fn output(&self, i: usize, array: Array) {
        let Operand { ty, place, write } = self.outs[i];
        assert_eq!(ty.shape, array.shape, "a naive op returned another shape than it inferred");
        let mut memory = self.arenas.get(place.arena).borrow_mut();
        for (r, row) in array.data.chunks(ty.shape.cols()).enumerate() {
            let target = &mut memory[place.offset / 8 + r * place.pitch..][..row.len()];
            for (t, &x) in target.iter_mut().zip(row) {
                *t = if write == Write::Add { *t + x } else { x };
            }
        }
    }
}
