//! The four backbones as Keras Applications defines them, and a head for one's own classes.
//!
//! A backbone is one function over the layer calls of [`Net`], to be read beside the figure of its paper. [`Spec`] says what
//! to build, [`Spec::build`] gives a [`Model`]: an unfused graph, and the list of layers in the order, and with the names,
//! shapes and weights, that Keras would print. Nothing here knows about devices, files or training.

mod backbone;
mod batch_norm;
mod densenet121;
pub mod export;
mod head;
pub mod import;
mod inception_v3;
mod layers;
mod model;
mod near;
mod order;
mod spec;
mod vgg16;
mod xception;

pub use backbone::Backbone;
pub use head::Hidden;
pub use layers::{AUTO, Frozen, Kind, Layer, Net, NormSettings, Tensor};
pub use model::Model;
pub use near::{did_you_mean, near};
pub use order::keras_order;
pub use spec::{BatchNorm, Freeze, Purpose, Spec};
