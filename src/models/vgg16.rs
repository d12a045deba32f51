//! VGG16: Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*, 2014, table 1,
//! configuration D, without the fully connected layers. 14,714,688 parameters.

use super::layers::{Net, Tensor};
use crate::base::Window;

/// Convolutions and filters of each block.
const BLOCKS: [(usize, usize); 5] = [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)];

/// `[n, s, s, 3]` to `[n, s/32, s/32, 512]`.
pub fn vgg16(n: &mut Net, images: Tensor) -> Tensor {
    let mut x = images;
    for (block, (convs, filters)) in (1..).zip(BLOCKS) {
        for conv in 1..=convs {
            x = n.conv_relu(&format!("block{block}_conv{conv}"), x, filters, Window::same(3, 1));
        }
        x = n.max_pool(&format!("block{block}_pool"), x, Window::valid(2, 2));
    }
    x
}
