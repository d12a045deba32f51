//! A network with random weights and random pixels, ready to be run again and again: what `bench` and `profile` measure.

use crate::base::Precision;
use crate::error::{Error, Result};
use crate::exec::{Passes, Program, Session};
use crate::models::{Backbone, Freeze, Purpose, Spec};
use crate::ops::{Backend, Sgd};
use crate::report::bytes as size_of;
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
        let Workload { batch, size, mode, .. } = self;
        let mut program = self.compile(&device)?;
        self.check_room(&program, &device)?;
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

    /// Builds the program alone.
    ///
    /// # Errors
    /// A size below the backbone's minimum.
    pub fn compile<D: Backend>(self, device: &D) -> Result<Program<D>> {
        let Workload { backbone, mode, batch, size, .. } = self;
        let (purpose, freeze) = match mode {
            Mode::Train => (Purpose::Train, Freeze::None),
            Mode::Frozen => (Purpose::Train, Freeze::All),
            Mode::Infer => (Purpose::Infer, Freeze::All),
        };
        let model = Spec { batch, size, purpose, freeze, ..Spec::new(backbone, CLASSES) }.build()?;
        let graph = match mode {
            Mode::Infer => model.graph,
            _ => training_graph(&model, &Optimizer::Sgd(Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 }))?,
        };
        Program::compile(graph, device, Passes { precision: self.precision, ..Passes::default() })
    }

    /// Refuses a batch that a device with memory of its own has no room for, and names the largest that fits.
    fn check_room<D: Backend>(self, program: &Program<D>, device: &D) -> Result<()> {
        let planned = |program: &Program<D>| program.plan().bytes.iter().sum::<usize>() as u64;
        let wanted = planned(program);
        let Some(free) = device.free_memory().filter(|&free| wanted > free) else { return Ok(()) };
        let (mut fitting, mut failing) = (0, self.batch);
        while failing - fitting > 1 {
            let batch = fitting + (failing - fitting) / 2;
            let fits = planned(&Workload { batch, ..self }.compile(device)?) <= free;
            if fits { fitting = batch } else { failing = batch }
        }
        let what = format!("a batch of {} images needs {}, and {} are free", self.batch, size_of(wanted as usize), size_of(free));
        let advice = match fitting {
            0 => "not even one image fits: a smaller --input-size needs less".into(),
            _ => format!("the largest batch that fits is {fitting}"),
        };
        Err(Error::machine(what).at(device.describe()).advise(advice))
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
