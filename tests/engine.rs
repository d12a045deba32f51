//! Promises of the engine on whole networks: passes change nothing, buffers keep to themselves, an image's features do not
//! depend on its batch.

use defrost::base::Val;
use defrost::device::cpu::Cpu;
use defrost::device::naive::Naive;
use defrost::device::{Arena, Device};
use defrost::exec::{Passes, Program, Session};
use defrost::ir::{Builder, Graph};
use defrost::models::{Backbone, BatchNorm, Freeze, Purpose, Spec};
use defrost::ops::activation::Act;
use defrost::ops::{Activation, Add, Backend, Columns, Concat, Sgd};
use defrost::pass::Fusions;
use defrost::pass::plan::Options;
use defrost::train::trainer::{Part, Trainer};
use defrost::train::{Clip, Inference, Optimizer, fill, training_graph};
use std::cell::Cell;

const CLASSES: usize = 3;

/// A network at its smallest size with a whole training step.
fn training(backbone: Backbone, batch: usize, freeze: Freeze) -> Graph {
    training_at(backbone.minimum_size(), backbone, batch, freeze)
}

/// The same on images of `size` pixels.
fn training_at(size: usize, backbone: Backbone, batch: usize, freeze: Freeze) -> Graph {
    let spec = Spec { batch, size, purpose: Purpose::Train, freeze, ..Spec::new(backbone, CLASSES) };
    let sgd = Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 });
    training_graph(&spec.build().unwrap(), &sgd).unwrap()
}

/// Pixels that differ from image to image.
fn pixels(batch: usize, size: usize) -> Vec<f32> {
    (0..batch * size * size * 3).map(|i| ((i * 2_654_435_761 % 4_294_967_291) % 25_500) as f32 / 100.0).collect()
}

/// Feeds a step's inputs.
fn feed<D: Backend>(session: &mut Session<D>, program: &Program<D>, batch: usize, size: usize) {
    let targets: Vec<f32> = (0..batch * CLASSES).map(|i| f32::from(u8::from(i % CLASSES == (i / CLASSES) % CLASSES))).collect();
    session.set(program, "pixels", &pixels(batch, size)[..]).unwrap();
    session.set(program, "targets", &targets[..]).unwrap();
    session.set(program, "weights", &vec![1f32; batch][..]).unwrap();
    session.set(program, "knobs", &[0.01f32, 1.0, 0.0, 0.0][..]).unwrap();
}

/// The loss of one step and all weights after it.
fn step<D: Backend>(device: D, graph: Graph, passes: Passes, batch: usize, size: usize) -> (f64, Vec<f64>) {
    let mut program = Program::compile(graph, &device, passes).unwrap();
    let mut session = Session::new(device).unwrap();
    fill(&mut session, &program, None, 7).unwrap();
    feed(&mut session, &program, batch, size);
    session.replay(&mut program, None).unwrap();
    let graph = program.graph();
    let vals: Vec<Val> = graph.params.iter().chain(&graph.states).copied().collect();
    let weights = vals.iter().flat_map(|&v| session.value(&program, v).unwrap()).collect();
    (session.get(&program, "loss").unwrap()[0], weights)
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let (d, n) = a.iter().zip(b).fold((0.0, 0.0), |(d, n), (a, b)| (d + (a - b) * (a - b), n + b * b));
    (d / n).sqrt()
}

#[test]
fn passes_change_no_loss_and_no_update() {
    let off = |fusions, plan| Passes { fusions, plan, ..Passes::default() };
    let all = (Fusions::ALL, Options::default());
    let variants = [
        off(Fusions { pools: true, ..Fusions::NONE }, Options::PLAIN),
        off(Fusions { act: false, ..all.0 }, all.1),
        off(Fusions { stats: false, ..all.0 }, all.1),
        off(Fusions { group: false, ..all.0 }, all.1),
        off(Fusions { pre: false, ..all.0 }, all.1),
        off(Fusions { past: false, ..all.0 }, all.1),
        off(Fusions { mask_out: false, ..all.0 }, all.1),
        off(Fusions { sums_out: false, ..all.0 }, all.1),
        off(Fusions { stats_out: false, ..all.0 }, all.1),
        off(Fusions { depthwise: false, ..all.0 }, all.1),
        off(all.0, Options { sums: false, ..all.1 }),
        off(all.0, Options { views: false, ..all.1 }),
        off(all.0, Options { in_place: false, ..all.1 }),
        off(all.0, Options { reuse: false, ..all.1 }),
    ];
    for backbone in Backbone::ALL {
        let size = backbone.minimum_size();
        let (loss, weights) = step(Naive, training(backbone, 2, Freeze::None), Passes::default(), 2, size);
        // One network with residuals, one with concats of concats; the others with everything off.
        let thorough = matches!(backbone, Backbone::DenseNet121);
        for passes in variants.iter().take(if thorough { variants.len() } else { 1 }) {
            let (other, others) = step(Naive, training(backbone, 2, Freeze::None), *passes, 2, size);
            // Sums in another order, in f64, through a hundred layers.
            assert!((loss - other).abs() < 1e-10 * loss.abs(), "{backbone} {passes:?}: {loss} and {other}");
            assert!(distance(&others, &weights) < 1e-10, "{backbone} {passes:?}: weights differ by {}", distance(&others, &weights));
        }
    }
}

