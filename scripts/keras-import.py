#!/usr/bin/env python3
"""Files that Keras writes, imported, answer as Keras does.

For each network: weights and whole models in every layout that Keras 1 to 3 write, with flat and nested backbones and several
heads. `defrost import` reads each, `defrost predict` answers for 24 PNG images, and the probabilities are held against Keras's
own (budget 1e-4). Files that hold something else must be refused with the layer's name.

  scripts/keras-import.py [--defrost target/release/defrost] [NETWORK ...]

Needs: pip install tensorflow-cpu keras h5py pillow numpy
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import h5py
import keras
import keras.applications as ka
import numpy as np
from keras import layers
from keras.src.legacy.saving import legacy_h5_format
from PIL import Image

NETWORKS = {
    "vgg16": (ka.VGG16, ka.vgg16, 32),
    "xception": (ka.Xception, ka.xception, 71),
    "inceptionv3": (ka.InceptionV3, ka.inception_v3, 75),
    "densenet121": (ka.DenseNet121, ka.densenet, 32),
}
# Changes of a configuration that no shape of a weight tells: the k-th layer of a class, a setting, and what is to be said.
CHANGES = {
    "vgg16": ("MaxPooling2D", 3, {"strides": [1, 1]}, "strides [1, 1], expected [2, 2]"),
    "xception": ("Conv2D", 0, {"strides": [1, 1]}, "strides [1, 1], expected [2, 2]"),
    "inceptionv3": ("Conv2D", 1, {"padding": "same"}, "padding same, expected valid"),
    "densenet121": ("Conv2D", 60, {"dilation_rate": [2, 2]}, "dilation rate [2, 2], expected [1, 1]"),
}
# Networks that are easily taken for these, and the first layer that tells them apart.
RELATIVES = {"vgg16": [("vgg19", ka.VGG19, "block3_conv4")], "densenet121": [("densenet169", ka.DenseNet169, "conv4_block25_0_bn")]}
BUDGET = 1e-4
CLASSES = ["normal", "polyp", "ulcer"]


def base_model(name, seed=1):
    """A backbone whose activations stay in range: He-scaled kernels, statistics of a batch of noise."""
    make, module, size = NETWORKS[name]
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model = make(include_top=False, weights=None, input_shape=(size, size, 3))
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        values = layer.get_weights()
        if isinstance(layer, layers.BatchNormalization):
            draw = {"gamma": lambda s: rng.uniform(0.6, 1.4, s), "beta": lambda s: rng.normal(0, 0.1, s)}
            layer.set_weights([draw[v.name](v.shape) if v.name in draw else v.numpy() for v in layer.weights])
        elif values:
            depthwise = isinstance(layer, layers.SeparableConv2D)
            fan = lambda i, w: w.shape[0] * w.shape[1] * (1 if depthwise and i == 0 else w.shape[2])
            draw = lambda i, w: rng.normal(0, np.sqrt(2 / fan(i, w)) if w.ndim == 4 else 0.05, w.shape)
            values = [draw(i, w) for i, w in enumerate(values)]
            if layer.name == "block1_conv1" and name == "vgg16":
                values[0] /= 64  # no batch norm brings pixels down to order one
            layer.set_weights(values)
    norms = [l for l in model.layers if isinstance(l, layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(module.preprocess_input(rng.uniform(0, 255, (8, size, size, 3))), training=True)
    for layer in norms:
        layer.momentum = 0.99
    return model


def flat(base, hidden=None, units=len(CLASSES), act="softmax"):
    x = layers.GlobalAveragePooling2D()(base.output)
    if hidden:
        x = layers.Dropout(0.5)(layers.Dense(hidden, activation="sigmoid")(x))
    return keras.Model(base.inputs, layers.Dense(units, activation=act)(x))


def shrink_head(model, fed):
    """Features far from order one saturate the head, whose answers would then agree whatever is computed."""
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel / np.abs(keras.Model(model.inputs, model.layers[-2].output).predict(fed, verbose=0)).max(), bias])


def nested(base, *before):
    size = base.inputs[0].shape[1]
    tail = [layers.GlobalAveragePooling2D(), layers.Dense(16, activation="relu"), layers.Dense(len(CLASSES)), layers.Softmax()]
    return keras.Sequential([keras.Input((size, size, 3)), *before, base, *tail])


def changed(name, base):
    """The same weights in a network of the same shapes that computes something else; the changed layer; the words for it."""
    kind, k, settings, words = CHANGES[name]
    config = base.get_config()
    layer = [l for l in config["layers"] if l["class_name"] == kind][k]
    layer["config"].update(settings)
    other = keras.Model.from_config(config)
    other.set_weights(base.get_weights())
    return flat(other), layer["config"]["name"], words


def legacy(model, path):
    with h5py.File(path, "w") as f:
        legacy_h5_format.save_weights_to_hdf5_group(f, model)


def rewrite(source, path, name=lambda n: n, weight=lambda layer, w: w + ":0", dtype=None, parts=False, drop=(), shape=None, first=None, **storage):
    """A legacy file in the style of another version: names of fixed length, other names, other types, other storage."""
    plain = lambda n: n if isinstance(n, str) else n.decode()
    with h5py.File(source) as old, h5py.File(path, "w") as new:
        names = [plain(n) for n in old.attrs["layer_names"] if plain(n) not in drop]
        attribute(new, "layer_names", [name(n) for n in names], parts)
        for n in names:
            group = new.create_group(name(n))
            weights = [plain(w) for w in old[n].attrs["weight_names"]]
            attribute(group, "weight_names", [weight(name(n), w) for w in weights], False)
            for w in weights:
                data = np.array(old[n][w])
                data = data[..., : shape] if shape and data.ndim == 4 else data
                if first is not None:
                    data.flat[0], first = first, None
                group.create_dataset(weight(name(n), w), data=data.astype(dtype or data.dtype), **(storage if data.ndim else {}))


def attribute(group, name, texts, parts):
    texts = [t.encode() for t in texts]
    if not parts:
        group.attrs[name] = np.array(texts) if texts else np.zeros(0)
    for i, part in enumerate(np.array_split(texts, 3) if parts else []):
        group.attrs[f"{name}{i}"] = part


def images(folder, size):
    rng = np.random.default_rng(7)
    for i in range(24):
        rough = rng.uniform(0, 255, (4, 4, 3)).astype("uint8")
        os.makedirs(os.path.join(folder, CLASSES[i % 3]), exist_ok=True)
        noise = rng.normal(0, 20, (size, size, 3))
        smooth = np.asarray(Image.fromarray(rough).resize((size, size)), "float32")
        Image.fromarray(np.clip(smooth + noise, 0, 255).astype("uint8")).save(os.path.join(folder, CLASSES[i % 3], f"{i:02}.png"))
    files = sorted(os.path.join(d, f) for d, _, fs in os.walk(folder) for f in fs)
    return files, np.stack([np.asarray(Image.open(f), "float32") for f in files])


class Check:
    def __init__(self, defrost, work):
        self.defrost, self.work, self.failed = defrost, work, 0
        self.classes = os.path.join(work, "classes.txt")
        with open(self.classes, "w") as f:
            f.write("\n".join(CLASSES) + "\n")

    def run(self, *args):
        return subprocess.run([self.defrost, *args], capture_output=True, text=True)

    def report(self, network, what, result, good):
        self.failed += not good
        print(f"{network:12} {what:58} {result} {'' if good else 'FAILED'}", flush=True)

    def answers(self, network, what, path, files, theirs, *flags):
        """The imported file predicts what Keras predicts."""
        out = os.path.join(self.work, "model.safetensors")
        done = self.run("import", path, "--out", out, *flags)
        if done.returncode:
            return self.report(network, what, done.stderr.strip()[-200:], False)
        done = self.run("predict", out, *files, "--json")
        if done.returncode:
            return self.report(network, what, done.stderr.strip()[-200:], False)
        ours = np.array([list(row["probabilities"].values()) for row in json.loads(done.stdout)])
        worst = np.abs(ours - theirs).max() if ours.shape == theirs.shape else np.inf
        self.report(network, what, f"{worst:.1e} of {BUDGET:.0e}", worst <= BUDGET)

    def refused(self, network, what, path, *words, flags=()):
        out = os.path.join(self.work, "refused.safetensors")
        done = self.run("import", path, "--out", out, *flags)
        said = done.stderr.strip()
        good = done.returncode == 2 and all(w in said for w in words) and not os.path.exists(out)
        self.report(network, what, "refused: " + said.splitlines()[-1 if good else 0][-90:], good)


def network(check, name):
    _, module, size = NETWORKS[name]
    at = lambda file: os.path.join(check.work, file)
    folder = at(name)
    files, pixels = images(folder, size)
    fed = np.asarray(module.preprocess_input(pixels.copy()))
    base = base_model(name)
    names, none = ["--classes", check.classes], ["--preprocess", "none"]
    keras.utils.set_random_seed(3)

    model = flat(base)
    shrink_head(model, fed)
    # Larger steps saturate VGG16, whose answers would then agree whatever is computed.
    model.compile(loss="categorical_crossentropy", optimizer=keras.optimizers.Adam(1e-5))
    model.train_on_batch(fed[:2], np.eye(3)[[0, 1]])
    theirs = model.predict(fed, verbose=0)
    for file in ["whole.h5", "whole.keras"]:
        model.save(at(file))
        check.answers(name, f"{file}, after a step of Adam", at(file), files, theirs, *names)
    os.rename(at("whole.keras"), at("really_keras.h5"))
    check.answers(name, "a .keras archive called .h5", at("really_keras.h5"), files, theirs)
    raw = flat(base)
    shrink_head(raw, pixels)
    raw.save(at("raw.h5"))
    check.answers(name, "raw pixels, as in the article", at("raw.h5"), files, raw.predict(pixels, verbose=0), *names, *none)
    model.save_weights(at("flat.weights.h5"))
    sized = ["--input-size", str(size)]
    check.answers(name, ".weights.h5", at("flat.weights.h5"), files, theirs, *sized)
    legacy(model, at("legacy.h5"))
    check.answers(name, "legacy weights, Keras 3", at("legacy.h5"), files, theirs, *sized)
    rewrite(at("legacy.h5"), at("k2.h5"), weight=lambda layer, w: w + ":0")
    check.answers(name, "legacy weights, Keras 2 names", at("k2.h5"), files, theirs, *sized)
    rewrite(at("legacy.h5"), at("k1.h5"), weight=lambda layer, w: f"{layer.replace('/', '_')}_{w.rsplit('/')[-1]}_1:0", parts=True)
    check.answers(name, "Keras 1 names, names in parts", at("k1.h5"), files, theirs, *sized)
    rewrite(at("legacy.h5"), at("zip.h5"), dtype=">f8", compression="gzip", shuffle=True)
    check.answers(name, "f64, big-endian, compressed", at("zip.h5"), files, theirs, *sized)
    if name == "densenet121":
        old = lambda n: n.replace("conv1_conv", "conv1/conv").replace("conv1_bn", "conv1/bn").replace("conv1_relu", "conv1/relu")
        rewrite(at("legacy.h5"), at("old.h5"), name=old, weight=lambda layer, w: f"{layer}/{w.rsplit('/')[-1]}:0")
        check.answers(name, "old names with slashes (conv1/bn)", at("old.h5"), files, theirs, *sized)

    model = flat(base, hidden=8)
    model.save(at("hidden.h5"))
    check.answers(name, "a hidden layer of sigmoids (the article's head)", at("hidden.h5"), files, model.predict(pixels, verbose=0), *none)
    model.save_weights(at("hidden.weights.h5"))
    hidden = ["--hidden", "8:sigmoid"]
    check.answers(name, "the same from .weights.h5", at("hidden.weights.h5"), files, model.predict(fed, verbose=0), *sized, *hidden)
    check.refused(name, "the same without --hidden", at("hidden.weights.h5"), "--hidden 8:ACTIVATION")

    model = flat(base, units=1, act="sigmoid")
    shrink_head(model, fed)
    model.save(at("binary.h5"))
    p = model.predict(fed, verbose=0)
    check.answers(name, "one sigmoid output", at("binary.h5"), files, np.hstack([1 - p, p]))

    for l in base.layers[: len(base.layers) // 2]:
        l.trainable = False
    model = nested(base, layers.RandomFlip())
    theirs = model.predict(fed, verbose=0)
    for file in ["nested.h5", "nested.keras"]:
        model.save(at(file))
        check.answers(name, f"{file}, half frozen", at(file), files, theirs, *names)
    legacy(model, at("nested_weights.h5"))
    check.answers(name, "its legacy weights alone", at("nested_weights.h5"), files, theirs, *sized, "--hidden", "16:relu")
    model.save_weights(at("nested.weights.h5"))
    check.answers(name, "its .weights.h5", at("nested.weights.h5"), files, theirs, *sized, "--hidden", "16:relu")
    model = nested(base, layers.Rescaling(1 / 127.5, offset=-1))
    model.save(at("rescaling.keras"))
    check.answers(name, "Rescaling within the model", at("rescaling.keras"), files, model.predict(pixels, verbose=0))

    model = keras.Sequential([base, layers.GlobalMaxPooling2D(), layers.Dense(3, activation="softmax")])
    model.build((None, size, size, 3))
    model.save(at("max.h5"))
    check.refused(name, "global max pooling", at("max.h5"), "global_max_pooling2d", "GlobalMaxPooling2D")
    model, layer, words = changed(name, base)
    for file in ["changed.h5", "changed.keras"]:
        model.save(at(file))
        check.refused(name, f"other windows: {file}", at(file), layer, words)
    model = flat(base, act="sigmoid")
    model.save(at("multi.h5"))
    check.refused(name, "several sigmoids", at("multi.h5"), "sigmoid", "softmax")
    weighted = [l.name for l in base.layers if l.weights]
    middle = weighted[len(weighted) // 2]
    rewrite(at("legacy.h5"), at("missing.h5"), drop=[middle])
    check.refused(name, f"without {middle}", at("missing.h5"), "no such layer" if name != "inceptionv3" else "expect")
    rewrite(at("legacy.h5"), at("shape.h5"), shape=5)
    check.refused(name, "wrong shapes", at("shape.h5"), "shape", flags=["--backbone", name])
    for relative, cls, layer in RELATIVES.get(name, []):
        legacy(cls(weights=None, include_top=False), at("relative.h5"))
        check.refused(name, f"{relative}, its nearest relative", at("relative.h5"), layer, "too many", name)
    rewrite(at("legacy.h5"), at("nan.h5"), first=np.nan)
    check.refused(name, "a number that is not one", at("nan.h5"), "element 0 is NaN")
    other = [n for n in NETWORKS if n != name][0]
    check.refused(name, f"taken for {other}", at("legacy.h5"), other, flags=["--backbone", other])
    with zipfile.ZipFile(at("really_keras.h5")) as old, zipfile.ZipFile(at("deflated.keras"), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    model = keras.models.load_model(at("whole.h5"), compile=False)
    if name == "densenet121":  # with Adam's moments the others are larger than what is inflated
        check.answers(name, "a deflated .keras archive", at("deflated.keras"), files, model.predict(fed, verbose=0))
    for file in os.listdir(check.work):
        if file.endswith((".h5", ".keras")):
            os.remove(at(file))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--defrost", default="target/release/defrost")
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    args = parser.parse_args()
    work = tempfile.mkdtemp(prefix="defrost-keras-import-")
    try:
        check = Check(args.defrost, work)
        for name in args.networks or NETWORKS:
            network(check, name)
        print("all as expected" if not check.failed else f"{check.failed} FAILED")
        sys.exit(check.failed > 0)
    finally:
        shutil.rmtree(work)


main()
