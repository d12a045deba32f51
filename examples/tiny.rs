//! Defines, prints and trains a convolutional network: `cargo run --release --example tiny`.

use defrost::base::Window;
use defrost::device::{Arena, cpu::Cpu};
use defrost::exec::{Passes, Program, Session};
use defrost::ir::{Builder, Init, Phase, show};
use defrost::ops::activation::{Act, Activation};
use defrost::ops::sgd::KNOBS;
use defrost::ops::{BiasAdd, Conv2d, CrossEntropy, Dense, Emit, GlobalAvgPool, Sgd};
use defrost::pass::grad;

const N: usize = 32;

pub fn main() -> defrost::error::Result<()> {
    // Define: each call appends a row to a graph. Two classes of 8 x 8 images, told apart by four filters.
    let mut b = Builder::new();
    let (pixels, targets, weights) = (b.input("pixels", [N, 8, 8, 1]), b.input("targets", [N, 2]), b.input("weights", [N]));
    b.at("conv");
    let kernel = b.param("kernel", [3, 3, 1, 4], Init::GlorotUniform { fan_in: 9, fan_out: 36 });
    let bias = b.param("bias", [4], Init::Zeros);
    let y = b.op(Conv2d::new(Window::same(3, 1)), &[pixels, kernel]);
    let y = b.op(BiasAdd, &[y, bias]);
    let y = b.op(Activation { act: Act::Relu }, &[y]);
    let y = b.at("pool").op(GlobalAvgPool {}, &[y]);
    let kernel = b.at("dense").param("kernel", [4, 2], Init::GlorotUniform { fan_in: 4, fan_out: 2 });
    let logits = b.op(Dense, &[y, kernel]);
    let loss = b.emit(CrossEntropy { label_smoothing: 0.0 }.into(), &[logits, targets, weights])[0];
    b.output("loss", loss);

    // Differentiate: the backward pass is more rows in the same graph. The optimizer is one row over all weights.
    let graph = grad::train(b.finish()?, loss)?;
    let count = graph.trainables().map(|v| graph.ty(v).shape.len()).sum();
    let mut b = Builder::resume(graph, Phase::Update);
    let (params, grads) = (b.range(Arena::Params, 0, count), b.range(Arena::Grads, 0, count));
    let knobs = b.at("optimizer").input("knobs", [KNOBS]);
    b.update(Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 }, &[params, grads, knobs], params);
    let graph = b.finish()?;
    println!("{}", show(&graph, |_| true));

    // Train on stripes: rows (class 0) or columns (class 1), each image shifted by its number.
    let lit = |i: usize| (i / 128 + [i / 8, i][i / 64 % 2]) % 2;
    let images: Vec<f32> = (0..N * 64).map(|i| lit(i) as f32).collect();
    let classes: Vec<f32> = (0..N * 2).map(|i| f32::from(u8::from(i % 2 == i / 2 % 2))).collect();
    let cpu = Cpu::new(1)?;
    let mut program = Program::compile(graph, &cpu, Passes::default())?;
    let mut session = Session::new(cpu)?;
    defrost::train::fill(&mut session, &program, None, 7)?;
    let mut losses = Vec::new();
    for step in 1..=200 {
        let (knobs, ones) = ([0.5, step as f32, 0.0, 0.0], [1.0; N]);
        session.run(&mut program, &[("pixels", &images), ("targets", &classes), ("weights", &ones), ("knobs", &knobs)])?;
        losses.push(session.get(&program, "loss")?[0]);
    }
    println!("loss {:.4}, after {} steps {:.4}", losses[0], losses.len(), losses[losses.len() - 1]);
    assert!(losses[losses.len() - 1] < 0.2 * losses[0], "the loss did not fall");
    Ok(())
}
