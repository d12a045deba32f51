//! Tries ops on their cases with calls made by hand: `cpu` against `naive`, in place or not, set and added, on every
//! instruction set and on one and two threads, with gaps between rows; and gradient rules against finite differences.

use super::{Backend, Case, Emit, Fill, Op, Rule, Site};
use crate::base::{DType, Shape, Ty, Val};
use crate::device::cpu::{Cpu, Isa};
use crate::device::naive::Naive;
use crate::device::{Arena, Arenas, Call, Operand, Place, Write};

/// Elements before and after every operand, and between rows, that nobody may touch.
const GUARD: usize = 3;

/// A small generator (splitmix64): the same data in every run.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Data for an input, rounded to f32 so that both devices see the same numbers.
    fn draw(&mut self, shape: Shape, fill: Fill) -> Vec<f64> {
        let n = shape.len();
        let mut data: Vec<f64> = match fill {
            Fill::Normal => (0..n).map(|_| self.normal()).collect(),
            Fill::Offset { mean, deviation } => (0..n).map(|_| mean + deviation * self.normal()).collect(),
            Fill::Positive => (0..n).map(|_| 0.5 + self.uniform()).collect(),
            Fill::Distinct => (0..n).map(|i| (i as f64 - n as f64 / 2.0 + 0.25) * 0.02).collect(),
            Fill::Ties => (0..n).map(|_| (3.0 * self.uniform()).floor() - 1.0).collect(),
            Fill::OneHot => vec![0.0; n],
            Fill::Values(values) => values.iter().copied().cycle().take(n).collect(),
        };
        if fill == Fill::OneHot {
            data.chunks_mut(shape.cols()).for_each(|row| row[(self.uniform() * row.len() as f64) as usize] = 1.0);
        }
        if fill == Fill::Distinct {
            (1..n).rev().for_each(|i| data.swap(i, (self.uniform() * (i + 1) as f64) as usize));
        }
        data.into_iter().map(|x| f64::from(x as f32)).collect()
    }
}

/// The indices of an operand's elements in an arena image.
fn elements(shape: Shape, first: usize, pitch: usize) -> impl Iterator<Item = usize> {
    (0..shape.rows()).flat_map(move |r| first + r * pitch..first + r * pitch + shape.cols())
}

/// Runs one op on one device and returns its results; everything else in the arena must be as it was.
fn run<D: Backend>(device: &D, op: &Op, tys: &[Ty], data: &[Vec<f64>], write: Write, in_place: bool) -> Vec<Vec<f64>> {
    let outs = op.infer(tys).expect("a case is well-formed");
    let width = device.float().size();
    let (mut image, mut places) = (Vec::new(), Vec::<usize>::new());
    let mut reserve = |ty: &Ty, data: &dyn Fn(usize) -> f64| {
        image.extend([777.0; GUARD]);
        let (first, pitch) = (image.len(), pitch(ty.shape));
        image.resize(first + ty.shape.rows() * pitch + GUARD, 777.0);
        elements(ty.shape, first, pitch).enumerate().for_each(|(i, at)| image[at] = data(i));
        first
    };
    for (ty, data) in tys.iter().zip(data) {
        places.push(reserve(ty, &|i| data[i]));
    }
    for (i, ty) in outs.iter().enumerate() {
        let shared = op.in_place(i).filter(|_| in_place).map(|input| places[input]);
        places.push(shared.unwrap_or_else(|| reserve(ty, &old)));
    }
    let scratch = (image.len() * width, device.scratch(op, tys, &outs));
    let before = image.clone();
    image.resize(image.len() + scratch.1.div_ceil(width), f64::NAN);

    let mut arenas = Arenas::new(device).unwrap();
    arenas.ensure(device, Arena::Temps, image.len() * width).unwrap();
    device.write(arenas.get_mut(Arena::Temps), 0, &to_bytes(&image, device.float()));
    let operand = |(&ty, &first): (&Ty, &usize)| {
        let place = Place { arena: Arena::Temps, offset: first * width, pitch: pitch(ty.shape) };
        Operand { ty, place, write }
    };
    let sources: Vec<_> = tys.iter().zip(&places).map(operand).collect();
    let results: Vec<_> = outs.iter().zip(&places[tys.len()..]).map(operand).collect();
    D::run(op, &Call { device, arenas: &arenas, ins: &sources, outs: &results, scratch: Some(scratch), derived: None });

    let mut bytes = vec![0; image.len() * width];
    device.read(arenas.get(Arena::Temps), 0, &mut bytes);
    let mut after = from_bytes(&bytes, device.float());
    let take = |(ty, &first): (&Ty, &usize)| -> Vec<f64> {
        let taken = elements(ty.shape, first, pitch(ty.shape));
        taken.map(|i| std::mem::replace(&mut after[i], before[i])).collect()
    };
    let values = outs.iter().zip(&places[tys.len()..]).map(take).collect();
    assert!(after[..before.len()] == before, "{op} wrote outside its results");
    values
}

