//! The four networks held against Keras itself: `tests/golden/*.txt` are what Keras 3 printed, layer by layer, for each
//! network with a pooled head of eight classes, at its default, its minimum and an odd input size.

use defrost::base::{DType, Val};
use defrost::ir::{Graph, Init, Role, check};
use defrost::models::{Backbone, BatchNorm, Freeze, Hidden, Kind, Model, Purpose, Spec};
use defrost::ops::Op;
use defrost::ops::activation::Act;
use defrost::weights::Profile;

const GOLDEN: [(Backbone, &str); 4] = [
    (Backbone::Vgg16, include_str!("golden/vgg16.txt")),
    (Backbone::Xception, include_str!("golden/xception.txt")),
    (Backbone::InceptionV3, include_str!("golden/inceptionv3.txt")),
    (Backbone::DenseNet121, include_str!("golden/densenet121.txt")),
];

fn train(backbone: Backbone) -> Spec {
    Spec { size: backbone.minimum_size(), batch: 2, purpose: Purpose::Train, ..Spec::new(backbone, 8) }
}

fn dims(graph: &Graph, v: Val) -> String {
    graph.ty(v).shape.to_string()
}

/// One line of a golden file, made from a model built at each of the file's sizes.
fn line(models: &[Model], position: usize) -> String {
    let (model, layer) = (&models[0], &models[0].layers[position]);
    let mut words = vec![layer.name.to_string(), layer.kind.class().to_string(), model.layer_parameters(layer).to_string()];
    for model in models {
        let shape = model.layers[position].shape.to_string();
        words.push(shape.split_once('x').unwrap().1.to_string());
    }
    let weights = layer.params.iter().map(|v| ("", v)).chain(layer.states.iter().map(|v| ("-", v)));
    for (sign, &v) in weights {
        let (owner, name) = model.graph.name(v).split_once('/').unwrap();
        assert_eq!(owner, &*layer.name);
        words.push(format!("{sign}{name}:{}", dims(&model.graph, v)));
    }
    words.join(" ")
}

#[test]
fn every_layer_is_that_of_keras_in_the_order_of_keras() {
    for (backbone, golden) in GOLDEN {
        let (comments, lines): (Vec<&str>, Vec<&str>) = golden.lines().partition(|l| l.starts_with('#'));
        let sizes = comments[2].split_whitespace().filter_map(|word| word.strip_prefix("output@")?.parse().ok());
        let models: Vec<Model> = sizes.map(|size| Spec { size, ..Spec::new(backbone, 8) }.build().unwrap()).collect();
        assert_eq!(models.len(), 3);
        assert_eq!([models[0].spec.size, models[1].spec.size], [backbone.default_size(), backbone.minimum_size()]);
        for (position, expected) in lines.iter().enumerate() {
            assert_eq!(line(&models, position), *expected, "{backbone}, layer {position}");
        }
        assert_eq!(models[0].layers.len(), lines.len());
    }
}

#[test]
fn layers_and_parameters_are_counted_as_keras_counts_them() {
    for (backbone, layers, parameters, trainable) in [
        (Backbone::Vgg16, 19, 14_714_688, 14_714_688),
        (Backbone::Xception, 132, 20_861_480, 20_806_952),
        (Backbone::InceptionV3, 311, 21_802_784, 21_768_352),
        (Backbone::DenseNet121, 427, 7_037_504, 6_953_856),
    ] {
        let model = Spec { features_only: true, ..Spec::new(backbone, 0) }.build().unwrap();
        // Global average pooling is ours, not the backbone's.
        assert_eq!((model.layers.len() - 1, model.parameters(), model.trainable()), (layers, parameters, trainable), "{backbone}");
        assert_eq!(model.graph.output("features").map(|v| dims(&model.graph, v)), Some(format!("1x{}", backbone.channels())));
        assert!(backbone.cam_layers().into_iter().all(|layer| model.layer(layer).is_some()));
    }
}

