//! The order in which Keras lists the layers of a model, and with them the weights in its files.
//!
//! Keras sorts by decreasing depth, the length of the longest path to the output, and breaks ties by the first visit of
//! a depth-first walk from the output through the inputs in call order (`map_graph` in `keras/src/ops/function.py`). For a
//! chain that is the order of creation; for InceptionV3 it interleaves the branches.

/// The positions of the layers in Keras's order; `inputs[i]` are the layers that layer `i` reads, in call order.
/// Layers that the output does not need are left out, as Keras leaves them out.
pub fn keras_order(inputs: &[Vec<usize>], output: usize) -> Vec<usize> {
    let mut walk = Walk { inputs, visit: vec![None; inputs.len()], visits: 0, finished: Vec::new() };
    walk.from(output);
    // Sources finish first, so that in reverse every layer comes after all of its readers.
    let mut depth = vec![0; inputs.len()];
    for &layer in walk.finished.iter().rev() {
        for &source in &inputs[layer] {
            depth[source] = depth[source].max(depth[layer] + 1);
        }
    }
    let mut order = walk.finished;
    order.sort_by_key(|&layer| (std::cmp::Reverse(depth[layer]), walk.visit[layer]));
    order
}

struct Walk<'a> {
    inputs: &'a [Vec<usize>],
    /// The number of the first visit.
    visit: Vec<Option<usize>>,
    visits: usize,
    finished: Vec<usize>,
}

impl Walk<'_> {
    fn from(&mut self, layer: usize) {
        if self.visit[layer].is_some() {
            return;
        }
        self.visit[layer] = Some(self.visits);
        self.visits += 1;
        let inputs = self.inputs;
        inputs[layer].iter().for_each(|&source| self.from(source));
        self.finished.push(layer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_comes_first_and_ties_go_by_the_walk_from_the_output() {
        // 0 -> 1 -> 2 -> 5 (main path) and 0 -> 3 -> 5, 0 -> 4 -> 5: the short branches come late, in call order.
        let inputs = [vec![], vec![0], vec![1], vec![0], vec![0], vec![4, 2, 3]].map(|v| v.to_vec());
        assert_eq!(keras_order(&inputs, 5), [0, 1, 4, 2, 3, 5]);
    }

    #[test]
    fn layers_that_the_output_does_not_need_are_left_out() {
        let inputs = [vec![], vec![0], vec![0]];
        assert_eq!(keras_order(&inputs, 2), [0, 2]);
    }
}
