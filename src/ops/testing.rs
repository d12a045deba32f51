//! Tries every case of every op: `cpu` against `naive`, and the gradient rules against finite differences in f64.
//!
//! Operands lie at odd offsets with gaps between their rows; everything around them is NaN, so that a read or a write that
//! strays shows.

use super::{Backend, Case, Emit, Fill, Op, Site};
use crate::base::{DType, Shape, Ty, Val};
use crate::device::cpu::{Cpu, Isa};
use crate::device::naive::{Array, Naive};
use crate::device::{Arena, Arenas, Call, Operand, Place, Write};

/// A small generator of pseudo-random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Numbers that f32 holds exactly, so that both devices see the same.
    fn draw(&mut self, fill: Fill, shape: Shape) -> Array {
        let (n, cols) = (shape.len(), shape.cols());
        let mut data: Vec<f64> = match fill {
            Fill::Normal => (0..n).map(|_| self.normal()).collect(),
            Fill::Offset { mean, deviation } => (0..n).map(|_| mean + deviation * self.normal()).collect(),
            Fill::Positive => (0..n).map(|_| 0.5 + self.uniform()).collect(),
            Fill::Distinct => (0..n).map(|i| (i as f64 - (n / 2) as f64 + 0.5) * 0.02).collect(),
            Fill::Ties => (0..n).map(|_| (self.next() % 3) as f64 - 1.0).collect(),
            Fill::OneHot => (0..n / cols).flat_map(|r| (0..cols).map(move |c| f64::from(c == r % cols))).collect(),
            Fill::Values(values) => (0..n).map(|i| values[i % values.len()]).collect(),
        };
        if fill == Fill::Distinct {
            (1..n).rev().for_each(|i| data.swap(i, self.next() as usize % (i + 1)));
        }
        Array { shape, data: data.into_iter().map(|x| f64::from(x as f32)).collect() }
    }
}

fn inputs(case: &Case, seed: u64) -> Vec<Array> {
    let mut random = Random(seed);
    case.ins.iter().zip(&case.fill).map(|(&shape, &fill)| random.draw(fill, shape)).collect()
}

fn types(arrays: &[Array], dtype: DType) -> Vec<Ty> {
    arrays.iter().map(|a| Ty { shape: a.shape, dtype }).collect()
}

/// Parameters and their gradients have no gaps; every other matrix has.
fn pitch(shape: Shape) -> usize {
    if shape.rank() == 1 || shape.cols() == 1 { shape.cols() } else { shape.cols() + 3 }
}

fn to_bytes(host: &[f64], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F64 => bytemuck::cast_slice(host).to_vec(),
        _ => bytemuck::cast_slice(&host.iter().map(|&x| x as f32).collect::<Vec<_>>()).to_vec(),
    }
}

fn from_bytes(bytes: &[u8], dtype: DType) -> Vec<f64> {
    match dtype {
        DType::F64 => bytemuck::pod_collect_to_vec(bytes),
        _ => bytemuck::pod_collect_to_vec::<u8, f32>(bytes).into_iter().map(f64::from).collect(),
    }
}

/// Where element `i` of a dense array lies.
fn element(operand: &Operand, i: usize) -> usize {
    let cols = operand.ty.shape.cols();
    operand.place.offset / operand.ty.dtype.size() + i / cols * operand.place.pitch + i % cols
}

