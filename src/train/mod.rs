//! Training: a graph with its backward pass and optimizer, a loop that emits events, and the files of a run.
//!
//! Reading order: [`step`] (one step as a graph), [`trainer`] (its programs), [`run`] (the loop), [`folder`] (the files); then [`opened`] (a model
//! file in use) and [`metrics`].

pub mod folder;
pub mod inference;
pub mod metrics;
pub mod opened;
pub mod run;
pub mod settings;
pub mod step;
pub mod trainer;
pub mod validation;

pub use inference::{Inference, fill};
pub use metrics::Metrics;
pub use opened::{Opened, Outputs};
pub use run::{Event, Listener, Summary, train};
pub use settings::Settings;
pub use step::{Optimizer, training_graph};
pub use trainer::Trainer;
