//! The cpu device against the specification, over every case of the convolution and dense ops.

use super::{Conv2d, Conv2dDw, Conv2dDx};
use crate::base::{DType, Math, Shape, Ty, Padding, Window};
use crate::device::cpu::{Cpu, Isa};
use crate::device::naive::Naive;
use crate::device::{Arena, Arenas, Call, Device, Operand, Place, Write};
use crate::ops::{Act, Backend, Case, Dense, DenseDw, DenseDx, Op, Rule};

/// Reproducible numbers in -1..1.
fn numbers(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        f64::from((state >> 40) as u32) / f64::from(1u32 << 23) - 1.0
    };
    (0..count).map(|_| f64::from(next() as f32)).collect()
}

/// What lies between the columns of a result, and must be there afterwards.
const GUARD: f64 = 77.0;

/// Runs an op with `gap` floats between the rows of activations, on top of a result that holds `before` everywhere (added to
/// or overwritten), and returns the result without the gaps.
fn run<D: Backend>(device: &D, op: &Op, ins: &[(Shape, Vec<f64>)], gap: usize, write: Write, before: f64) -> Vec<f64> {
    let dtype = device.float();
    let tys: Vec<Ty> = ins.iter().map(|(shape, _)| Ty { shape: *shape, dtype }).collect();
    let outs = op.infer(&tys).unwrap_or_else(|e| panic!("{op}: {e}"));
    let bytes = |values: &[f64]| -> Vec<u8> {
        match dtype {
            DType::F64 => bytemuck::cast_slice(values).to_vec(),
            _ => values.iter().flat_map(|&v| (v as f32).to_ne_bytes()).collect(),
        }
    };
    // Activations have gaps; parameters (the second input of a product, or a filter's gradient) have none.
    let gradient = matches!(op, Op::Conv2dDw(_) | Op::DenseDw(_));
    let mut image: Vec<f64> = Vec::new();
    let mut place = |ty: Ty, gap: usize, values: &dyn Fn(usize) -> f64| {
        let (cols, pitch) = (ty.shape.cols(), ty.shape.cols() + gap);
        let offset = image.len() * dtype.size();
        for r in 0..ty.shape.rows() {
            image.extend((0..cols).map(|c| values(r * cols + c)));
            image.extend(std::iter::repeat_n(GUARD, gap));
        }
        Place { arena: Arena::Temps, offset, pitch }
    };
    let operand = |(i, (ty, (_, values))): (usize, (&Ty, &(Shape, Vec<f64>)))| {
        let gap = if i == 0 || (i == 1 && gradient) { gap } else { 0 };
        Operand { ty: *ty, place: place(*ty, gap, &|k| values[k]), write: Write::Set }
    };
    let sources: Vec<Operand> = tys.iter().zip(ins).enumerate().map(operand).collect();
    let target = Operand { ty: outs[0], place: place(outs[0], if gradient { 0 } else { gap }, &|_| before), write };
    let others = outs[1..].iter().map(|&ty| Operand { ty, place: place(ty, 0, &|_| before), write });
    let targets: Vec<Operand> = [target].into_iter().chain(others).collect();

    let mut arenas = Arenas::new(device).unwrap();
    let scratch = (image.len() * dtype.size()).next_multiple_of(64);
    let (scratch_bytes, derived) = (device.scratch(op, &tys, &outs), device.derived(op, &tys, &outs));
    arenas.ensure(device, Arena::Temps, scratch + scratch_bytes).unwrap();
    arenas.ensure(device, Arena::Derived, derived).unwrap();
    device.write(arenas.get_mut(Arena::Temps), 0, &bytes(&image));
    // Whatever an earlier step left in working memory must not matter.
    let junk = vec![f64::NAN; scratch_bytes / dtype.size()];
    device.write(arenas.get_mut(Arena::Temps), scratch, &bytes(&junk));
    let call = Call {
        device,
        arenas: &arenas,
        ins: &sources,
        outs: &targets,
        scratch: Some((scratch, scratch_bytes)),
        derived: Some((Arena::Derived, 0, derived)),
    };
    D::prepare(op, &call);
    D::run(op, &call);

    let mut after = vec![0u8; image.len() * dtype.size()];
    device.read(arenas.get(Arena::Temps), 0, &mut after);
    let after: Vec<f64> = match dtype {
        DType::F64 => bytemuck::pod_collect_to_vec(&after),
        _ => bytemuck::pod_collect_to_vec::<u8, f32>(&after).into_iter().map(f64::from).collect(),
    };
    let (cols, pitch, first) = (outs[0].shape.cols(), target.place.pitch, target.place.offset / dtype.size());
    assert!(after[..first] == image[..first], "{op}: an input was written");
    let row = |r: usize| &after[first + r * pitch..first + (r + 1) * pitch];
    (0..outs[0].shape.rows())
        .flat_map(|r| {
            assert!(row(r)[cols..].iter().all(|&g| g == GUARD), "{op}: row {r} was written beyond its columns");
            &row(r)[..cols]
        })
        .copied()
        .collect()
}