/// One run of an op. With `old`, results are added to those arrays.
fn execute<D: Backend>(device: &D, op: &Op, ins: &[Array], old: Option<&[Array]>) -> Vec<Array> {
    let dtype = device.float();
    let in_types = types(ins, dtype);
    let out_types = op.infer(&in_types).unwrap_or_else(|e| panic!("{op}: {e}"));
    let mut end = 3;
    let mut place = |ty: Ty, write| {
        let place = Place { arena: Arena::Temps, offset: end * dtype.size(), pitch: pitch(ty.shape) };
        end += ty.shape.rows() * place.pitch + 5;
        Operand { ty, place, write }
    };
    let sources: Vec<Operand> = in_types.iter().map(|&ty| place(ty, Write::Set)).collect();
    let write = if old.is_some() { Write::Add } else { Write::Set };
    let results: Vec<Operand> = out_types.iter().map(|&ty| place(ty, write)).collect();
    let scratch = ((end * dtype.size()).next_multiple_of(64), device.scratch(op, &in_types, &out_types));

    let mut host = vec![f64::NAN; (scratch.0 + scratch.1).div_ceil(dtype.size()) + 7];
    let filled = sources.iter().zip(ins).chain(results.iter().zip(old.into_iter().flatten()));
    filled.for_each(|(operand, array)| (0..array.data.len()).for_each(|i| host[element(operand, i)] = array[i]));
    let mut arenas = Arenas::new(device).unwrap();
    let derived = device.derived(op, &in_types, &out_types);
    arenas.ensure(device, Arena::Derived, derived).unwrap();
    arenas.ensure(device, Arena::Temps, host.len() * dtype.size()).unwrap();
    device.write(arenas.get_mut(Arena::Temps), 0, &to_bytes(&host, dtype));
    let call = Call { device, arenas: &arenas, ins: &sources, outs: &results, scratch: Some(scratch), derived: Some((0, derived)) };
    D::prepare(op, &call);
    D::run(op, &call);

    let mut bytes = vec![0; host.len() * dtype.size()];
    device.read(arenas.get(Arena::Temps), 0, &mut bytes);
    let after = from_bytes(&bytes, dtype);
    let mut untouched = vec![true; host.len()];
    untouched[scratch.0 / dtype.size()..(scratch.0 + scratch.1) / dtype.size()].fill(false);
    results.iter().for_each(|o| (0..o.ty.shape.len()).for_each(|i| untouched[element(o, i)] = false));
    for i in (0..host.len()).filter(|&i| untouched[i]) {
        assert_eq!(host[i].to_bits(), after[i].to_bits(), "{op}: element {i} of the arena is none of its results");
    }
    let read = |o: &Operand| Array { shape: o.ty.shape, data: (0..o.ty.shape.len()).map(|i| after[element(o, i)]).collect() };
    results.iter().map(read).collect()
}

/// The largest difference as a share of what f32 sums of so many terms may lose.
fn share(op: &Op, ins: &[Array], y: &Array, expected: &Array) -> f64 {
    let types = types(ins, DType::F32);
    let terms = op.terms(&types, &op.infer(&types).unwrap()) as f64;
    let largest = expected.data.iter().fold(1e-30f64, |m, x| m.max(x.abs()));
    let budget = DType::F32.roundoff() * (8.0 + 4.0 * terms.sqrt()) * largest;
    let difference = |(a, b): (&f64, &f64)| if a.is_finite() && b.is_finite() { (a - b).abs() } else { f64::INFINITY };
    y.data.iter().zip(&expected.data).map(difference).fold(0.0, f64::max) / budget
}

/// Runs rows on the naive device as a gradient rule emits them.
struct Tape {
    values: Vec<Array>,
}

impl Emit for Tape {
    fn ty(&self, v: Val) -> Ty {
        Ty { shape: self.values[v.index()].shape, dtype: DType::F64 }
    }

    fn emit(&mut self, op: Op, ins: &[Val]) -> Vec<Val> {
        let ins: Vec<Array> = ins.iter().map(|v| self.values[v.index()].clone()).collect();
        let first = self.values.len() as u32;
        self.values.extend(execute(&Naive, &op, &ins, None));
        (first..self.values.len() as u32).map(Val).collect()
    }
}

fn dot(a: &Array, b: &Array) -> f64 {
    a.data.iter().zip(&b.data).map(|(a, b)| a * b).sum()
}

