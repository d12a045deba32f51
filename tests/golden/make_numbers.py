#!/usr/bin/env python3
"""Writes numbers.txt: activations, loss, gradients and batch-norm updates of the four networks, computed by Keras in double precision.

Weights and pixels are hashes of tensor name and position (the formula of src/weights/init.rs), so that no weight file is
needed. A tensor x of n numbers is recorded as its root mean square and its probe, sum(x[i] * u[i]) / sqrt(n), where u is
such a hash of the name "probe": a probe changes if any two elements trade places.
"""
import hashlib, math, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, keras, tensorflow as tf
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
import keras.applications as ka

def hashed(name, n):
    """n numbers in -1..1, as f32."""
    key = np.uint64(int.from_bytes(hashlib.sha256((42).to_bytes(8, "little") + name.encode()).digest()[:8], "little"))
    with np.errstate(over="ignore"):
        z = key + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return (2.0 * (z.astype(np.float64) / 2.0**53) - 1.0).astype(np.float32).astype(np.float64)

def weight(path, shape):
    u, kind = hashed(path, math.prod(shape)).reshape(shape), path.split("/")[-1]
    if kind.endswith("kernel"):
        taps = math.prod(shape[:-1]) if kind != "depthwise_kernel" else shape[0] * shape[1]
        return math.sqrt(6.0 / taps) * u * (0.02 if path == "dense/kernel" else 1.0)
    return {"gamma": 1.0 + 0.4 * u, "moving_variance": 1.0 + 0.5 * u}.get(kind, 0.1 * u)

def record(*words, x):
    x = np.asarray(x, dtype=np.float64).ravel()
    print(*words, repr(float(np.sqrt(np.mean(x * x)))), repr(float(x @ hashed("probe", x.size) / math.sqrt(x.size))), file=out)

nets = dict(vgg16=(ka.VGG16, ka.vgg16, 39), xception=(ka.Xception, ka.xception, 74),
            inceptionv3=(ka.InceptionV3, ka.inception_v3, 107), densenet121=(ka.DenseNet121, ka.densenet, 64))
out = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "numbers.txt"), "w")
print(f"# Keras {keras.__version__}, float64, by make_numbers.py: network, input size, what, root mean square, probe", file=out)
for name, (make, module, size) in nets.items():
    keras.backend.clear_session()
    base = make(include_top=False, weights=None, input_shape=(size, size, 3))
    y = keras.layers.Dense(8, activation="softmax")(keras.layers.GlobalAveragePooling2D()(base.output))
    model = keras.Model(base.inputs, y)
    for w in model.weights:
        w.assign(weight(w.path, tuple(w.shape)))
    pixels = (127.5 + 127.5 * hashed("pixels", 3 * size * size * 3)).reshape(3, size, size, 3)
    x = module.preprocess_input(pixels.copy())
    targets = np.eye(8)[[5, 0, 3]]
    shown = [l for l in model.layers[1:-1] if type(l).__name__ != "ZeroPadding2D"]
    shown = [l for i, l in enumerate(shown) if i % 8 == 0 or i >= len(shown) - 2]
    for l, v in zip(shown, keras.Model(model.inputs, [l.output for l in shown])(x, training=False)):
        record(name, size, "infer", l.name, x=v)
    record(name, size, "infer", "probabilities", x=model(x, training=False))
    with tf.GradientTape() as tape:
        p = model(x, training=True)
        loss = tf.reduce_mean(-tf.math.log(tf.reduce_sum(p * targets, axis=1)))
    gradients = tape.gradient(loss, model.trainable_weights)
    p = np.asarray(p)
    record(name, size, "train", "probabilities", x=p)
    record(name, size, "train", "losses", x=-np.log((p * targets).sum(1)))
    for i, (w, g) in enumerate(zip(model.trainable_weights, gradients)):
        if i % 12 == 0:
            record(name, size, "gradient", w.path, x=g)
    record(name, size, "gradient", "all", x=np.concatenate([np.asarray(g).ravel() for g in gradients]))
    statistics = [w for l in model.layers for w in l.non_trainable_weights]
    if statistics:
        record(name, size, "train", "statistics", x=np.concatenate([np.asarray(w).ravel() for w in statistics]))
