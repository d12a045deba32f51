//! A small network made of a block of each backbone, trained for three steps: what single ops cannot show.
//!
//! Rows that write columns of a wider buffer, add to what others wrote, share memory that is free again and run in place meet
//! here as the memory plan has them meet. Three steps are enough for a device that records: the first runs row by row, the second
//! is recorded, the third replays.

use super::Row;
use super::draw::Random;
use crate::base::{DType, Padding, Precision, Val, Window};
use crate::device::Arena;
use crate::error::Result;
use crate::exec::{Passes, Program, Session};
use crate::ir::{Builder, Graph, Init, Phase};
use crate::ops::activation::Act;
use crate::ops::preprocess::Mode;
use crate::ops::sgd::KNOBS;
use crate::ops::{
    Activation, Add, AvgPool, Backend, BiasAdd, BnCoefficients, ChannelStats, Concat, Conv2d, CrossEntropy, Dense, Depthwise, Emit,
    GlobalAvgPool, MaxPool, MovingAverage, Preprocess, ScaleShift, Sgd,
};
use crate::pass::grad;
use crate::pass::plan::Step;
use std::time::Duration;

/// What the check is called.
pub const CASE: &str = "a network of four blocks, three steps";
const STEPS: usize = 3;
/// Images, height, width, colours: odd, so that every tile has an edge.
const IMAGES: [usize; 4] = [3, 21, 19, 3];
const CLASSES: usize = 3;
const POINT: Window = Window { kernel: [1, 1], stride: [1, 1], padding: Padding::Same };

/// What three steps left.
struct Trained {
    losses: Vec<f64>,
    weights: Vec<f64>,
}

/// Trains on a device and on another that is known to be right, and once more on the first, step by step with a clock between
/// the rows, so that nothing is recorded. Returns the device.
///
/// # Errors
/// When a machine has no memory.
pub fn check<D: Backend, E: Backend>(device: D, right: E, precision: Precision) -> Result<(D, Vec<Row>)> {
    let name = device.describe();
    let row = |check: &str, share: f64, fault: Option<String>| Row {
        case: CASE.into(),
        check: format!("{name} {precision} {check}"),
        share,
        fault,
    };
    let (expected, _) = train(right, Precision::F32, false)?;
    let (found, device) = match train(device, precision, false) {
        Ok(found) => found,
        Err(error) => return Err(error.at("the self-test's network")),
    };
    let [most, typical] = [4.0, 1.0].map(|deviations| budget(precision, deviations));
    // Against the largest loss, as in the op table against the largest result: it falls to a fifth, and its error does not.
    let largest = expected.losses.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let off = |(e, f): (&f64, &f64)| if f.is_finite() { (e - f).abs() / largest } else { f64::INFINITY };
    let losses = expected.losses.iter().zip(&found.losses).map(off).fold(0.0, f64::max);
    let mut rows = vec![row("losses", losses / most, None), row("weights", distance(&expected.weights, &found.weights) / typical, None)];
    let (again, device) = train(device, precision, true)?;
    let same = again.losses == found.losses && again.weights == found.weights;
    rows.push(row("replayed", 0.0, (!same).then(|| "a replayed step has other bits than its rows one by one".into())));
    Ok((device, rows))
}

/// Rounding errors of one layer (as the op table has them, for its longest sum) through the depth of the network and back, as a
/// random walk, for each of the steps; under a policy that rounds operands, that rounding too. The largest of some differences is held to
/// four standard deviations of a sum, as in the op table, a root mean square to one.
fn budget(precision: Precision, deviations: f64) -> f64 {
    let longest = IMAGES.iter().product::<usize>() as f64;
    let layers = 2.0 * 20.0;
    let operands = match precision {
        Precision::F64 | Precision::F32 => 0.0,
        Precision::Tf32 => 2f64.powi(-11),
        Precision::Bf16 => DType::Bf16.roundoff(),
    };
    (DType::F32.roundoff() * (8.0 + deviations * longest.sqrt()) + operands) * f64::sqrt(layers * STEPS as f64)
}

/// The root mean square of the differences against that of the numbers; infinite where something is not finite.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let (d, n) = a.iter().zip(b).fold((0.0, 0.0), |(d, n), (a, b)| (d + (a - b) * (a - b), n + a * a));
    if (d / n).is_finite() { f64::sqrt(d / n) } else { f64::INFINITY }
}