#[test]
fn the_weight_order_of_inception_is_not_the_order_of_creation() {
    // Creation numbers, from 1, of the convolutions in file order.
    const ORDER: [usize; 94] = [
        1, 2, 3, 4, 5, 9, 7, 10, 6, 8, 11, 12, 16, 14, 17, 13, 15, 18, 19, 23, 21, 24, 20, 22, 25, 26, 28, 29, 27, 30, 35, 36, 32, 37, 33,
        38, 31, 34, 39, 40, 45, 46, 42, 47, 43, 48, 41, 44, 49, 50, 55, 56, 52, 57, 53, 58, 51, 54, 59, 60, 65, 66, 62, 67, 63, 68, 61, 64,
        69, 70, 73, 74, 71, 75, 72, 76, 81, 78, 82, 79, 80, 83, 84, 77, 85, 90, 87, 91, 88, 89, 92, 93, 86, 94,
    ];
    let model = Spec::new(Backbone::InceptionV3, 8).build().unwrap();
    for (stem, weight) in [("conv2d", "kernel"), ("batch_normalization", "beta")] {
        let number = |name: &str| {
            let layer = name.strip_prefix(stem)?.strip_suffix(weight)?.strip_suffix('/')?;
            if layer.is_empty() { Some(1) } else { layer.strip_prefix('_')?.parse::<usize>().ok().map(|n| n + 1) }
        };
        let order: Vec<usize> = model.graph.params.iter().filter_map(|&v| number(model.graph.name(v))).collect();
        assert_eq!(order, ORDER);
    }
}

#[test]
fn the_shortcuts_of_xception_lie_around_the_pool() {
    let model = Spec::new(Backbone::Xception, 8).build().unwrap();
    let names: Vec<&str> = model.layers.iter().map(|l| &*l.name).collect();
    for (block, conv, norm, add) in [
        (2, "conv2d", "batch_normalization", "add"),
        (3, "conv2d_1", "batch_normalization_1", "add_1"),
        (13, "conv2d_3", "batch_normalization_3", "add_11"),
    ] {
        let (last, pool) = (format!("block{block}_sepconv2_bn"), format!("block{block}_pool"));
        let expected = [last.as_str(), conv, &pool, norm, add];
        assert!(names.windows(5).any(|w| w == expected), "{expected:?}");
    }
}

#[test]
fn every_graph_passes_the_checker() {
    for backbone in Backbone::ALL {
        for spec in [
            Spec { size: backbone.minimum_size(), ..Spec::new(backbone, 8) },
            train(backbone),
            Spec { freeze: Freeze::All, ..train(backbone) },
            Spec { batch_norm: BatchNorm::Moving, ..train(backbone) },
            Spec { freeze: Freeze::Layer(backbone.cam_layers()[0].into()), ..train(backbone) },
            Spec { from_features: true, ..train(backbone) },
        ] {
            let model = spec.build().unwrap();
            check(&model.graph).unwrap();
            let sorted = |vals: &[Val]| vals.iter().map(|v| v.index()).collect::<std::collections::BTreeSet<_>>();
            let by_role = |of: fn(Role) -> bool| (0..model.graph.values.len()).filter(|&i| of(model.graph.values[i].role)).collect();
            assert_eq!(sorted(&model.graph.params), by_role(|r| matches!(r, Role::Param { .. })), "every parameter has its place");
            assert_eq!(sorted(&model.graph.states), by_role(|r| matches!(r, Role::State { .. })), "every statistic has its place");
        }
    }
}

fn rows(model: &Model, name: &str) -> usize {
    model.graph.nodes.iter().filter(|n| n.op.name() == name).count()
}

#[test]
fn batch_norm_in_training_computes_statistics_once_and_updates_all() {
    let model = train(Backbone::DenseNet121).build().unwrap();
    // One row for each convolution but the transitions' three, whose average pools are normalised instead, and one for the
    // first max pool, where the first block begins.
    let read: std::collections::HashSet<Val> = stats(&model).map(|n| n.ins[0]).collect();
    assert_eq!(read.len(), rows(&model, "channel_stats"), "no value's statistics are computed twice");
    assert_eq!(rows(&model, "channel_stats"), 120 - 3 + 3 + 1);
    let producers = model.graph.producers();
    let of_concat = stats(&model).any(|n| producers[n.ins[0].index()].is_some_and(|p| model.graph.nodes[p].op.name() == "concat"));
    assert!(!of_concat, "the statistics of a concat come from its parts");
    assert_eq!(rows(&model, "moving_average"), 2 * 121);
    let replaced = model.graph.values.iter().filter(|v| matches!(v.role, Role::Update { .. })).count();
    assert_eq!(replaced, model.graph.states.len());
}