#[test]
fn pools_and_pointwise_convolutions_may_change_places() {
    // The other order rounds every value between them anew. At their smallest sizes these networks end in one pixel, and a batch norm
    // over two images of one pixel divides by whatever they happen to differ: these sizes leave four pixels of each.
    for (backbone, size) in [(Backbone::DenseNet121, 64), (Backbone::InceptionV3, 107)] {
        let run = |fusions| step(Naive, training_at(size, backbone, 2, Freeze::None), Passes { fusions, ..Passes::default() }, 2, size);
        let (loss, weights) = run(Fusions::ALL);
        let (other, others) = run(Fusions { pools: false, ..Fusions::ALL });
        assert!(others != weights, "{backbone}: nothing changed places");
        assert!((loss - other).abs() < 1e-10 * loss.abs(), "{backbone}: {loss} and {other}");
        assert!(distance(&others, &weights) < 1e-10, "{backbone}: weights differ by {}", distance(&others, &weights));
    }
}

#[test]
fn a_frozen_batch_norm_in_its_convolution_changes_nothing() {
    let all = Fusions::ALL;
    for backbone in Backbone::ALL {
        let size = backbone.minimum_size();
        let run = |fusions: Fusions| {
            let graph = Spec { batch: 2, size, ..Spec::new(backbone, CLASSES) }.build().unwrap().graph;
            let mut program = Program::compile(graph, &Naive, Passes { fusions, ..Passes::default() }).unwrap();
            let mut session = Session::new(Naive).unwrap();
            fill(&mut session, &program, None, 7).unwrap();
            session.run(&mut program, &[("pixels", &pixels(2, size))]).unwrap();
            (session.get(&program, "features").unwrap(), program.steps().len())
        };
        let (fused, steps) = run(all);
        for fusions in [
            Fusions { scale: false, ..all },
            Fusions { bias: false, ..all },
            Fusions { pre: false, ..all },
            Fusions { depthwise: false, ..all },
            Fusions { pools: false, ..all },
            Fusions::NONE,
        ] {
            let (plain, more) = run(fusions);
            assert!(distance(&plain, &fused) < 1e-11, "{backbone} {fusions:?}");
            // A convolution that leaves its pool behind leaves its batch norm behind too.
            assert!(more >= steps || fusions.pools != all.pools);
        }
        assert!(run(Fusions::NONE).1 > steps, "{backbone}: something was fused");
    }
}

#[test]
fn a_program_touches_no_byte_between_its_buffers() {
    for backbone in Backbone::ALL {
        let size = backbone.minimum_size();
        let passes = Passes { plan: Options { guard: 256, reuse: false, ..Options::default() }, ..Passes::default() };
        let cpu = Cpu::with(defrost::device::cpu::Isa::best(), 2);
        let mut program = Program::compile(training(backbone, 3, Freeze::None), &cpu, passes).unwrap();
        let mut session = Session::new(cpu).unwrap();
        fill(&mut session, &program, None, 7).unwrap();
        let bytes = program.plan().bytes[Arena::Temps.index()];
        let pattern: Vec<u8> = (0..bytes).map(|i| 0x5a ^ (i % 251) as u8).collect();
        session.set_bytes(Arena::Temps, &pattern).unwrap();
        feed(&mut session, &program, 3, size);
        session.replay(&mut program, None).unwrap();
        let after = session.bytes(&program, Arena::Temps).unwrap();
        let mut used = vec![false; bytes];
        program.plan().buffers.iter().for_each(|b| used[b.offset..b.offset + b.bytes].fill(true));
        assert!(used.iter().filter(|u| !**u).count() > 10_000, "there are guard bands");
        let strayed = (0..bytes).find(|&i| !used[i] && pattern[i] != after[i]);
        assert_eq!(strayed, None, "{backbone}");
    }
}