/// What lies at a result before it is written.
fn old(i: usize) -> f64 {
    0.25 * (i % 7) as f64
}

/// Matrices have gaps between rows, vectors have none.
fn pitch(shape: Shape) -> usize {
    shape.cols() + if shape.rank() > 1 { GUARD } else { 0 }
}

fn to_bytes(data: &[f64], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F64 => bytemuck::cast_slice(data).to_vec(),
        _ => bytemuck::cast_slice(&data.iter().map(|&x| x as f32).collect::<Vec<_>>()).to_vec(),
    }
}

fn from_bytes(bytes: &[u8], dtype: DType) -> Vec<f64> {
    match dtype {
        DType::F64 => bytemuck::pod_collect_to_vec(bytes),
        _ => bytemuck::pod_collect_to_vec::<u8, f32>(bytes).into_iter().map(f64::from).collect(),
    }
}

fn largest(data: &[f64]) -> f64 {
    data.iter().fold(0.0, |m, x| m.max(x.abs()))
}

/// The cases of one op: `cpu` against `naive`, then gradients against finite differences.
fn check<R: Rule>() {
    let cases = R::cases();
    assert!(!cases.is_empty());
    for case in cases {
        let (op, mut random) = (&case.op, Random(7));
        let tys: Vec<Ty> = case.ins.iter().map(|&s| Ty::f32(s)).collect();
        let data: Vec<_> = case.ins.iter().zip(&case.fill).map(|(&s, &f)| random.draw(s, f)).collect();
        let outs = op.infer(&tys).unwrap_or_else(|e| panic!("{} {}: {e}", op.name(), case.name));
        let budget = 2f64.powi(-24) * (8.0 + 4.0 * (op.terms(&tys, &outs) as f64).sqrt());
        for (write, in_place) in [(Write::Set, false), (Write::Add, false), (Write::Set, true)] {
            let expected = run(&Naive, op, &tys, &data, write, in_place);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
                let [found, again] = [1, 2].map(|threads| run(&Cpu::with(isa, threads), op, &tys, &data, write, in_place));
                assert_eq!(found, again, "{} {}: threads change the result", op.name(), case.name);
                for (i, (expected, found)) in expected.iter().zip(&found).enumerate() {
                    let error = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    let share = error / (budget * largest(expected)).max(f64::MIN_POSITIVE);
                    let nan = found.iter().any(|x| x.is_nan());
                    assert!(share <= 1.0 && !nan, "{op} {}: result {i} on {isa}, {write:?}: {share} of its budget", case.name);
                }
            }
        }
        if case.varied.contains(&true) {
            check_gradients(&case, &tys, &data);
            check_wants(&case, &tys);
        }
    }
}

/// The rows that a gradient rule emits, with the types of all values.
struct Tape {
    tys: Vec<Ty>,
    rows: Vec<(Op, Vec<Val>, Vec<Val>)>,
}

impl Emit for Tape {
    fn ty(&self, v: Val) -> Ty {
        self.tys[v.index()]
    }

    fn emit(&mut self, op: Op, ins: &[Val]) -> Vec<Val> {
        let tys: Vec<Ty> = ins.iter().map(|&v| self.ty(v)).collect();
        let results = op.infer(&tys).unwrap_or_else(|e| panic!("a gradient rule emits a wrong {op}: {e}"));
        let outs: Vec<Val> = results.into_iter().map(|ty| self.value(ty)).collect();
        self.rows.push((op, ins.to_vec(), outs.clone()));
        outs
    }
}

impl Tape {
    fn value(&mut self, ty: Ty) -> Val {
        self.tys.push(ty);
        Val(self.tys.len() as u32 - 1)
    }
}

