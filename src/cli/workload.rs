//! A network with random weights and random pixels, ready to be run again and again: what `bench` and `profile` measure.

use crate::base::Precision;
use crate::error::Result;
use crate::exec::{Passes, Program, Session};
use crate::models::{Backbone, Freeze, Purpose, Spec};
use crate::ops::{Backend, Sgd};
use crate::train::{Optimizer, fill, training_graph};
use clap::ValueEnum;

/// Classes of the head.
const CLASSES: usize = 8;
/// Of the weights and the pixels.
const SEED: u64 = 42;

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// One whole step: forward, backward, SGD
    Train,
    /// The frozen backbone's forward pass and one step of the head
    Frozen,
    /// The forward pass alone, batch norm folded into the convolutions
    Infer,
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub backbone: Backbone,
    pub mode: Mode,
    pub batch: usize,
    pub size: usize,
    pub precision: Precision,
}

impl Workload {
    /// Builds the program, fills weights and inputs. SGD's rate is so small that weights stay where they are.
    ///
    /// # Errors
    /// A size below the backbone's minimum, or not enough memory.
    pub fn prepare<D: Backend>(self, device: D) -> Result<(Session<D>, Program<D>)> {
        let Workload { backbone, mode, batch, size, precision } = self;
        let (purpose, freeze) = match mode {
            Mode::Train => (Purpose::Train, Freeze::None),
            Mode::Frozen => (Purpose::Train, Freeze::All),
            Mode::Infer => (Purpose::Infer, Freeze::None),
        };
        let model = Spec { batch, size, purpose, freeze, ..Spec::new(backbone, CLASSES) }.build()?;
        let graph = match mode {
            Mode::Infer => model.graph,
            _ => training_graph(&model, &Optimizer::Sgd(Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 }))?,
        };
        let mut program = Program::compile(graph, &device, Passes { precision, ..Passes::default() })?;
        let mut session = Session::new(device)?;
        session.reserve(&program)?;
        fill(&mut session, &program, None, SEED)?;
        let mut inputs = vec![("pixels", pixels(batch * size * size * 3))];
        if mode != Mode::Infer {
            let one_hot = (0..batch * CLASSES).map(|i| f32::from(u8::from(i % CLASSES == i / CLASSES % CLASSES)));
            inputs.extend([("targets", one_hot.collect()), ("weights", vec![1.0; batch]), ("knobs", vec![1e-6, 1.0, 0.0, 0.0])]);
        }
        let inputs: Vec<(&str, &[f32])> = inputs.iter().map(|(name, data)| (*name, data.as_slice())).collect();
        session.run(&mut program, &inputs)?;
        Ok((session, program))
    }
}

/// Whole numbers in 0..=255 from Knuth's 64-bit linear congruential generator.
fn pixels(count: usize) -> Vec<f32> {
    let mut state = SEED;
    let mut next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        f32::from((state >> 56) as u8)
    };
    (0..count).map(&mut next).collect()
}