fn stats(model: &Model) -> impl Iterator<Item = &defrost::ir::Node> {
    model.graph.nodes.iter().filter(|n| matches!(n.op, Op::ChannelStats(_)))
}

#[test]
fn a_batch_norm_that_does_not_train_uses_moving_statistics() {
    for backbone in [Backbone::Xception, Backbone::InceptionV3, Backbone::DenseNet121] {
        for spec in [
            Spec { size: backbone.minimum_size(), ..Spec::new(backbone, 8) },
            Spec { batch_norm: BatchNorm::Moving, ..train(backbone) },
            Spec { freeze: Freeze::All, ..train(backbone) },
        ] {
            let model = spec.build().unwrap();
            assert_eq!((rows(&model, "channel_stats"), rows(&model, "moving_average")), (0, 0));
        }
    }
}

#[test]
fn batch_norm_has_the_epsilon_and_momentum_of_its_network() {
    for (backbone, epsilon, gamma) in
        [(Backbone::Xception, 1e-3, true), (Backbone::InceptionV3, 1e-3, false), (Backbone::DenseNet121, 1.001e-5, true)]
    {
        let coefficients = |spec: Spec| {
            let model = spec.build().unwrap();
            let mut found = Vec::new();
            for node in &model.graph.nodes {
                match &node.op {
                    Op::BnCoefficients(op) => found.push((op.epsilon, op.gamma)),
                    Op::MovingAverage(op) => assert_eq!(op.momentum, 0.9),
                    _ => {}
                }
            }
            found
        };
        let own = coefficients(Spec { bn_momentum: 0.9, ..train(backbone) });
        assert!(!own.is_empty() && own.iter().all(|&c| c == (epsilon, gamma)), "{backbone}");
        let other = coefficients(Spec { profile: Profile { epsilon: 0.5, ..backbone.profile() }, bn_momentum: 0.9, ..train(backbone) });
        assert!(other.iter().all(|&c| c == (0.5, gamma)), "{backbone}");
    }
}

#[test]
fn a_profile_of_another_framework_changes_what_it_says_and_nothing_else() {
    let model = |backbone: Backbone, profile: Profile| Spec { size: 128, profile, ..Spec::new(backbone, 8) }.build().unwrap();
    let foreign = |backbone: Backbone| Profile { gamma: true, count_padding: true, symmetric_pools: true, ..backbone.profile() };
    for backbone in Backbone::ALL {
        let (ours, theirs) = (model(backbone, backbone.profile()), model(backbone, foreign(backbone)));
        let gammas = theirs.graph.params.iter().filter(|&&v| theirs.graph.name(v).ends_with("/gamma")).count();
        let pools = |m: &Model| m.graph.nodes.iter().filter(|n| matches!(&n.op, Op::AvgPool(op) if op.count_padding)).count();
        let windows = |m: &Model| -> Vec<String> {
            m.graph.nodes.iter().filter_map(|n| if let Op::MaxPool(op) = &n.op { Some(op.window.to_string()) } else { None }).collect()
        };
        assert_eq!(pools(&ours), 0);
        match backbone {
            // 17,216 gammas in 94 layers; nine of its pools keep the border.
            Backbone::InceptionV3 => assert_eq!((gammas, theirs.parameters() - ours.parameters(), pools(&theirs)), (94, 17_216, 9)),
            _ => assert_eq!(theirs.parameters(), ours.parameters()),
        }
        match backbone {
            Backbone::Xception => assert_eq!((&windows(&ours)[0][..], &windows(&theirs)[0][..]), ("3x3/2 same", "3x3/2 pad 1,1,1,1")),
            _ => assert_eq!(windows(&ours), windows(&theirs)),
        }
        let shapes = |m: &Model| m.layers.iter().map(|l| l.shape).collect::<Vec<_>>();
        assert_eq!(shapes(&ours), shapes(&theirs));
    }
}

