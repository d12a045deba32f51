use super::{BiasAdd, ColumnSum};
use crate::base::Ty;
use crate::device::Call;
use crate::device::cpu::Cpu;
use crate::device::cpu::columns::{Stream, Terms, add_rows, row_sums, row_sums_scratch, rows_per_share};
use crate::device::cpu::simd::Vector;
use crate::ops::Run;
use crate::simd;

/// The terms of a column's sum: its elements.
#[derive(Clone, Copy)]
struct Elements(Stream);

impl Terms<1> for Elements {
    #[inline(always)]
    unsafe fn add<V: Vector>(self, r: usize, c: usize, n: usize, [sum]: [V; 1]) -> [V; 1] {
        // SAFETY: the caller's promise.
        unsafe { [sum.add(self.0.take(r, c, n))] }
    }
}

simd! {
    /// y (+)= x + b over `rows` x `cols`; `y` may be `x`.
    unsafe fn add_bias<V>(x: (*const f32, usize), b: *const f32, y: (*mut f32, usize), rows: usize, cols: usize, add: bool) {
        for r in 0..rows {
            for c in (0..cols).step_by(V::N) {
                let n = V::N.min(cols - c);
                V::take(x.0.add(r * x.1 + c), n).add(V::take(b.add(c), n)).put(y.0.add(r * y.1 + c), n, add);
            }
        }
    }

    /// sum[c] += sum of x over `rows` x `cols`.
    unsafe fn sum_rows<V>(x: *const f32, pitch: usize, rows: usize, cols: usize, sum: *mut f32) {
        add_rows::<V, 1>(Elements(Stream::new((x, pitch), cols)), rows, cols, [sum]);
    }
}

impl Run<Cpu> for BiasAdd {
    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x, b, y) = (call.device, call.src(0), call.src(1), call.dst(0));
        cpu.pool.ranges(y.rows, rows_per_share(y.cols), |rows| {
            // SAFETY: these rows belong to this thread, `b` has `cols` elements; an element is read before it is written,
            // so `y` may be `x`.
            unsafe {
                let from = (x.ptr().add(rows.start * x.pitch), x.pitch);
                let to = (y.ptr().add(rows.start * y.pitch), y.pitch);
                add_bias(cpu.isa, from, b.ptr(), to, rows.len(), y.cols, y.adds());
            }
        });
    }
}

impl Run<Cpu> for ColumnSum {
    fn scratch(&self, _: &Cpu, ins: &[Ty], _: &[Ty]) -> usize {
        row_sums_scratch(ins[0].shape.rows(), ins[0].shape.cols(), 1, 0)
    }

    fn run(&self, call: &Call<'_, Cpu>) {
        let (cpu, x) = (call.device, call.src(0));
        row_sums(cpu, x.rows, call.scratch(), [call.dst(0)], |rows, total| {
            // SAFETY: the rows lie in `x`, and the sum has `cols` elements.
            unsafe { sum_rows(cpu.isa, x.ptr().add(rows.start * x.pitch), x.pitch, rows.len(), x.cols, total.as_mut_ptr()) }
        });
    }
}