/// For each varied input: the slope of `<dy, y>` along a random direction against what the gradient rule says.
fn check_gradient(case: &Case) {
    let ins = inputs(case, 7);
    let ys = execute(&Naive, &case.op, &ins, None);
    let mut random = Random(11);
    let dys: Vec<Array> = ys.iter().map(|y| random.draw(Fill::Normal, y.shape)).collect();
    let vals = |first: usize, n: usize| (first as u32..(first + n) as u32).map(Val).collect::<Vec<_>>();
    let (i, o) = (ins.len(), ys.len());
    let mut tape = Tape { values: [&ins[..], &ys, &dys].concat() };
    let site = Site { ins: &vals(0, i), outs: &vals(i, o), wants: &case.varied };
    let dys_at: Vec<Option<Val>> = vals(i + o, o).into_iter().map(Some).collect();
    let gradients = case.op.vjp(&site, &dys_at, &mut tape).unwrap_or_else(|e| panic!("{}: {e}", case.op));
    for input in (0..i).filter(|&input| case.varied[input]) {
        let gradient = &tape.values[gradients[input].expect("a varied input has a gradient").index()];
        let (direction, step) = (random.draw(Fill::Normal, ins[input].shape), 1e-5);
        let moved = |by: f64| {
            let mut ins = ins.clone();
            ins[input].data.iter_mut().zip(&direction.data).for_each(|(x, u)| *x += by * u);
            execute(&Naive, &case.op, &ins, None).iter().zip(&dys).map(|(y, dy)| dot(y, dy)).sum::<f64>()
        };
        let (slope, ours) = ((moved(step) - moved(-step)) / (2.0 * step), dot(gradient, &direction));
        let scale = dot(gradient, gradient).sqrt() * dot(&direction, &direction).sqrt();
        assert!((slope - ours).abs() <= 1e-7 * scale.max(1e-3), "{}, {}, input {input}: {ours}, not {slope}", case.op, case.name);
    }
}

fn machines() -> Vec<Cpu> {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.available());
    isas.flat_map(|isa| [1, 2].map(|threads| Cpu::with(isa, threads))).collect()
}

#[test]
fn cpu_agrees_with_naive() {
    let (cpus, mut worst) = (machines(), std::collections::BTreeMap::new());
    for case in Op::cases() {
        let ins = inputs(&case, 1);
        let set = execute(&Naive, &case.op, &ins, None);
        let old: Vec<Array> = set.iter().map(|y| Random(2).draw(Fill::Normal, y.shape)).collect();
        let added = execute(&Naive, &case.op, &ins, Some(&old));
        for cpu in &cpus {
            for (before, expected) in [(None, &set), (Some(&old[..]), &added)] {
                let results = execute(cpu, &case.op, &ins, before);
                for (y, expected) in results.iter().zip(expected) {
                    let share = share(&case.op, &ins, y, expected);
                    let (isa, n) = (cpu.isa, cpu.threads());
                    assert!(share <= 1.0, "{}, {}, {isa}, {n} threads: {share} of the budget", case.op, case.name);
                    let entry = worst.entry(case.op.name()).or_insert(0f64);
                    *entry = entry.max(share);
                }
            }
        }
    }
    println!("largest share of the budget: {worst:.3?}");
}

#[test]
fn gradients_are_slopes() {
    Op::cases().iter().filter(|case| case.varied.contains(&true)).for_each(check_gradient);
}

#[test]
fn a_result_depends_neither_on_threads_nor_on_the_batch() {
    for case in Op::cases() {
        let ins = inputs(&case, 3);
        for pair in machines().chunks(2) {
            let whole = execute(&pair[0], &case.op, &ins, None);
            assert_eq!(whole, execute(&pair[1], &case.op, &ins, None), "{}, {}", case.op, case.name);
            let images = case.ins[0].dims()[0];
            if case.varied[0] && case.ins[0].rank() == 4 && whole[0].shape.dims()[0] == images {
                for image in 0..images {
                    let mut dims = case.ins[0].dims().to_vec();
                    dims[0] = 1;
                    let part = ins[0].data.len() / images;
                    let mut alone = ins.clone();
                    alone[0] = Array { shape: Shape::new(&dims), data: ins[0].data[image * part..][..part].to_vec() };
                    let y = &execute(&pair[0], &case.op, &alone, None)[0];
                    let part = y.data.len();
                    assert_eq!(y.data, whole[0].data[image * part..][..part], "{}, {}, image {image}", case.op, case.name);
                }
            }
        }
    }
}