/// For every set of results through which a gradient may flow: the rule's rows, run on `naive`, against differences.
fn check_gradients(case: &Case, tys: &[Ty], data: &[Vec<f64>]) {
    let outs = case.op.infer(tys).unwrap();
    let (mut random, mut refused) = (Random(11), 0);
    let sets = 1u32..1 << outs.len();
    for flows in sets.clone() {
        let mut tape = Tape { tys: Vec::new(), rows: Vec::new() };
        let ins: Vec<Val> = tys.iter().map(|&ty| tape.value(ty)).collect();
        let results = (&mut tape as &mut dyn Emit).emit(case.op.clone(), &ins);
        let mut known = data.to_vec();
        known.extend(run(&Naive, &case.op, tys, data, Write::Set, false));
        let mut dys = Vec::new();
        for (i, ty) in outs.iter().enumerate() {
            dys.push((flows >> i & 1 == 1).then(|| tape.value(*ty)));
            if dys[i].is_some() {
                known.push(random.draw(ty.shape, Fill::Normal));
            }
        }
        let site = Site { ins: &ins, outs: &results, wants: &case.varied };
        let Ok(gradients) = case.op.vjp(&site, &dys, &mut tape) else {
            refused += 1;
            continue;
        };
        for (op, ins, _) in &tape.rows[1..] {
            let tys: Vec<Ty> = ins.iter().map(|v| tape.tys[v.index()]).collect();
            let values: Vec<_> = ins.iter().map(|v| known[v.index()].clone()).collect();
            known.extend(run(&Naive, op, &tys, &values, Write::Set, false));
        }
        let loss = |data: &[Vec<f64>]| -> f64 {
            let values = run(&Naive, &case.op, tys, data, Write::Set, false);
            let flowing = dys.iter().zip(&values).filter_map(|(dy, y)| dy.map(|dy| known[dy.index()].iter().zip(y)));
            flowing.flatten().map(|(dy, y)| dy * y).sum()
        };
        for (i, gradient) in gradients.iter().enumerate().filter(|&(i, _)| case.varied[i]) {
            let gradient = &known[gradient.expect("a wanted gradient is returned").index()];
            compare(case, i, data, gradient, &loss);
        }
    }
    assert!(refused < sets.count(), "{}: no gradient to check", case.op);
}

/// Asked for one gradient alone, a rule returns that one and no other.
fn check_wants(case: &Case, tys: &[Ty]) {
    for only in (0..tys.len()).filter(|&i| case.varied[i]) {
        let mut tape = Tape { tys: Vec::new(), rows: Vec::new() };
        let ins: Vec<Val> = tys.iter().map(|&ty| tape.value(ty)).collect();
        let outs = (&mut tape as &mut dyn Emit).emit(case.op.clone(), &ins);
        let dy = tape.value(tape.tys[outs[0].index()]);
        let dys: Vec<_> = (0..outs.len()).map(|i| (i == 0).then_some(dy)).collect();
        let wants: Vec<bool> = (0..tys.len()).map(|i| i == only).collect();
        let gradients = case.op.vjp(&Site { ins: &ins, outs: &outs, wants: &wants }, &dys, &mut tape).unwrap();
        let found: Vec<bool> = gradients.iter().map(Option::is_some).collect();
        assert_eq!(found, wants, "{}", case.op);
    }
}

/// Central differences of `loss` at up to forty elements of input `i`.
fn compare(case: &Case, i: usize, data: &[Vec<f64>], gradient: &[f64], loss: &dyn Fn(&[Vec<f64>]) -> f64) {
    assert_eq!(gradient.len(), data[i].len());
    let (mut data, step) = (data.to_vec(), 1e-4);
    for at in (0..gradient.len()).step_by(gradient.len().div_ceil(40)) {
        let middle = data[i][at];
        let mut slope = |step: f64| {
            data[i][at] = middle + step;
            let up = loss(&data);
            data[i][at] = middle - step;
            let down = loss(&data);
            data[i][at] = middle;
            (up - down) / (2.0 * step)
        };
        // Richardson: the error of the step's square cancels.
        let slope = (4.0 * slope(step) - slope(2.0 * step)) / 3.0;
        let error = (slope - gradient[at]).abs() / largest(gradient).max(1e-3);
        assert!(error <= 1e-6, "{} {}: d/d input {i} [{at}] is {slope}, the rule says {}", case.op, case.name, gradient[at]);
    }
}