#[test]
fn freezing_up_to_a_layer_leaves_a_trainable_suffix() {
    let spec = Spec { freeze: Freeze::Layer("mixed7".into()), ..train(Backbone::InceptionV3) };
    let model = spec.build().unwrap();
    let end = model.layers.iter().position(|l| &*l.name == "mixed7").unwrap();
    assert!(model.layers.iter().enumerate().all(|(i, l)| l.frozen == (i <= end)));
    let flags: Vec<bool> = model.graph.params.iter().map(|&v| model.graph.trainable(v)).collect();
    assert!(flags.is_sorted() && flags.contains(&true) && flags.contains(&false));
    // Batch norm below runs on moving statistics, above on those of the batch.
    let layers_with_stats: Vec<&str> = stats(&model).map(|n| &*n.layer).collect();
    let above = model.layers[end..].iter().filter(|l| l.kind == Kind::BatchNormalization).count();
    assert_eq!(layers_with_stats.len(), above);

    let all = Spec { freeze: Freeze::All, ..train(Backbone::InceptionV3) }.build().unwrap();
    assert_eq!(all.trainable(), 2048 * 8 + 8);
    assert_eq!(all.graph.trainables().collect::<Vec<_>>(), all.head().collect::<Vec<_>>());
}

#[test]
fn hidden_layers_and_head_are_named_in_order() {
    let hidden = vec![Hidden { units: 1024, act: Act::Sigmoid }, Hidden { units: 32, act: Act::Relu }];
    let model = Spec { hidden, ..train(Backbone::Vgg16) }.build().unwrap();
    let head: Vec<String> = model.head().map(|v| format!("{} {}", model.graph.name(v), dims(&model.graph, v))).collect();
    let expected =
        ["dense/kernel 512x1024", "dense/bias 1024", "dense_1/kernel 1024x32", "dense_1/bias 32", "dense_2/kernel 32x8", "dense_2/bias 8"];
    assert_eq!(head, expected);
    let kernel = model.head().next().unwrap();
    let glorot = Init::GlorotUniform { fan_in: 512, fan_out: 1024 };
    assert_eq!(model.graph.role(kernel), Role::Param { trainable: true, init: glorot });
}

#[test]
fn inputs_and_outputs_have_their_names_and_shapes() {
    let list = |model: &Model| {
        let inputs: Vec<String> =
            model.graph.inputs.iter().map(|&v| format!("{} {}", model.graph.name(v), dims(&model.graph, v))).collect();
        let outputs: Vec<String> = model.graph.outputs.iter().map(|(name, v)| format!("{name} {}", dims(&model.graph, *v))).collect();
        (inputs.join(", "), outputs.join(", "))
    };
    let model = train(Backbone::Vgg16).build().unwrap();
    assert_eq!(list(&model).0, "pixels 2x32x32x3, targets 2x8, weights 2");
    assert_eq!(list(&model).1, "features 2x512, logits 2x8, loss 1, probabilities 2x8, losses 2");
    let taps = vec!["block5_conv3".to_string(), "block1_pool".to_string()];
    let model = Spec { size: 64, taps, ..Spec::new(Backbone::Vgg16, 8) }.build().unwrap();
    assert_eq!(list(&model).0, "pixels 1x64x64x3");
    assert_eq!(list(&model).1, "features 1x512, logits 1x8, probabilities 1x8, block5_conv3 1x4x4x512, block1_pool 1x32x32x64");
    let model = Spec { from_features: true, ..train(Backbone::Xception) }.build().unwrap();
    assert_eq!(list(&model).0, "features 2x2048, targets 2x8, weights 2");
    assert_eq!(model.graph.dtype(), DType::F32);
    assert_eq!(model.parameters(), 2048 * 8 + 8);
}

#[test]
fn mistakes_are_explained() {
    let error = |spec: Spec| spec.build().unwrap_err().to_string();
    for backbone in Backbone::ALL {
        let text = error(Spec { size: backbone.minimum_size() - 1, ..Spec::new(backbone, 8) });
        assert!(text.contains(&format!("needs at least {} pixels", backbone.minimum_size())), "{text}");
    }
    let text = error(Spec { freeze: Freeze::Layer("block5_pol".into()), ..train(Backbone::Vgg16) });
    assert!(text.contains("no layer is called \"block5_pol\"") && text.contains("block5_pool"), "{text}");
    assert!(error(Spec { freeze: Freeze::Layer("dense".into()), ..train(Backbone::Vgg16) }).contains("nothing to train"));
    assert!(error(Spec { taps: vec!["relu7".into()], ..Spec::new(Backbone::DenseNet121, 8) }).contains("no layer"));
    assert!(error(Spec { batch: 0, ..train(Backbone::Vgg16) }).contains("batch size 0"));
    assert!(error(Spec { features_only: true, ..train(Backbone::Vgg16) }).contains("no loss"));
}
