//! The define-once tape: a table of values and a list of rows `{op, inputs, outputs, layer}`.
//!
//! A model is an ordinary function called once with a [`Builder`]; what it leaves behind is a [`Graph`]. Passes take a
//! graph and return a graph. Nothing here knows about devices or bytes.

mod build;
mod check;
mod graph;
mod show;

pub use build::Builder;
pub use check::check;
pub use graph::{Graph, Init, Node, Phase, Role, Value};
pub use show::{show, show_row};
