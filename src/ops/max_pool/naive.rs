use super::{MaxPool, MaxPoolDx, geom};
use crate::base::Geom;
use crate::device::Call;
use crate::device::naive::{Array, Naive};
use crate::ops::Run;

/// The pixel that holds the first maximum of the window of output `(i, j)`, for image `n` and channel `c`.
fn first_maximum(x: &Array, geom: &Geom, [n, i, j, c]: [usize; 4]) -> [usize; 4] {
    let mut best = None;
    for p in 0..geom.kernel[0] {
        for q in 0..geom.kernel[1] {
            let (Some(row), Some(col)) = (geom.source(0, i, p), geom.source(1, j, q)) else { continue };
            let at = [n, row, col, c];
            if best.is_none_or(|best| x[at] > x[best]) {
                best = Some(at);
            }
        }
    }
    best.expect("shape inference refuses windows without a pixel")
}

/// The coordinates of every element of a result.
fn elements([images, height, width, channels]: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    let count = images * height * width * channels;
    (0..count).map(move |e| [e / channels / width / height, e / channels / width % height, e / channels % width, e % channels])
}

impl Run<Naive> for MaxPool {
    fn run(&self, call: &Call<'_, Naive>) {
        let x = call.input(0);
        let geom = geom(&self.window, x.shape);
        let mut y = Array::zeros(call.shape(0));
        for at in elements(y.four()) {
            y[at] = x[first_maximum(&x, &geom, at)];
        }
        call.output(0, y);
    }
}

impl Run<Naive> for MaxPoolDx {
    fn run(&self, call: &Call<'_, Naive>) {
        let (dy, x) = (call.input(0), call.input(1));
        let geom = geom(&self.window, x.shape);
        let mut dx = Array::zeros(x.shape);
        for at in elements(dy.four()) {
            dx[first_maximum(&x, &geom, at)] += dy[at];
        }
        call.output(0, dx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Window;

    #[test]
    fn the_first_of_equal_maxima_wins_and_padding_never_does() {
        let geom = Window::padded(2, 2, 1).on(3, 3).unwrap();
        let x = Array { shape: [1, 3, 3, 1].into(), data: vec![-5.0, -2.0, -2.0, -3.0, -1.0, -1.0, -3.0, -1.0, -1.0] };
        assert_eq!(first_maximum(&x, &geom, [0, 0, 0, 0]), [0, 0, 0, 0]);
        assert_eq!(first_maximum(&x, &geom, [0, 0, 1, 0]), [0, 0, 1, 0]);
        assert_eq!(first_maximum(&x, &geom, [0, 1, 0, 0]), [0, 1, 0, 0]);
        assert_eq!(first_maximum(&x, &geom, [0, 1, 1, 0]), [0, 1, 1, 0]);
    }
}
