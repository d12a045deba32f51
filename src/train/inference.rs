//! Forward passes over many images: validation, `evaluate`, `predict`, cached features.

use super::features::Feed;
use crate::data::dataset::Dataset;
use crate::device::Arena;
use crate::error::Result;
use crate::exec::{Passes, Program, Session};
use crate::models::{Purpose, Spec};
use crate::ops::Backend;
use crate::pass::Fusions;
use std::collections::HashMap;
use std::sync::Arc;

/// The inference programs of one model, one per batch size, compiled when first needed.
pub struct Inference<D: Backend> {
    spec: Spec,
    passes: Passes,
    programs: HashMap<usize, Program<D>>,
    /// The head alone, by the number of feature rows.
    heads: HashMap<usize, Program<D>>,
}

impl<D: Backend> Inference<D> {
    /// Inference of the model that `spec` describes, whatever its purpose and batch size.
    pub fn new(spec: &Spec) -> Self {
        let spec = Spec { purpose: Purpose::Infer, ..spec.clone() };
        Inference { spec, passes: Passes::default(), programs: HashMap::new(), heads: HashMap::new() }
    }

    /// The program for batches of `batch` images.
    ///
    /// # Errors
    /// When the model cannot be built at this size.
    pub fn program(&mut self, device: &D, batch: usize) -> Result<&mut Program<D>> {
        if !self.programs.contains_key(&batch) {
            let program = self.compile(device, batch)?;
            self.programs.insert(batch, program);
        }
        Ok(self.programs.get_mut(&batch).expect("inserted above"))
    }

    /// The program for one image in which every row belongs to one layer.
    ///
    /// # Errors
    /// When the model cannot be built at this size.
    pub fn by_layer(&self, device: &D) -> Result<Program<D>> {
        let fusions = Fusions { group: false, ..self.passes.fusions };
        let graph = Spec { batch: 1, ..self.spec.clone() }.build()?.graph;
        Program::compile(graph, device, Passes { fusions, ..self.passes })
    }

    /// Bytes of each arena for batches of `batch` images.
    ///
    /// # Errors
    /// When the model cannot be built at this size.
    pub fn planned(&self, device: &D, batch: usize) -> Result<[usize; Arena::ALL.len()]> {
        match self.programs.get(&batch) {
            Some(program) => Ok(program.plan().bytes),
            None => Ok(self.compile(device, batch)?.plan().bytes),
        }
    }

    fn compile(&self, device: &D, batch: usize) -> Result<Program<D>> {
        let graph = Spec { batch, ..self.spec.clone() }.build()?.graph;
        Program::compile(graph, device, self.passes)
    }

    /// The output `name` (`features`, `logits`, `probabilities`) of one batch of pixels `[n, s, s, 3]`, row by row.
    ///
    /// # Errors
    /// When memory is short.
    pub fn batch(&mut self, session: &mut Session<D>, name: &str, pixels: &[f32]) -> Result<Vec<f64>> {
        let image = self.spec.size * self.spec.size * 3;
        let program = self.program(session.device(), pixels.len() / image)?;
        session.run(program, &[("pixels", pixels)])?;
        session.get(program, name)
    }

    /// The logits of features `[n, c]` that were computed before.
    ///
    /// # Errors
    /// When the model cannot be built, or memory is short.
    pub fn head(&mut self, session: &mut Session<D>, features: &[f64]) -> Result<Vec<f64>> {
        let batch = features.len() / self.spec.backbone.channels();
        if !self.heads.contains_key(&batch) {
            let mut graph = Spec { batch, ..self.spec.clone() }.build()?.graph;
            graph.cut("features")?;
            self.heads.insert(batch, Program::compile(graph, session.device(), self.passes)?);
        }
        let program = self.heads.get_mut(&batch).expect("inserted above");
        session.reserve(program)?;
        session.set(program, "features", features)?;
        session.replay(program, None)?;
        session.get(program, "logits")
    }

    /// The output `name` of the images `indices` of a data set, in their order, in batches of `batch`, as long as `watch` lets it.
    ///
    /// # Errors
    /// When memory is short; an interruption; what `watch` says.
    pub fn images(
        &mut self,
        session: &mut Session<D>,
        name: &str,
        data: &Arc<Dataset>,
        indices: &[usize],
        batch: usize,
        watch: Watch,
    ) -> Result<Vec<f64>> {
        let (mut rows, mut done) = (Vec::new(), 0);
        let mut feed = Feed::unchanged(session, data, indices.to_vec(), batch)?;
        while let Some(batch) = feed.next() {
            let images = batch.labels().len();
            let program = self.program(session.device(), images)?;
            session.reserve(program)?;
            session.feed(program, "pixels", batch.input())?;
            session.attempt(program, watch.go_on, |session, _| feed.send_ahead(session).map(|()| true))?;
            rows.extend(session.get(program, name)?);
            done += images;
            (watch.progress)(done)?;
            feed.reuse(batch);
        }
        Ok(rows)
    }
}

/// Who looks on while many images pass.
pub struct Watch<'a> {
    /// Asked before each row: whether the pass goes on.
    pub go_on: &'a dyn Fn() -> bool,
    /// Told how many images are done; an error ends the pass.
    pub progress: &'a mut dyn FnMut(usize) -> Result<()>,
}

#[cfg(test)]
mod tests {
    use super::super::fill::fill;
    use super::*;
    use crate::data::dataset::Options;
    use crate::data::listing::Listing;
    use crate::data::testing::{Folder, png};
    use crate::device::cpu::Cpu;
    use crate::error::{Error, Kind};
    use crate::models::Backbone;
    use std::cell::Cell;

    #[test]
    fn a_pass_ends_in_the_middle_of_a_batch_and_leaves_no_trace() {
        let f = Folder::new("inference-watch");
        (0..6u8).for_each(|i| f.write(&format!("{}/{i}.png", ["a", "b"][usize::from(i) % 2]), &png(2, 1, &[40 * i; 6])));
        let listing = Listing::read(f.path(), None).unwrap();
        let data = Arc::new(Dataset::load(&listing, None, &Options::keras(32), &|_, _| ()).unwrap());
        let mut inference = Inference::new(&Spec { size: 32, ..Spec::new(Backbone::Vgg16, 2) });
        let mut session = Session::new(Cpu::new(1).unwrap()).unwrap();
        fill(&mut session, inference.program(&Cpu::new(1).unwrap(), 4).unwrap(), None, 1).unwrap();
        // Rows before which the pass is asked, and batches that end.
        let mut pass = |rows: usize, batches: usize| {
            let (asked, mut told) = (Cell::new(0), 0);
            let go_on = || asked.replace(asked.get() + 1) < rows;
            let mut progress = |_| {
                told += 1;
                if told <= batches { Ok(()) } else { Err(Error::interrupted("between two batches")) }
            };
            let watch = Watch { go_on: &go_on, progress: &mut progress };
            inference.images(&mut session, "logits", &data, &[0, 1, 2, 3, 4, 5], 4, watch).map_err(|e| e.kind())
        };
        let whole = pass(usize::MAX, usize::MAX).unwrap();
        assert_eq!(whole.len(), 12);
        assert_eq!((pass(3, usize::MAX), pass(usize::MAX, 1)), (Err(Kind::Interrupted), Err(Kind::Interrupted)));
        assert_eq!(pass(usize::MAX, usize::MAX), Ok(whole));
    }
}
