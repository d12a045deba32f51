//! Equality to the bit: between two runs, between an image alone and in its batch, and between chips of one kind.

use super::draw::inputs;
use super::run::{Fault, How, Mode, Typed, execute};
use super::{Row, title};
use crate::base::Shape;
use crate::device::naive::Array;
use crate::error::Result;
use crate::ops::{Backend, Case};

/// Runs a case twice, and each image of its batch by itself.
pub fn check<D: Backend>(case: &Case, device: &D, how: How) -> Result<Vec<Row>> {
    if !device.fuses().covers(case.op.needs()) {
        return Ok(Vec::new()); // fusion makes no such row for this device
    }
    let ins = inputs(case);
    let Some(whole) = results(case, device, how, &ins)? else { return Ok(Vec::new()) };
    let row = |check: &str, equal: bool| {
        let fault = (!equal).then(|| "the bits differ".to_string());
        Row { case: title(case), check: check.into(), share: 0.0, fault }
    };
    let mut rows = vec![row("same bits in every run", results(case, device, how, &ins)?.as_ref() == Some(&whole))];
    let images = case.ins.first().map_or(0, |shape| shape.dims()[0]);
    // Forward ops on activations; an op whose result has no axis of images (statistics, a filter's gradient) mixes them.
    let forward = case.varied.first() == Some(&true) && case.ins[0].rank() == 4 && whole[0].shape.dims()[0] == images;
    if forward && images > 1 {
        let alone = (0..images).map(|i| {
            let batched = |k: usize| ins[k].shape.rank() == 4 && ins[k].shape.dims()[0] == images && !case.op.weights().contains(&k);
            let one: Vec<Array> = (0..ins.len()).map(|k| if batched(k) { image(&ins[k], i) } else { ins[k].clone() }).collect();
            Ok(results(case, device, how, &one)?.is_some_and(|y| y[0].data == image(&whole[0], i).data))
        });
        rows.push(row("same bits for an image alone and in a batch", alone.collect::<Result<Vec<bool>>>()?.iter().all(|&same| same)));
    }
    Ok(rows)
}

/// Runs a case on two devices that differ in what bits must not depend on.
pub fn across<D: Backend>(case: &Case, what: &str, devices: [&D; 2], how: How) -> Result<Vec<Row>> {
    if !devices[0].fuses().covers(case.op.needs()) {
        return Ok(Vec::new());
    }
    let ins = inputs(case);
    let [Some(one), Some(other)] = [results(case, devices[0], how, &ins)?, results(case, devices[1], how, &ins)?] else {
        return Ok(Vec::new());
    };
    let fault = (one != other).then(|| "the bits differ".to_string());
    Ok(vec![Row { case: title(case), check: format!("same bits {what}"), share: 0.0, fault }])
}

fn results<D: Backend>(case: &Case, device: &D, how: How, ins: &[Array]) -> Result<Option<Vec<Array>>> {
    let Ok(Some(typed)) = Typed::of(&case.op, ins, how.precision, device.stores_half()) else { return Ok(None) };
    let blank: Vec<Array> = typed.outs.iter().map(|ty| Array::zeros(ty.shape)).collect();
    Ok(execute(device, &typed, ins, &blank, Mode::Set, how.layout, Fault::None)?.ok())
}

/// Image `i` of a batch, as a batch of one.
fn image(batch: &Array, i: usize) -> Array {
    let mut dims = batch.shape.dims().to_vec();
    let part = batch.data.len() / dims[0];
    dims[0] = 1;
    Array { shape: Shape::new(&dims), data: batch.data[i * part..][..part].to_vec() }
}