/// Numbers for a case, as its op multiplies them.
fn data(case: &Case) -> Vec<(Shape, Vec<f64>)> {
    let math = case.op.math().unwrap_or_default();
    let drawn = |(i, &shape): (usize, &Shape)| (shape, numbers(shape.len(), i as u64 + 1).into_iter().map(|x| math.round(x)).collect());
    case.ins.iter().enumerate().map(drawn).collect()
}

/// The arithmetics of convolutions on a device.
fn maths(isa: Isa) -> Vec<Math> {
    [Math::Full, Math::Bf16].into_iter().take(1 + usize::from(isa.has_bf16())).collect()
}

/// Compares cpu to naive within the error budget of f32 sums, and shows the worst share of it.
fn agree(cpu: &Cpu, cases: Vec<Case>) {
    let mut worst = 0.0f64;
    for case in cases.into_iter().filter(|case| cpu.fuses().covers(case.op.needs())) {
        let ins = data(&case);
        let tys: Vec<Ty> = case.ins.iter().map(|&s| Ty::f32(s)).collect();
        let outs = case.op.infer(&tys).unwrap();
        let terms = case.op.terms(&tys, &outs) as f64;
        for (gap, write) in [(0, Write::Set), (3, Write::Set), (16, Write::Add)] {
            let expected = run(&Naive, &case.op, &ins, gap, write, 0.5);
            let found = run(cpu, &case.op, &ins, gap, write, 0.5);
            let budget = 2f64.powi(-24) * (8.0 + 4.0 * terms.sqrt()) * cpu.amplification(&case.op, &tys, &outs);
            let budget = budget * expected.iter().fold(0.0, |m: f64, y| m.max(y.abs()));
            for (i, (e, f)) in expected.iter().zip(&found).enumerate() {
                let off = (e - f).abs();
                assert!(off <= budget, "{} ({}), {write:?}, gap {gap}: element {i} is {f}, not {e}", case.op.name(), case.name);
                worst = worst.max(off / budget.max(f64::MIN_POSITIVE));
            }
        }
    }
    println!("{} on {} threads: at most {worst:.2} of the error budget", cpu.isa, cpu.threads());
}

#[test]
fn every_instruction_set_agrees_with_naive() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        for threads in [1, 3] {
            let cpu = Cpu::with(isa, threads);
            agree(&cpu, [Conv2d::cases(), Conv2dDx::cases(), Conv2dDw::cases()].concat());
            agree(&cpu, [Dense::cases(), DenseDx::cases(), DenseDw::cases()].concat());
        }
    }
}

/// Blocks of several sizes: more rows, channels and images than one buffer holds, and pitches that fill few cache sets.
#[test]
fn large_shapes_agree_with_naive() {
    let shapes = [
        (Window::same(3, 1), [1, 9, 40, 272], 40),
        (Window::same(1, 1), [2, 14, 15, 512], 33),
        (Window::same(1, 1), [1, 30, 45, 64], 40),
        (Window::same(1, 1), [1, 17, 31, 272], 264),
        (Window::same(1, 2), [3, 37, 41, 130], 70),
        (Window::same(3, 1), [5, 8, 8, 120], 150),
        (Window { kernel: [1, 1], stride: [2, 1], padding: Padding::Pads { top: 1, bottom: 0, left: 0, right: 2 } }, [2, 9, 7, 20], 18),
        (Window::valid(3, 2), [3, 37, 41, 3], 32),
        (Window::same(3, 2), [1, 30, 30, 130], 70),
        (Window::rect(1, 7), [2, 17, 17, 160], 48),
        (Window::same(5, 1), [2, 19, 17, 48], 80),
        (Window::rect(3, 1), [3, 8, 9, 200], 136),
    ];
    let cpu = Cpu::with(Isa::best(), 2);
    for (window, [n, h, w, cin], cout) in shapes {
        let ([kh, kw], [oh, ow]) = (window.kernel, window.on(h, w).unwrap().output);
        let (x, filter, dy) = ([n, h, w, cin], [kh, kw, cin, cout], [n, oh, ow, cout]);
        let (ops, dx) = ([[x, filter], [dy, filter], [x, dy]], Conv2dDx::new(window, [h, w]));
        for math in maths(cpu.isa) {
            let case = |(mut op, ins): (Op, [[usize; 4]; 2])| {
                op.multiply_in(math);
                Case::new(format!("{op} on {x:?}"), op, &ins)
            };
            let kinds = [Conv2d::new(window).into(), dx.clone().into(), Conv2dDw::new(window).into()];
            agree(&cpu, kinds.into_iter().zip(ops).map(case).collect());
        }
    }
}

