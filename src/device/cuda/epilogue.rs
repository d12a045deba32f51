//! The sums over rows that a product leaves in scratch memory beside its results; `kernels/epilogue.cuh` is the other side.
//!
//! Each block leaves a few numbers for every column and every [`ROWS`] rows of its tile. There are many such parts (a batch of large
//! pictures has thousands), so groups of them are added up before the last launch adds up the groups. Both cuts follow from the shape alone.

use super::columns::{FINISHED, Parts, finish, gather_sums};
use super::sheet::THREADS;
use super::{Call, Cuda, DevicePtr, Matrix};

/// Rows of a part: `PART` in epilogue.cuh.
pub const ROWS: usize = 64;

/// Parts that one launch adds up by itself for each of its blocks, and at most, sixteen for each of its threads; if there are more, half
/// as many make a group.
const FOR_A_BLOCK: usize = 64;
const AT_ONCE: usize = 512;

/// What a product leaves: its parts and their groups in scratch memory, one after the other.
#[derive(Clone, Copy)]
pub struct Left {
    pub parts: usize,
    /// The groups, and the parts in each.
    pub groups: Parts,
    cols: usize,
    /// Bytes of a column of a part and of a group.
    bytes: [usize; 2],
}

impl Left {
    /// Statistics of `rows` x `cols` results: three floats of each part, two doubles of each group.
    pub fn stats(rows: usize, cols: usize) -> Self {
        Self::new(rows.div_ceil(ROWS), cols, [12, 16])
    }

    /// Two sums of each column over `classes` matrices of at most `rows` x `cols` results: floats.
    pub fn sums(classes: usize, rows: usize, cols: usize) -> Self {
        Self::new(classes * rows.div_ceil(ROWS), cols, [8, 8])
    }

    fn new(parts: usize, cols: usize, bytes: [usize; 2]) -> Self {
        let at_once = (FOR_A_BLOCK * cols.div_ceil(FINISHED)).min(AT_ONCE);
        let each = if parts <= at_once { parts } else { at_once / 2 };
        let groups = Parts { count: parts.div_ceil(each), rows_each: each };
        Left { parts, groups, cols, bytes }
    }

    /// Bytes of scratch memory.
    pub fn bytes(&self) -> usize {
        let groups = if self.groups.count > 1 { self.groups.count * self.cols * self.bytes[1] } else { 0 };
        self.first_group() + groups
    }

    /// Where the groups begin, aligned for doubles.
    pub fn first_group(&self) -> usize {
        (self.parts * self.cols * self.bytes[0]).next_multiple_of(64)
    }

    /// Blocks of the launch that adds up the parts of each group.
    pub fn grid(&self, cols: usize) -> (usize, usize) {
        (cols.div_ceil(FINISHED), self.groups.count)
    }

    /// `outs[k] (+)= sum over the parts of partial[part, k]`, for two sums.
    pub fn finish_sums(&self, call: &Call<'_, Cuda>, partial: DevicePtr, outs: [Matrix; 2]) {
        let Parts { count, rows_each } = self.groups;
        if count == 1 {
            return finish(call, partial, Parts { count: self.parts, rows_each: 1 }, &outs);
        }
        let (group, both) = (partial.offset(self.first_group()), 2 * self.cols);
        call.launch(gather_sums, self.grid(both), THREADS, 0, (partial, self.parts as i32, both as i32, rows_each as i32, group));
        finish(call, group, self.groups, &outs);
    }
}