macro_rules! checks {
    ($($name:ident: $($rule:ident),+;)+) => { $(#[test] fn $name() { $(check::<super::$rule>();)+ })+ };
}

checks! {
    constant: Constant;
    channel_stats: ChannelStats, ChannelStatsDx;
    bn_coefficients: BnCoefficients, BnCoefficientsDx;
    moving_average: MovingAverage;
    scale_shift: ScaleShift, ScaleShiftSums, ScaleShiftDx;
    bias_add: BiasAdd, ColumnSum;
    add: Add;
    concat: Concat, Columns, PadColumns;
    softmax: Softmax, SoftmaxDx;
    cross_entropy: CrossEntropy, CrossEntropyDx;
    sgd: Sgd;
    adam: Adam;
}

#[test]
fn a_wrong_shape_is_refused_with_what_was_found_and_what_was_expected() {
    let refuse = |op: Op, shapes: &[&[usize]], words: &[&str]| {
        let tys: Vec<Ty> = shapes.iter().map(|dims| Ty::f32(Shape::new(dims))).collect();
        let error = op.infer(&tys).expect_err(op.name());
        assert!(words.iter().all(|word| error.contains(word)), "{}: {error}", op.name());
    };
    refuse(super::ChannelStats.into(), &[&[2, 3], &[3]], &["2 inputs", "expects 1"]);
    refuse(super::ChannelStats.into(), &[&[0, 3]], &["0x3", "at least one"]);
    refuse(super::BnCoefficients { epsilon: 1e-3, gamma: true }.into(), &[&[3], &[3], &[3]], &["3 inputs", "expects 4"]);
    refuse(super::BnCoefficients { epsilon: 1e-3, gamma: false }.into(), &[&[3], &[4], &[3]], &["var", "4", "3 channels"]);
    refuse(super::ScaleShift::default().into(), &[&[2, 5], &[5], &[4]], &["shift", "4", "5 channels"]);
    refuse(super::ScaleShiftDx::default().into(), &[&[2, 5], &[3, 5], &[5], &[5]], &["2x5", "3x5"]);
    refuse(super::BiasAdd.into(), &[&[2, 5], &[2]], &["bias", "2", "5 channels"]);
    refuse(super::Add.into(), &[&[2, 5]], &["1 inputs", "expects 2"]);
    refuse(super::Add.into(), &[&[2, 5], &[2, 5], &[2, 4]], &["input 2", "2x4", "2x5"]);
    refuse(super::Concat.into(), &[&[2, 5], &[3, 5]], &["input 1", "3x5", "2x5"]);
    refuse(super::Columns { start: 3, len: 3 }.into(), &[&[2, 5]], &["3..6", "5 columns"]);
    refuse(super::Softmax.into(), &[&[2, 1]], &["1 class,", "at least 2"]);
    refuse(super::CrossEntropy { label_smoothing: 0.0 }.into(), &[&[2, 3], &[2, 3], &[3]], &["3", "2 samples"]);
    refuse(super::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 }.into(), &[&[9], &[9], &[8], &[4]], &["velocity", "8", "9"]);
    refuse(super::Adam::default().into(), &[&[9], &[9], &[9], &[9], &[1]], &["knobs", "1", "4 numbers"]);
}

/// Where the forward pass is open, the backward pass is: x and shift are chosen so that z is a rounding error.
#[test]
fn the_gradient_of_a_fused_relu_is_open_exactly_where_the_relu_is() {
    let (mut random, act) = (Random(3), super::activation::Act::Relu);
    let (x, scale) = (random.draw([1, 4001].into(), Fill::Normal), random.draw([4001].into(), Fill::Normal));
    let shift: Vec<f64> = x.iter().zip(&scale).map(|(x, s)| -f64::from((x * s) as f32)).collect();
    let (row, vector) = (Ty::f32([1, 4001]), Ty::f32([4001]));
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        let cpu = Cpu::with(isa, 1);
        let forward = (super::ScaleShift { act }.into(), vec![x.clone(), scale.clone(), shift.clone()]);
        let y = run(&cpu, &forward.0, &[row, vector, vector], &forward.1, Write::Set, false).remove(0);
        let ones = vec![1.0; 4001];
        let sums = run(
            &cpu,
            &super::ScaleShiftSums { act }.into(),
            &[row, row, vector, vector],
            &[ones.clone(), x.clone(), scale.clone(), shift.clone()],
            Write::Set,
            false,
        );
        let dx = run(
            &cpu,
            &super::ScaleShiftDx { act, ..Default::default() }.into(),
            &[row, row, vector, vector],
            &[ones, x.clone(), scale.clone(), shift.clone()],
            Write::Set,
            false,
        );
        for c in 0..4001 {
            assert_eq!((sums[1][c] == 1.0, dx[0][c] != 0.0), (y[c] > 0.0, y[c] > 0.0), "{isa}: z = {}", y[c]);
        }
    }
}
