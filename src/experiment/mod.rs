//! Whole experiments: the article's comparison of frozen with unfrozen backbones, and the demo.

pub mod compare;
pub mod draw;
mod page;