#[test]
fn an_image_has_the_same_bits_in_every_batch() {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.available());
    for (isa, math) in isas.flat_map(|isa| maths(isa).into_iter().map(move |math| (isa, math))) {
        for (window, [h, w, cin, cout]) in [
            (Window::same(3, 1), [9, 11, 33, 70]),
            (Window::same(5, 1), [6, 9, 33, 70]),
            (Window::rect(1, 3), [5, 8, 64, 48]),
            (Window::same(1, 1), [5, 7, 64, 48]),
            (Window::valid(3, 2), [15, 15, 3, 32]),
            (Window::same(3, 2), [7, 7, 20, 16]),
        ] {
            let (op, [kh, kw]) = (Op::from(Conv2d { math, ..Conv2d::new(window) }), window.kernel);
            let images = numbers(16 * h * w * cin, 1);
            let filter = (Shape::from([kh, kw, cin, cout]), numbers(kh * kw * cin * cout, 2));
            let outputs = |batch: usize, threads: usize| {
                let x = (Shape::from([batch, h, w, cin]), images[..batch * h * w * cin].to_vec());
                run(&Cpu::with(isa, threads), &op, &[x, filter.clone()], 0, Write::Set, 0.0)
            };
            let all = outputs(16, 2);
            for (batch, threads) in [(1, 2), (3, 1), (7, 3)] {
                let some = outputs(batch, threads);
                assert!(some[..] == all[..some.len()], "{isa}, {op}: batch {batch} on {threads} threads");
            }
        }
    }
}

#[test]
fn the_same_bits_on_every_run() {
    let cpu = Cpu::with(Isa::best(), 3);
    for case in [Conv2d::cases(), Conv2dDx::cases(), Conv2dDw::cases(), DenseDw::cases()].concat() {
        if !cpu.fuses().covers(case.op.needs()) {
            continue;
        }
        let ins = data(&case);
        let once = run(&cpu, &case.op, &ins, 0, Write::Set, 0.0);
        assert!(once == run(&cpu, &case.op, &ins, 0, Write::Set, 0.0), "{}", case.name);
    }
}

/// `<conv(x, w), dy>` is linear in all three, so it equals `<x, dx>` and `<w, dw>`: the transposes are transposes.
#[test]
fn gradients_are_the_transposed_maps() {
    for case in Conv2d::cases() {
        let Op::Conv2d(ref op) = case.op else { unreachable!("cases of Conv2d") };
        if op.is_fused() {
            continue;
        }
        let (ins, window) = (data(&case), op.window);
        let naive = |op: Op, ins: &[(Shape, Vec<f64>)]| run(&Naive, &op, ins, 0, Write::Set, 0.0);
        let [_, h, w, _] = ins[0].0.four().unwrap();
        let y = naive(case.op.clone(), &ins);
        let tys: Vec<Ty> = case.ins.iter().map(|&s| Ty::f32(s)).collect();
        let dy = (case.op.infer(&tys).unwrap()[0].shape, numbers(y.len(), 9));
        let dx = naive(Conv2dDx::new(window, [h, w]).into(), &[dy.clone(), ins[1].clone()]);
        let dw = naive(Conv2dDw::new(window).into(), &[ins[0].clone(), dy.clone()]);
        let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let (forward, scale) = (inner(&y, &dy.1), inner(&y, &y).sqrt() * inner(&dy.1, &dy.1).sqrt());
        for back in [inner(&ins[0].1, &dx), inner(&ins[1].1, &dw)] {
            assert!((forward - back).abs() <= 1e-12 * scale.max(1e-300), "{}: {forward} and {back}", case.name);
        }
    }
}

#[test]
fn errors_say_what_was_found_and_expected() {
    let conv = Conv2d::new(Window::same(3, 1));
    let infer = |x: [usize; 4], w: [usize; 4]| conv.infer(&[Ty::f32(x), Ty::f32(w)]).unwrap_err();
    assert_eq!(infer([1, 5, 5, 128], [3, 3, 64, 9]), "input has 128 channels, the filter expects 64");
    assert_eq!(infer([1, 5, 5, 8], [5, 3, 8, 9]), "filter has shape 5x3x8x9, expects 3x3 x in x out channels");
    let fused = Conv2d { bias: true, ..conv };
    let ins = [Ty::f32([1, 5, 5, 8]), Ty::f32([3, 3, 8, 9]), Ty::f32([4])];
    assert_eq!(fused.infer(&ins).unwrap_err(), "bias has shape 4, expects one value for each of 9 channels");
    let behind = |window| Conv2d { depthwise: Some(Act::Relu), ..Conv2d::new(window) };
    let ins = [Ty::f32([1, 5, 5, 8]), Ty::f32([1, 1, 8, 9]), Ty::f32([3, 3, 7, 1])];
    assert_eq!(behind(Window::valid(1, 1)).infer(&ins).unwrap_err(), "depthwise filter has shape 3x3x7x1, expects 3x3x8x1");
    let ins = [Ty::f32([1, 5, 5, 8]), Ty::f32([3, 3, 8, 9]), Ty::f32([3, 3, 8, 1])];
    assert!(behind(Window::valid(3, 1)).infer(&ins).unwrap_err().ends_with("a plain 1x1 window alone does"));
    assert_eq!(Dense.infer(&[Ty::f32([2, 7]), Ty::f32([8, 3])]).unwrap_err(), "input has 7 features, the weight matrix expects 8");
}
