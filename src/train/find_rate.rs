//! A sweep over learning rates on the images and the network that a run would have.

use super::events::{Event, Listener, go_on};
use super::settings::Settings;
use super::setup::Setup;
use super::sweep::Sweep;
use crate::error::Result;
use crate::ops::Backend;

/// Takes a step at each rate of `sweep`, in the order in which a run would see the images, until it ends or training falls apart.
/// Nothing is written.
///
/// # Errors
/// As [`train`](super::train), before its first step.
pub fn find_rate<D: Backend>(device: D, settings: &Settings, mut sweep: Sweep, listener: &dyn Listener) -> Result<Sweep> {
    let mut setup = Setup::new(device, settings, None, listener)?;
    setup.announce()?;
    setup.enter(1)?;
    for epoch in 1.. {
        let (mut feed, mut left) = setup.feed(epoch, 0)?;
        while let Some(lr) = sweep.next().filter(|_| left > 0) {
            let images = left.min(settings.images_per_step());
            let took = setup.step(&mut feed, images, lr)?;
            left -= images;
            let more = sweep.note(took.loss);
            listener.on(Event::Trial { done: sweep.trials.len(), total: sweep.steps(), lr, loss: took.loss })?;
            go_on(listener)?;
            if !more {
                return Ok(sweep);
            }
        }
        if sweep.next().is_none() {
            break;
        }
    }
    Ok(sweep)
}
