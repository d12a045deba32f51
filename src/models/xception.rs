//! Xception: Chollet, *Xception: Deep Learning with Depthwise Separable Convolutions*, 2016, figure 5, without the
//! classifier. 20,861,480 parameters.

use super::layers::{AUTO, Net, Tensor};
use crate::base::Window;

/// `[n, s, s, 3]` to `[n, s/32, s/32, 2048]` (rounded up from the third layer on).
pub fn xception(n: &mut Net, images: Tensor) -> Tensor {
    // Entry flow.
    let x = conv_bn_relu(n, "block1_conv1", images, 32, Window::valid(3, 2));
    let x = conv_bn_relu(n, "block1_conv2", x, 64, Window::valid(3, 1));
    let x = down(n, 2, x, [128, 128], false);
    let x = down(n, 3, x, [256, 256], true);
    let mut x = down(n, 4, x, [728, 728], true);

    // Middle flow.
    for block in 5..=12 {
        let residual = x;
        for conv in 1..=3 {
            let name = format!("block{block}_sepconv{conv}");
            x = n.relu(&format!("{name}_act"), x);
            x = separable_bn(n, &name, x, 728);
        }
        x = n.add(AUTO, &[x, residual]);
    }

    // Exit flow.
    let mut x = down(n, 13, x, [728, 1024], true);
    for (name, filters) in [("block14_sepconv1", 1536), ("block14_sepconv2", 2048)] {
        x = separable_bn(n, name, x, filters);
        x = n.relu(&format!("{name}_act"), x);
    }
    x
}

/// Two separable convolutions and a stride-2 pool, beside a stride-2 1x1 shortcut. Block 2 follows a ReLU and has none in
/// front of its first convolution.
fn down(n: &mut Net, block: usize, x: Tensor, filters: [usize; 2], leading_relu: bool) -> Tensor {
    let residual = n.conv(AUTO, x, filters[1], Window::same(1, 2));
    let residual = n.batch_norm(AUTO, residual);
    let mut x = x;
    for (conv, filters) in (1..).zip(filters) {
        let name = format!("block{block}_sepconv{conv}");
        if conv > 1 || leading_relu {
            x = n.relu(&format!("{name}_act"), x);
        }
        x = separable_bn(n, &name, x, filters);
    }
    let window = if n.profile.symmetric_pools { Window::padded(3, 2, 1) } else { Window::same(3, 2) };
    let x = n.max_pool(&format!("block{block}_pool"), x, window);
    n.add(AUTO, &[x, residual])
}

fn conv_bn_relu(n: &mut Net, name: &str, x: Tensor, filters: usize, window: Window) -> Tensor {
    let x = n.conv(name, x, filters, window);
    let x = n.batch_norm(&format!("{name}_bn"), x);
    n.relu(&format!("{name}_act"), x)
}

fn separable_bn(n: &mut Net, name: &str, x: Tensor, filters: usize) -> Tensor {
    let x = n.separable_conv(name, x, filters, Window::same(3, 1));
    n.batch_norm(&format!("{name}_bn"), x)
}