fn train<D: Backend>(device: D, precision: Precision, row_by_row: bool) -> Result<(Trained, D)> {
    let mut program = Program::compile(network()?, &device, Passes { precision, ..Passes::default() })?;
    let mut session = Session::new(device)?;
    session.reserve(&program)?;
    start(&mut session, &program)?;
    let mut losses = Vec::new();
    for step in 0..STEPS {
        session.set(&program, "knobs", &[0.1, (step + 1) as f64, 0.0, 0.0][..])?;
        let mut look = |_: &Step, _: Duration| {};
        session.replay(&mut program, if row_by_row { Some(&mut look) } else { None })?;
        losses.push(session.get(&program, "loss")?[0]);
    }
    let graph = program.graph();
    let mut weights = Vec::new();
    for &v in graph.params.iter().chain(&graph.states) {
        weights.extend(session.value(&program, v)?);
    }
    Ok((Trained { losses, weights }, session.into_device()))
}

/// Sets inputs and initial weights, rounded to f32 so that every device starts from the same.
fn start<D: Backend>(session: &mut Session<D>, program: &Program<D>) -> Result<()> {
    let mut random = Random(5);
    let graph = program.graph();
    for &v in graph.params.iter().chain(&graph.states) {
        let (name, shape) = (graph.name(v), graph.ty(v).shape);
        let (mean, deviation) = match name.rsplit('/').next() {
            Some("kernel") => (0.0, (2.0 / shape.rows() as f64).sqrt()),
            Some("gamma" | "moving_variance") => (1.0, 0.1),
            _ => (0.0, 0.1),
        };
        let values: Vec<f32> = (0..shape.len()).map(|_| (mean + deviation * random.normal()) as f32).collect();
        session.set(program, name, &values[..])?;
    }
    let pixels: Vec<f32> = (0..IMAGES.iter().product()).map(|_| (255.0 * random.uniform()) as f32).collect();
    let targets: Vec<f32> = (0..IMAGES[0] * CLASSES).map(|i| f32::from(u8::from(i % CLASSES == i / CLASSES))).collect();
    session.set(program, "pixels", &pixels[..])?;
    session.set(program, "targets", &targets[..])?;
    session.set(program, "weights", &[1f32; IMAGES[0]][..])
}

/// One whole step of the network: forward, backward, SGD with momentum.
fn network() -> Result<Graph> {
    let mut n = Net { b: Builder::new(), layers: 0 };
    let pixels = n.b.input("pixels", IMAGES);
    let x = n.b.op(Preprocess { mode: Mode::Caffe }, &[pixels]);
    let x = n.vgg(x);
    let x = n.xception(x);
    let x = n.inception(x);
    let x = n.densenet(x);
    let x = n.b.op(GlobalAvgPool {}, &[x]);
    let logits = n.dense(x, CLASSES);
    let targets = n.b.input("targets", [IMAGES[0], CLASSES]);
    let weights = n.b.input("weights", [IMAGES[0]]);
    let loss = n.b.emit(CrossEntropy { label_smoothing: 0.0 }.into(), &[logits, targets, weights])[0];
    n.b.output("loss", loss);
    let mut graph = grad::train(n.b.finish()?, loss)?;
    graph.nodes.sort_by_key(|node| node.phase == Phase::Update);
    let count = graph.trainables().map(|v| graph.ty(v).shape.len()).sum();
    let mut b = Builder::resume(graph, Phase::Update);
    b.at("optimizer");
    let (params, grads, velocity) = (b.range(Arena::Params, 0, count), b.range(Arena::Grads, 0, count), b.range(Arena::Slots, 0, count));
    let knobs = b.input("knobs", [KNOBS]);
    let sgd = Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 };
    b.update_all(sgd, &[params, grads, velocity, knobs], &[params, velocity]);
    b.finish()
}

/// A network being written down, its layers numbered.
struct Net {
    b: Builder,
    layers: usize,
}

impl Net {
    fn layer(&mut self) -> &mut Builder {
        self.layers += 1;
        self.b.at(format!("layer{}", self.layers))
    }

    fn conv(&mut self, x: Val, filters: usize, window: Window) -> Val {
        let channels = self.b.shape(x).cols();
        let [height, width] = window.kernel;
        let kernel = self.layer().param("kernel", [height, width, channels, filters], Init::Zeros);
        self.b.op(Conv2d::new(window), &[x, kernel])
    }

    fn dense(&mut self, x: Val, units: usize) -> Val {
        let features = self.b.shape(x).cols();
        let kernel = self.layer().param("kernel", [features, units], Init::Zeros);
        let y = self.b.op(Dense, &[x, kernel]);
        self.bias(y)
    }

    fn bias(&mut self, x: Val) -> Val {
        let channels = self.b.shape(x).cols();
        let bias = self.b.param("bias", [channels], Init::Zeros);
        self.b.op(BiasAdd, &[x, bias])
    }

