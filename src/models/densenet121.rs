//! DenseNet121: Huang et al., *Densely Connected Convolutional Networks*, 2016, table 1, growth rate 32, compression 1/2,
//! without the classifier. 7,037,504 parameters.

use super::layers::{AUTO, Net, Tensor};
use crate::base::Window;

const GROWTH: usize = 32;
const LAYERS: [usize; 4] = [6, 12, 24, 16];

/// `[n, s, s, 3]` to `[n, s/32, s/32, 1024]`.
pub fn densenet121(n: &mut Net, images: Tensor) -> Tensor {
    let x = n.zero_pad(AUTO, images, 3);
    let x = n.conv("conv1_conv", x, 64, Window::valid(7, 2));
    let x = n.batch_norm("conv1_bn", x);
    let x = n.relu("conv1_relu", x);
    let x = n.zero_pad(AUTO, x, 1);
    let mut x = n.max_pool("pool1", x, Window::valid(3, 2));

    for (stage, layers) in (2..).zip(LAYERS) {
        for layer in 1..=layers {
            x = dense_layer(n, &format!("conv{stage}_block{layer}"), x);
        }
        if stage < 5 {
            x = transition(n, &format!("pool{stage}"), x);
        }
    }

    let x = n.batch_norm("bn", x);
    n.relu("relu", x)
}

/// Adds `GROWTH` channels to all that came before: a 1x1 bottleneck, then 3x3.
fn dense_layer(n: &mut Net, name: &str, x: Tensor) -> Tensor {
    let y = n.batch_norm(&format!("{name}_0_bn"), x);
    let y = n.relu(&format!("{name}_0_relu"), y);
    let y = n.conv(&format!("{name}_1_conv"), y, 4 * GROWTH, Window::valid(1, 1));
    let y = n.batch_norm(&format!("{name}_1_bn"), y);
    let y = n.relu(&format!("{name}_1_relu"), y);
    let y = n.conv(&format!("{name}_2_conv"), y, GROWTH, Window::same(3, 1));
    n.concat(&format!("{name}_concat"), &[x, y])
}

/// Half the channels, half the size.
fn transition(n: &mut Net, name: &str, x: Tensor) -> Tensor {
    let channels = n.shape(x).cols() / 2;
    let x = n.batch_norm(&format!("{name}_bn"), x);
    let x = n.relu(&format!("{name}_relu"), x);
    let x = n.conv(&format!("{name}_conv"), x, channels, Window::valid(1, 1));
    n.avg_pool(&format!("{name}_pool"), x, Window::valid(2, 2))
}
