//! InceptionV3: Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, 2015, table 1 and figures 4
//! to 7, as Keras Applications defines it, without the classifier. 21,802,784 parameters.

use super::layers::{AUTO, Net, Tensor};
use crate::base::Window;

const POINT: Window = Window { kernel: [1, 1], stride: [1, 1], padding: crate::base::Padding::Same };

/// `[n, s, s, 3]` to `[n, 8, 8, 2048]` at s = 299.
pub fn inception_v3(n: &mut Net, images: Tensor) -> Tensor {
    // Stem.
    let x = unit(n, images, 32, Window::valid(3, 2));
    let x = unit(n, x, 32, Window::valid(3, 1));
    let x = unit(n, x, 64, Window::same(3, 1));
    let x = n.max_pool(AUTO, x, Window::valid(3, 2));
    let x = unit(n, x, 80, Window::valid(1, 1));
    let x = unit(n, x, 192, Window::valid(3, 1));
    let mut x = n.max_pool(AUTO, x, Window::valid(3, 2));

    for (name, pooled) in [("mixed0", 32), ("mixed1", 64), ("mixed2", 64)] {
        x = five_by_five(n, name, x, pooled);
    }
    x = reduce_to_17(n, "mixed3", x);
    for (name, inner) in [("mixed4", 128), ("mixed5", 160), ("mixed6", 160), ("mixed7", 192)] {
        x = seven_by_seven(n, name, x, inner);
    }
    x = reduce_to_8(n, "mixed8", x);
    for (name, inner_name) in [("mixed9", "mixed9_0"), ("mixed10", "mixed9_1")] {
        x = expanded(n, name, inner_name, x);
    }
    x
}

/// 35x35 block: 1x1, 5x5, two 3x3, pool.
fn five_by_five(n: &mut Net, name: &str, x: Tensor, pooled: usize) -> Tensor {
    let one = unit(n, x, 64, POINT);
    let five = unit(n, x, 48, POINT);
    let five = unit(n, five, 64, Window::same(5, 1));
    let double = unit(n, x, 64, POINT);
    let double = unit(n, double, 96, Window::same(3, 1));
    let double = unit(n, double, 96, Window::same(3, 1));
    let pool = pool_unit(n, x, pooled);
    n.concat(name, &[one, five, double, pool])
}

/// 35x35 to 17x17.
fn reduce_to_17(n: &mut Net, name: &str, x: Tensor) -> Tensor {
    let three = unit(n, x, 384, Window::valid(3, 2));
    let double = unit(n, x, 64, POINT);
    let double = unit(n, double, 96, Window::same(3, 1));
    let double = unit(n, double, 96, Window::valid(3, 2));
    let pool = n.max_pool(AUTO, x, Window::valid(3, 2));
    n.concat(name, &[three, double, pool])
}

/// 17x17 block: 1x1, 7x7 as 1x7 and 7x1, two such 7x7, pool.
fn seven_by_seven(n: &mut Net, name: &str, x: Tensor, inner: usize) -> Tensor {
    let (wide, tall) = (Window::rect(1, 7), Window::rect(7, 1));
    let one = unit(n, x, 192, POINT);
    let seven = unit(n, x, inner, POINT);
    let seven = unit(n, seven, inner, wide);
    let seven = unit(n, seven, 192, tall);
    let double = unit(n, x, inner, POINT);
    let double = unit(n, double, inner, tall);
    let double = unit(n, double, inner, wide);
    let double = unit(n, double, inner, tall);
    let double = unit(n, double, 192, wide);
    let pool = pool_unit(n, x, 192);
    n.concat(name, &[one, seven, double, pool])
}

/// 17x17 to 8x8.
fn reduce_to_8(n: &mut Net, name: &str, x: Tensor) -> Tensor {
    let three = unit(n, x, 192, POINT);
    let three = unit(n, three, 320, Window::valid(3, 2));
    let seven = unit(n, x, 192, POINT);
    let seven = unit(n, seven, 192, Window::rect(1, 7));
    let seven = unit(n, seven, 192, Window::rect(7, 1));
    let seven = unit(n, seven, 192, Window::valid(3, 2));
    let pool = n.max_pool(AUTO, x, Window::valid(3, 2));
    n.concat(name, &[three, seven, pool])
}

/// 8x8 block: the 3x3 branches end in a 1x3 and a 3x1 side by side. Keras names the first of the two inner concats.
fn expanded(n: &mut Net, name: &str, inner_name: &str, x: Tensor) -> Tensor {
    let one = unit(n, x, 320, POINT);
    let three = unit(n, x, 384, POINT);
    let three = split(n, inner_name, three);
    let double = unit(n, x, 448, POINT);
    let double = unit(n, double, 384, Window::same(3, 1));
    let double = split(n, AUTO, double);
    let pool = pool_unit(n, x, 192);
    n.concat(name, &[one, three, double, pool])
}

fn split(n: &mut Net, name: &str, x: Tensor) -> Tensor {
    let wide = unit(n, x, 384, Window::rect(1, 3));
    let tall = unit(n, x, 384, Window::rect(3, 1));
    n.concat(name, &[wide, tall])
}

fn pool_unit(n: &mut Net, x: Tensor, filters: usize) -> Tensor {
    let pool = n.avg_pool(AUTO, x, Window::same(3, 1));
    unit(n, pool, filters, POINT)
}

/// Convolution, batch norm without gamma, ReLU: the network's only building stone.
fn unit(n: &mut Net, x: Tensor, filters: usize, window: Window) -> Tensor {
    let x = n.conv(AUTO, x, filters, window);
    let x = n.batch_norm_unscaled(AUTO, x);
    n.relu(AUTO, x)
}
