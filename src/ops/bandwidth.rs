//! How fast memory-bound ops move their operands: `cargo test --release bandwidth -- --ignored --nocapture`.

use super::preprocess::Mode;
use super::{
    AvgPool, AvgPoolDx, Backend, Depthwise, DepthwiseDw, DepthwiseDx, GlobalAvgPool, GlobalAvgPoolDx, MaxPool, MaxPoolDx, Op, Preprocess,
    PreprocessDx, Rule,
};
use crate::base::{Shape, Ty, Window};
use crate::device::cpu::Cpu;
use crate::device::{Arena, Arenas, Call, Device, Operand, Place, Write};
use std::time::Instant;

/// Best of several runs, in seconds, and the bytes of all operands.
fn measure(cpu: &Cpu, op: &Op, ins: &[Shape]) -> (f64, usize) {
    let in_types: Vec<Ty> = ins.iter().map(|&shape| Ty::f32(shape)).collect();
    let out_types = op.infer(&in_types).unwrap_or_else(|e| panic!("{op}: {e}"));
    let mut end = 0;
    let mut place = |&ty: &Ty| {
        let place = Place { arena: Arena::Temps, offset: end, pitch: ty.shape.cols() };
        end += ty.bytes().next_multiple_of(64);
        Operand { ty, place, write: Write::Set }
    };
    let sources: Vec<Operand> = in_types.iter().map(&mut place).collect();
    let results: Vec<Operand> = out_types.iter().map(&mut place).collect();
    let bytes = end;
    let scratch = (end, cpu.scratch(op, &in_types, &out_types));
    let mut arenas = Arenas::new(cpu).unwrap();
    arenas.ensure(cpu, Arena::Temps, end + scratch.1).unwrap();
    let data: Vec<f32> = (0..(end + scratch.1) / 4).map(|i| ((i * 7919) % 1009) as f32 - 500.0).collect();
    cpu.write(arenas.get_mut(Arena::Temps), 0, bytemuck::cast_slice(&data));
    let call = Call { device: cpu, arenas: &arenas, ins: &sources, outs: &results, scratch: Some(scratch), derived: None };
    let run = |_| {
        let start = Instant::now();
        Cpu::run(op, &call);
        start.elapsed().as_secs_f64()
    };
    ((0..15).map(run).fold(f64::INFINITY, f64::min), bytes)
}

fn calls() -> Vec<(Op, Vec<Shape>)> {
    let mut calls: Vec<(Op, Vec<Shape>)> = Vec::new();
    for x in [[16, 19, 19, 728], [16, 37, 37, 256], [16, 37, 37, 728], [16, 147, 147, 64], [16, 147, 147, 128]] {
        let (window, w) = (Window::same(3, 1), [3, 3, x[3], 1].into());
        calls.push((Depthwise { window }.into(), vec![x.into(), w]));
        calls.push((DepthwiseDx { window, input: [x[1], x[2]] }.into(), vec![x.into(), w]));
        calls.push((DepthwiseDw { window }.into(), vec![x.into(); 2]));
    }
    for (window, x) in
        [(Window::valid(2, 2), [16, 112, 112, 64]), (Window::valid(3, 2), [16, 147, 147, 64]), (Window::same(3, 2), [16, 37, 37, 728])]
    {
        let y = MaxPool { window }.infer(&[Ty::f32(x)]).unwrap()[0].shape;
        calls.push((MaxPool { window }.into(), vec![x.into()]));
        calls.push((MaxPoolDx { window }.into(), vec![y, x.into()]));
    }
    for (window, x) in [(Window::valid(2, 2), [16, 56, 56, 128]), (Window::same(3, 1), [16, 35, 35, 288])] {
        let pool = AvgPool { window, count_padding: false };
        let y = pool.infer(&[Ty::f32(x)]).unwrap()[0].shape;
        calls.push((pool.into(), vec![x.into()]));
        calls.push((AvgPoolDx { window, count_padding: false, input: [x[1], x[2]] }.into(), vec![y]));
    }
    for x in [[16, 10, 10, 2048], [64, 7, 7, 1024]] {
        calls.push((GlobalAvgPool {}.into(), vec![x.into()]));
        calls.push((GlobalAvgPoolDx { input: [x[1], x[2]] }.into(), vec![[x[0], x[3]].into()]));
    }
    for mode in [Mode::Caffe, Mode::Tf, Mode::Torch] {
        calls.push((Preprocess { mode }.into(), vec![[16, 224, 224, 3].into()]));
        calls.push((PreprocessDx { mode }.into(), vec![[16, 224, 224, 3].into()]));
    }
    calls
}

/// A copy with the same threads is the yardstick: it reads one operand and writes another.
fn copy(cpu: &Cpu) -> f64 {
    let (floats, n) = (16 << 20, cpu.threads());
    let (x, mut y) = (vec![1f32; floats], vec![0f32; floats]);
    let copy = |_| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for (x, y) in x.chunks(floats / n).zip(y.chunks_mut(floats / n)) {
                scope.spawn(|| y.copy_from_slice(x));
            }
        });
        start.elapsed().as_secs_f64()
    };
    8.0 * floats as f64 / (0..15).map(copy).fold(f64::INFINITY, f64::min)
}

#[test]
#[ignore = "prints measurements"]
fn bandwidth() {
    for threads in [1, 0] {
        let cpu = Cpu::new(threads).unwrap();
        println!("{}: copy {:.1} GB/s", cpu.describe(), copy(&cpu) / 1e9);
        for (op, ins) in calls() {
            let (seconds, bytes) = measure(&cpu, &op, &ins);
            println!("{:50} {:16} {:8.3} ms {:6.1} GB/s", op.to_string(), ins[0].to_string(), seconds * 1e3, bytes as f64 / seconds / 1e9);
        }
    }
}
