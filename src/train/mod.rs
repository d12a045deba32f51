//! Training: a graph with its backward pass and optimizer, a loop that emits events, and the files of a run.
//!
//! Reading order: [`step`] (one step as a graph), [`trainer`] (its programs), `fill` (its first weights), `collection` (its images), [`setup`] (what a run stands
//! on), [`run`] (the loop), [`keep`] (what an epoch leaves), [`folder`] (the files),
//! [`state`] and [`resume`] (a run taken up again); then [`opened`] (a model file in use) and [`gradcam`] (why it answers as it does).

pub mod class_weights;
mod collection;
mod diverged;
pub mod events;
pub mod features;
mod fill;
mod find_rate;
pub mod folder;
mod foresight;
pub mod gallery;
pub mod gradcam;
mod images;
pub mod inference;
mod keep;
mod learning;
pub mod opened;
mod pace;
pub mod position;
pub mod record;
pub mod report;
mod resident;
pub mod resume;
pub mod run;
pub mod schedule;
pub mod settings;
pub mod setup;
pub mod state;
pub mod step;
pub mod sweep;
pub mod tensorboard;
pub mod tfevents;
pub mod trainer;
pub mod validation;

pub use events::{Event, Listener};
pub use fill::{Filled, fill};
pub use find_rate::find_rate;
pub use gradcam::GradCam;
pub use inference::Inference;
pub use opened::{Opened, Outputs};
pub use run::{Resumed, Run, Summary, resume, train};
pub use settings::Settings;
pub use step::{Clip, Optimizer, gradient_graph, training_graph, with_update};
pub use trainer::Trainer;