    fn relu(&mut self, x: Val) -> Val {
        self.b.op(Activation { act: Act::Relu }, &[x])
    }

    fn batch_norm(&mut self, x: Val) -> Val {
        let channels = self.b.shape(x).cols();
        let b = self.layer();
        let (gamma, beta) = (b.param("gamma", [channels], Init::Ones), b.param("beta", [channels], Init::Zeros));
        let moving = [b.state("moving_mean", [channels], Init::Zeros), b.state("moving_variance", [channels], Init::Ones)];
        let stats = b.emit(ChannelStats.into(), &[x]);
        let norm = b.emit(BnCoefficients { epsilon: 1e-3, gamma: true }.into(), &[stats[0], stats[1], gamma, beta]);
        let y = b.op(ScaleShift { act: Act::Linear }, &[x, norm[0], norm[1]]);
        for (moving, batch) in moving.into_iter().zip(stats) {
            b.update(MovingAverage { momentum: 0.9 }, &[moving, batch], moving);
        }
        y
    }

    /// Convolution, batch norm, ReLU.
    fn unit(&mut self, x: Val, filters: usize, window: Window) -> Val {
        let x = self.conv(x, filters, window);
        let x = self.batch_norm(x);
        self.relu(x)
    }

    /// Two 3x3 convolutions with bias and ReLU, then a 2x2 pool.
    fn vgg(&mut self, mut x: Val) -> Val {
        for filters in [8, 12] {
            x = self.conv(x, filters, Window::same(3, 1));
            x = self.bias(x);
            x = self.relu(x);
        }
        self.b.op(MaxPool { window: Window::valid(2, 2) }, &[x])
    }

    /// A separable convolution and a stride-2 pool, beside a stride-2 1x1 shortcut.
    fn xception(&mut self, x: Val) -> Val {
        let shortcut = self.conv(x, 20, Window::same(1, 2));
        let shortcut = self.batch_norm(shortcut);
        let x = self.relu(x);
        let channels = self.b.shape(x).cols();
        let kernel = self.layer().param("depthwise/kernel", [3, 3, channels, 1], Init::Zeros);
        let x = self.b.op(Depthwise { window: Window::same(3, 1), pre: None }, &[x, kernel]);
        let x = self.conv(x, 20, POINT);
        let x = self.batch_norm(x);
        let x = self.b.op(MaxPool { window: Window::same(3, 2) }, &[x]);
        self.b.op(Add, &[x, shortcut])
    }

    /// 1x1, 7x7 as 1x7 and 7x1, and a pool, side by side.
    fn inception(&mut self, x: Val) -> Val {
        let one = self.unit(x, 8, POINT);
        let seven = self.unit(x, 6, POINT);
        let seven = self.unit(seven, 6, Window::rect(1, 7));
        let seven = self.unit(seven, 9, Window::rect(7, 1));
        let pool = self.b.op(AvgPool { window: Window::same(3, 1), count_padding: false }, &[x]);
        let pool = self.unit(pool, 7, POINT);
        self.b.op(Concat, &[one, seven, pool])
    }

    /// Two layers that each add channels to all that came before, and a transition.
    fn densenet(&mut self, mut x: Val) -> Val {
        for _ in 0..2 {
            let y = self.batch_norm(x);
            let y = self.relu(y);
            let y = self.unit(y, 16, POINT);
            let y = self.conv(y, 8, Window::same(3, 1));
            x = self.b.op(Concat, &[x, y]);
        }
        let x = self.batch_norm(x);
        let x = self.relu(x);
        let x = self.conv(x, 20, POINT);
        self.b.op(AvgPool { window: Window::valid(2, 2), count_padding: false }, &[x])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::device::cpu::{Cpu, Isa};
    use crate::device::naive::Naive;

    #[test]
    fn the_cpu_trains_the_network_as_the_specification_does() {
        let (_, rows) = check(Cpu::with(Isa::best(), 2), Naive, Precision::F32).unwrap();
        assert!(rows.iter().all(Row::passed), "{rows:#?}");
        // The budget is not so wide that it says nothing: errors lie within a factor of a few hundred of it.
        assert!(rows[1].share > 1e-3, "{rows:#?}");
    }

    #[test]
    fn products_of_bf16_train_the_network_as_those_of_f32_do() {
        let cpu = |threads| Cpu::with(Isa::best(), threads);
        if !cpu(1).precisions().contains(&Precision::Bf16) {
            return println!("left out: this processor has no products of bf16");
        }
        let (_, rows) = check(cpu(2), cpu(1), Precision::Bf16).unwrap();
        assert!(rows.iter().all(Row::passed), "{rows:#?}");
        assert!(rows[1].share > 1e-2, "{rows:#?}");
    }
}
