//! Training: a graph with its backward pass and optimizer, a loop that emits events, and the files of a run.

pub mod inference;
pub mod metrics;
pub mod opened;
pub mod step;

pub use inference::{Inference, fill};
pub use metrics::Metrics;
pub use opened::{Opened, Outputs};
pub use step::{Optimizer, training_graph};
