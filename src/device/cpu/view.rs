//! Memory of the CPU device, and the matrices that ops see in it.
//!
//! A [`Src`] or [`Dst`] is a pointer with rows, columns and a pitch. Two of them may point into the same arena: that no
//! destination overlaps a source or another destination (but for an op that runs in place) is what the memory plan
//! proves before any call is made. That proof is the safety argument of every access here.

use super::mapping::Mapping;
use crate::device::{Operand, Write};
use std::marker::PhantomData;

/// One arena: zeroed pages, or a private copy-on-write map of a file.
pub struct Memory(Mapping);

impl Memory {
    /// Zeroed memory; a page costs nothing before it is touched.
    ///
    /// # Errors
    /// When the system has not that much.
    pub fn zeroed(bytes: usize) -> std::io::Result<Self> {
        Mapping::zeroed(bytes).map(Memory)
    }

    /// `bytes` bytes of a file from `offset` on, then zeros up to `size` bytes; pages never written stay the file cache's.
    ///
    /// # Errors
    /// See [`Mapping::new`].
    pub fn mapped(file: &std::fs::File, offset: usize, bytes: usize, size: usize) -> std::io::Result<Self> {
        Mapping::new(file, offset, bytes, size).map(Memory)
    }

    /// Bytes of the arena.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the arena has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn ptr(&self) -> *mut u8 {
        self.0.ptr()
    }

    /// The bytes, to be read by the host between runs.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `ptr` is valid for `len` bytes; no program runs while the host holds this borrow (it runs on `&mut`).
        unsafe { std::slice::from_raw_parts(self.ptr(), self.len()) }
    }

    /// The bytes, to be written by the host between runs.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(), self.len()) }
    }

    /// An operand of f32 as a matrix to read.
    pub fn src(&self, operand: &Operand) -> Src<'_> {
        let at = self.locate(operand);
        Src { ptr: at, rows: operand.ty.shape.rows(), cols: operand.ty.shape.cols(), pitch: operand.place.pitch, memory: PhantomData }
    }

    /// An operand of f32 as a matrix to write.
    pub fn dst(&self, operand: &Operand) -> Dst<'_> {
        let (rows, cols) = (operand.ty.shape.rows(), operand.ty.shape.cols());
        Dst { ptr: self.locate(operand), rows, cols, pitch: operand.place.pitch, write: operand.write, memory: PhantomData }
    }

    /// A run of `count` floats as a one-row matrix.
    pub fn floats(&self, offset: usize, count: usize) -> Dst<'_> {
        assert!(offset + 4 * count <= self.len(), "a buffer lies outside its arena");
        let ptr = self.ptr().wrapping_add(offset).cast();
        Dst { ptr, rows: 1, cols: count, pitch: count, write: Write::Set, memory: PhantomData }
    }

    fn locate(&self, operand: &Operand) -> *mut f32 {
        let (rows, cols, place) = (operand.ty.shape.rows(), operand.ty.shape.cols(), operand.place);
        let last = place.offset + 4 * (rows.saturating_sub(1) * place.pitch + cols);
        assert!(last <= self.len(), "an operand ends at byte {last} of an arena of {}", self.len());
        self.ptr().wrapping_add(place.offset).cast()
    }
}

/// A matrix of f32 to read: `rows` x `cols`, row `r` starting at `ptr + r * pitch`.
#[derive(Clone, Copy)]
pub struct Src<'a> {
    ptr: *const f32,
    pub rows: usize,
    pub cols: usize,
    pub pitch: usize,
    memory: PhantomData<&'a [f32]>,
}

// SAFETY: a `Src` only reads, and the plan keeps what it reads from being written meanwhile (see the module's text).
unsafe impl Send for Src<'_> {}
// SAFETY: as above.
unsafe impl Sync for Src<'_> {}