#[test]
fn an_image_has_the_same_features_in_every_batch() {
    for backbone in Backbone::ALL {
        let size = backbone.minimum_size() + 4;
        let spec = Spec { size, ..Spec::new(backbone, CLASSES) };
        let mut inference: Inference<Cpu> = Inference::new(&spec);
        let mut session = Session::new(Cpu::new(2).unwrap()).unwrap();
        let program = inference.program(session.device(), 16).unwrap();
        fill(&mut session, program, None, 3).unwrap();
        let (all, image) = (pixels(16, size), size * size * 3);
        let whole = inference.batch(&mut session, "features", &all).unwrap();
        for batch in [1, 3] {
            let rows: Vec<f64> =
                all[..15 * image].chunks(batch * image).flat_map(|x| inference.batch(&mut session, "features", x).unwrap()).collect();
            assert_eq!(rows, whole[..rows.len()], "{backbone}, batches of {batch}");
        }
        assert!(whole.iter().any(|&x| x != 0.0) && whole.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn features_do_not_depend_on_the_batch_on_any_instruction_set() {
    let (size, image) = (36, 36 * 36 * 3);
    for isa in defrost::device::cpu::Isa::ALL.into_iter().filter(|isa| isa.available()) {
        let mut inference: Inference<Cpu> = Inference::new(&Spec { size, ..Spec::new(Backbone::DenseNet121, CLASSES) });
        let mut session = Session::new(Cpu::with(isa, 1)).unwrap();
        let program = inference.program(session.device(), 4).unwrap();
        fill(&mut session, program, None, 3).unwrap();
        let all = pixels(4, size);
        let whole = inference.batch(&mut session, "features", &all).unwrap();
        let alone: Vec<f64> = all.chunks(image).flat_map(|x| inference.batch(&mut session, "features", x).unwrap()).collect();
        assert_eq!(alone, whole, "{isa}");
    }
}

#[test]
fn a_depthwise_convolution_goes_into_the_one_after_it_where_no_gradient_needs_it() {
    let depthwise = |graph: Graph, fusions: Fusions| {
        let program = Program::compile(graph, &Naive, Passes { fusions, ..Passes::default() }).unwrap();
        program.steps().iter().filter(|step| step.op.name() == "depthwise").count()
    };
    let inference = || Spec { size: Backbone::Xception.minimum_size(), ..Spec::new(Backbone::Xception, CLASSES) }.build().unwrap().graph;
    assert_eq!(depthwise(inference(), Fusions { depthwise: false, ..Fusions::ALL }), 34);
    assert_eq!(depthwise(inference(), Fusions::ALL), 0);
    assert_eq!(depthwise(training(Backbone::Xception, 2, Freeze::All), Fusions::ALL), 0);
    assert_eq!(depthwise(training(Backbone::Xception, 2, Freeze::None), Fusions::ALL), 34);
    let features = |fusions: Fusions| {
        let device = Cpu::new(2).unwrap();
        let mut program = Program::compile(inference(), &device, Passes { fusions, ..Passes::default() }).unwrap();
        let mut session = Session::new(device).unwrap();
        fill(&mut session, &program, None, 7).unwrap();
        let spec = program.graph().named("pixels").unwrap();
        let pixels = pixels(program.graph().ty(spec).shape.dims()[0], Backbone::Xception.minimum_size());
        session.run(&mut program, &[("pixels", &pixels)]).unwrap();
        session.get(&program, "features").unwrap()
    };
    assert!(features(Fusions::ALL) == features(Fusions { depthwise: false, ..Fusions::ALL }), "the same sums in the same order");
}

#[test]
fn freezing_is_pruning() {
    let full = training(Backbone::Vgg16, 2, Freeze::None);
    let upper = training(Backbone::Vgg16, 2, Freeze::Layer("block4_pool".into()));
    let head = training(Backbone::Vgg16, 2, Freeze::All);
    let backward = |graph: &Graph| {
        let layers = graph.nodes.iter().filter(|n| n.phase == defrost::ir::Phase::Backward).map(|n| n.layer.to_string());
        layers.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(backward(&full).contains("block1_conv1"));
    assert!(backward(&upper).contains("block5_conv1") && !backward(&upper).iter().any(|l| l.starts_with("block4")));
    assert_eq!(backward(&head).iter().filter(|l| l.starts_with("block")).count(), 0);
    let temps = |graph: Graph| Program::compile(graph, &Naive, Passes::default()).unwrap().plan().bytes;
    let (full, upper, head) = (temps(full), temps(upper), temps(head));
    let at = |bytes: [usize; 6], arena: Arena| bytes[arena.index()];
    let temps = [head, upper, full].map(|bytes| at(bytes, Arena::Temps));
    assert!(temps.is_sorted() && temps[0] < temps[2], "frozen layers save no activations: {temps:?}");
    assert_eq!(at(head, Arena::Grads), (512 * CLASSES + CLASSES) * 8);
}

#[test]
fn concats_of_concats_with_a_value_used_twice() {
    let build = || {
        let mut b = Builder::new();
        let (x, y) = (b.input("x", [1, 2, 2, 5]), b.input("y", [1, 2, 2, 3]));
        let relu = |b: &mut Builder, v| b.op(Activation { act: Act::Relu }, &[v]);
        let (p, q) = (relu(&mut b, x), relu(&mut b, y));
        let inner = b.op(Concat, &[p, q]);
        let outer = b.op(Concat, &[inner, p]);
        let twice = b.op(Concat, &[q, q]);
        let part = b.op(Columns { start: 3, len: 6 }, &[outer]);
        let sum = b.op(Add, &[part, twice]);
        for (name, v) in [("inner", inner), ("outer", outer), ("twice", twice), ("sum", sum)] {
            b.output(name, v);
        }
        b.finish().unwrap()
    };
    fn run<D: Backend>(device: D, graph: Graph, plan: Options) -> ([Vec<f64>; 4], usize) {
        let mut program = Program::compile(graph, &device, Passes { plan, ..Passes::default() }).unwrap();
        let mut session = Session::new(device).unwrap();
        let (x, y): (Vec<f32>, Vec<f32>) = ((0..20).map(|i| i as f32 - 9.5).collect(), (0..12).map(|i| 5.5 - i as f32).collect());
        session.run(&mut program, &[("x", &x), ("y", &y)]).unwrap();
        let steps = program.steps().len();
        (["inner", "outer", "twice", "sum"].map(|name| session.get(&program, name).unwrap()), steps)
    }
    let (plain, plain_steps) = run(Naive, build(), Options::PLAIN);
    let (planned, steps) = run(Naive, build(), Options::default());
    assert_eq!(plain, planned);
    assert_eq!(plain, run(Cpu::new(2).unwrap(), build(), Options::default()).0, "copies and sums of small numbers are exact");
    assert!(steps < plain_steps, "the first concat is free");
}

#[test]
fn devices_say_what_they_are() {
    assert!(Cpu::new(2).unwrap().describe().contains("2 threads"));
    assert!(Naive.describe().starts_with("naive"));
}

/// The change of all trained weights after steps at these rates on images that come in batches of these sizes.
fn accumulated<D: Backend>(device: D, spec: &Spec, sizes: &[usize], rates: &[f64]) -> Vec<f64> {
    let sgd = Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: true, weight_decay: 0.01 });
    let mut trainer = Trainer::new(device, spec.clone(), sgd, Clip::Norm(0.5), false).unwrap();
    trainer.class_weights = vec![0.5, 3.0];
    trainer.start(sizes[0], None, &["a".into(), "b".into()], 7).unwrap();
    let weights = |trainer: &Trainer<D>| {
        let (session, program) = trainer.weights().unwrap();
        let graph = program.graph();
        graph.trainables().flat_map(|v| session.get(program, graph.name(v)).unwrap()).collect::<Vec<f64>>()
    };
    let (before, all, of) = (weights(&trainer), pixels(sizes.iter().sum(), spec.size), sizes.iter().sum());
    for &lr in rates {
        let mut done = 0;
        for &n in sizes {
            let image = spec.size * spec.size * 3;
            let labels: Vec<usize> = (done..done + n).map(|i| usize::from(i % 3 == 0)).collect();
            let part = Part { of, first: done == 0, last: done + n == of };
            trainer.step((&all[done * image..(done + n) * image]).into(), &labels, part, lr, &|| true).unwrap();
            done += n;
        }
    }
    weights(&trainer).iter().zip(before).map(|(a, b)| a - b).collect()
}

// Steps on three images at once, and as batches of two and one: sums in another order, nothing else.
#[test]
fn accumulated_batches_are_one_batch() {
    let spec = |backbone: Backbone, freeze| Spec {
        size: backbone.minimum_size(),
        purpose: Purpose::Train,
        freeze,
        batch_norm: BatchNorm::Moving,
        ..Spec::new(backbone, 2)
    };
    // In f64 the 1e-16 of each operation grows to about 1e-13 over VGG's layers.
    let vgg = spec(Backbone::Vgg16, Freeze::Layer("block4_pool".into()));
    let far = distance(&accumulated(Naive, &vgg, &[2, 1], &[0.1]), &accumulated(Naive, &vgg, &[3], &[0.1]));
    assert!(far < 1e-12, "naive: {far}");
    // In f32 by the same growth; a ReLU or pool next to a tie may decide otherwise (see `keras_numbers`).
    for backbone in Backbone::ALL {
        let spec = spec(backbone, Freeze::None);
        // Winograd's transforms enlarge errors by up to 5.4.
        for (exact, most) in [(true, 1e-4), (false, 5.4e-4)] {
            let cpu = |sizes: &[usize]| accumulated(Cpu::new(2).unwrap().exact(exact), &spec, sizes, &[0.1, 0.05]);
            let far = distance(&cpu(&[2, 1]), &cpu(&[3]));
            assert!(far < most, "{backbone}, exact {exact}: {far}");
        }
    }
}

// Two trainers of the same model; one is refused steps in every way in between. Nothing may differ.
#[test]
fn a_refused_step_changes_nothing() {
    let spec = Spec { size: 32, purpose: Purpose::Train, ..Spec::new(Backbone::DenseNet121, 2) };
    let new = || {
        let sgd = Optimizer::Sgd(Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.0 });
        let mut trainer = Trainer::new(Cpu::new(1).unwrap(), spec.clone(), sgd, Clip::None, false).unwrap();
        trainer.start(2, None, &["a".into(), "b".into()], 7).unwrap();
        trainer
    };
    let all = |trainer: &Trainer<Cpu>| {
        let (session, program) = trainer.weights().unwrap();
        [Arena::Params, Arena::State, Arena::Slots].map(|arena| session.bytes(program, arena).unwrap())
    };
    let (mut calm, mut disturbed, good) = (new(), new(), pixels(4, 32));
    let (first, second, whole) = (Part { of: 4, first: true, last: false }, Part { of: 4, first: false, last: true }, Part::whole(2));
    let half = good.len() / 2;
    let step = |trainer: &mut Trainer<Cpu>, x: &[f32], part, go_on: &dyn Fn() -> bool| trainer.step(x.into(), &[0, 1], part, 0.1, go_on);
    for round in 0..3 {
        let before = all(&disturbed);
        // Put an end to before row 0, in the forward pass, in the backward pass; in the second batch of a step.
        for rows in [0usize, 100, 900] {
            let left = Cell::new(rows);
            let go_on = || left.replace(left.get().saturating_sub(1)) > 0;
            let error = step(&mut disturbed, &good[..half], whole, &go_on).unwrap_err();
            assert_eq!(error.exit_code(), 130);
        }
        step(&mut disturbed, &good[..half], first, &|| true).unwrap();
        assert!(all(&disturbed)[1] != before[1], "the statistics of the first batch");
        step(&mut disturbed, &good[half..], second, &|| false).unwrap_err();
        // A pixel that is not a number.
        let mut bad = good[..half].to_vec();
        bad[1000] = f32::NAN;
        assert!(step(&mut disturbed, &bad, whole, &|| true).unwrap().loss.is_nan());
        assert!(step(&mut disturbed, &good[half..], first, &|| true).unwrap().is_finite());
        assert!(!step(&mut disturbed, &bad, second, &|| true).unwrap().is_finite());
        assert!(all(&disturbed) == before, "round {round}");
        for trainer in [&mut calm, &mut disturbed] {
            step(trainer, &good[..half], whole, &|| true).unwrap();
            step(trainer, &good[..half], first, &|| true).unwrap();
            step(trainer, &good[half..], second, &|| true).unwrap();
        }
        assert!(all(&calm) == all(&disturbed) && all(&calm) != before, "round {round}");
        assert_eq!((calm.steps(), disturbed.steps()), (2 * round + 2, 2 * round + 2));
    }
}