impl<'a> Src<'a> {
    /// A borrowed slice as a matrix, for tests and for buffers outside the arenas.
    pub fn of(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols);
        Src { ptr: data.as_ptr(), rows, cols, pitch: cols, memory: PhantomData }
    }

    /// The first element, for SIMD loops.
    pub fn ptr(&self) -> *const f32 {
        self.ptr
    }

    /// Some columns of the matrix.
    pub fn columns(&self, range: std::ops::Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.cols);
        Src { ptr: self.ptr.wrapping_add(range.start), cols: range.len(), ..*self }
    }

    /// Row `r`. Not for an op that runs in place: there a destination may be the same memory.
    pub fn row(&self, r: usize) -> &'a [f32] {
        assert!(r < self.rows);
        // SAFETY: `locate` checked that all rows lie in the arena; nothing writes them during the call (module's text).
        unsafe { std::slice::from_raw_parts(self.ptr.add(r * self.pitch), self.cols) }
    }

    /// Some rows of a matrix without gaps, as one slice.
    pub fn rows(&self, rows: std::ops::Range<usize>) -> &'a [f32] {
        &self.flat()[rows.start * self.cols..rows.end * self.cols]
    }

    /// All elements of a matrix without gaps between its rows.
    ///
    /// # Panics
    /// If the rows have gaps: only activations do, never parameters or vectors.
    pub fn flat(&self) -> &'a [f32] {
        assert!(self.rows <= 1 || self.pitch == self.cols, "a matrix with gaps is not flat");
        // SAFETY: as for `row`.
        unsafe { std::slice::from_raw_parts(self.ptr, self.rows * self.cols) }
    }
}

/// A matrix of f32 to write, with whether to set or to add.
#[derive(Clone, Copy)]
pub struct Dst<'a> {
    ptr: *mut f32,
    pub rows: usize,
    pub cols: usize,
    pub pitch: usize,
    pub write: Write,
    memory: PhantomData<&'a mut [f32]>,
}

// SAFETY: threads write disjoint rows or columns of a `Dst`; each parallel loop says which (see `Pool`).
unsafe impl Send for Dst<'_> {}
// SAFETY: as above.
unsafe impl Sync for Dst<'_> {}

impl<'a> Dst<'a> {
    /// A borrowed slice as a matrix, for tests and for buffers outside the arenas.
    pub fn of(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols);
        Dst { ptr: data.as_mut_ptr(), rows, cols, pitch: cols, write: Write::Set, memory: PhantomData }
    }

    /// The same matrix written the other way.
    pub fn with(self, write: Write) -> Self {
        Dst { write, ..self }
    }

    /// The first element, for SIMD loops.
    pub fn ptr(&self) -> *mut f32 {
        self.ptr
    }

    /// Whether results are added to what lies there.
    pub fn adds(&self) -> bool {
        self.write == Write::Add
    }

    /// Row `r`, to be written.
    ///
    /// # Safety
    /// No other reference to the row may be alive: each row belongs to one thread of a parallel loop, and the op does
    /// not run in place.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn row(&self, r: usize) -> &'a mut [f32] {
        assert!(r < self.rows);
        // SAFETY: `locate` checked that all rows lie in the arena; exclusivity is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(r * self.pitch), self.cols) }
    }

    /// All elements of a matrix without gaps, to be written by one thread.
    ///
    /// # Safety
    /// As for [`Dst::row`], for all rows at once.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn flat(&self) -> &'a mut [f32] {
        assert!(self.rows <= 1 || self.pitch == self.cols, "a matrix with gaps is not flat");
        // SAFETY: as for `row`.
        unsafe { std::slice::from_raw_parts_mut(self.ptr, self.rows * self.cols) }
    }

    /// Some elements of a buffer (a matrix of one row), as a buffer.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Dst<'a> {
        assert!(self.rows == 1 && range.start <= range.end && range.end <= self.cols);
        Dst { ptr: self.ptr.wrapping_add(range.start), cols: range.len(), pitch: range.len(), ..*self }
    }

    /// Some elements of a buffer (a matrix of one row), to be written by one thread.
    ///
    /// # Safety
    /// As for [`Dst::row`], for these elements.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, range: std::ops::Range<usize>) -> &'a mut [f32] {
        // SAFETY: `slice` checks that the range lies in the buffer; exclusivity is the caller's promise.
        unsafe { self.slice(range).flat() }
    }

    /// The same memory, to be read back.
    pub fn src(&self) -> Src<'a> {
        Src { ptr: self.ptr, rows: self.rows, cols: self.cols, pitch: self.pitch, memory: PhantomData }
    }
}

/// Writes one float, or adds it: the scalar end of every destination.
///
/// # Safety
/// `at` must be a valid element that no other thread touches.
#[inline(always)]
pub unsafe fn put(at: *mut f32, value: f32, add: bool) {
    // SAFETY: the caller's promise.
    unsafe { *at = if add { *at + value } else { value } }
}
