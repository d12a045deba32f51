"""Defrost held against Keras itself, on all four networks: prints a table and fails where a budget is exceeded.

usage: keras-check.py --oracle keras_oracle.py --data DATA [--full] [--only PART,..] [--nets NET,..] [--flags "FLAG .."].. [--work DIR]

PART: exact | f32 | pixels | split | files. DATA holds images/ and weights/. --full takes every update rule through every network in
double precision, more batches, larger images, every file. --flags goes to every command of the f32 part; given several times, the
part judges each (`--flags= --flags=--exact`: as it is, and by the direct algorithms alone). Needs target/release/defrost and
target/release/examples/feed, and pip install tensorflow-cpu keras h5py pillow safetensors.

A tensor's relative error is |ours - keras| / |keras|, Euclidean norms, taken of its change by a step.
"""

import argparse
import concurrent.futures
import contextlib
import csv
import importlib.util
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore")

import keras
import numpy as np
import tensorflow as tf
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEFROST = ROOT / "target/release/defrost"
FEED = ROOT / "target/release/examples/feed"

# The smallest legal input of each network, and a larger one for f32.
SIZES = {"vgg16": (32, 64), "densenet121": (32, 64), "xception": (71, 96), "inceptionv3": (75, 96)}
# Steps, learning rate, the oracle's flags; Defrost's are the same but for --freeze.
RULES = {
    "one step": (1, 0.01, {}),
    "one step, frozen": (1, 0.01, {"freeze": True}),
    "two steps, momentum": (2, 0.01, {"momentum": 0.9}),
    "two steps, Nesterov": (2, 0.01, {"momentum": 0.9, "nesterov": True}),
    # Adam divides by |g| + 1e-7 in its first step, so rounding of 1e-16 in a small gradient becomes 1e-9 of a step; with larger steps the
    # second gradient then differs by more than 1e-8 in Keras itself, when its weights are changed in the last bit.
    "two steps, Adam": (2, 1e-6, {"optimizer": "adam"}),
}
# Learning rate of ten steps in f32: with 0.01 these random networks are thrown about until no digit of a loss is rounding's alone;
# VGG16, without batch norm, and InceptionV3 with 0.001 too.
TEN = {"vgg16": 0.0001, "densenet121": 0.001, "xception": 0.001, "inceptionv3": 0.0001}


class Table:
    """What was measured, one line each, printed as it comes and again at the end."""

    def __init__(self):
        self.rows, self.failed, self.start = [], False, time.monotonic()

    def judge(self, what, worst, budget, note=""):
        over = not worst <= budget
        self.failed |= over
        share = "over" if over else f"{worst / budget:.1%}" if budget else "exact"
        self.add(what, f"{budget:.1e}" if budget else "0", worst, share, note)

    def tell(self, what, worst, note=""):
        self.add(what, "", worst, "not judged", note)

    def add(self, what, budget, worst, share, note):
        self.rows.append([what, budget, f"{worst:.2e}", share, note])
        print(f"[{time.monotonic() - self.start:4.0f} s] " + " | ".join(self.rows[-1]), file=sys.stderr, flush=True)

    def __str__(self):
        head = [["what", "budget", "worst", "share of budget", ""], ["---"] * 5]
        return "\n".join("| " + " | ".join(row) + " |" for row in head + self.rows)


class Keras:
    """The oracle, called in this process: loading TensorFlow costs more than most of its answers."""

    def __init__(self, path, images):
        spec = importlib.util.spec_from_file_location("keras_oracle", path)
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.read, self.module.load, self.loaded = self.module.load, self.load, {}
        self.images = images
        # The same kernels as in a compiled function, without minutes of tracing.
        tf.config.run_functions_eagerly(True)

    def load(self, a):
        """A model as it was saved; its layers are built once for all questions about one file."""
        if all(file != a.model_file for file, _ in self.loaded):
            self.loaded.clear()
            keras.backend.clear_session()
        key = (a.model_file, a.float64)
        if key not in self.loaded:
            model, names = self.read(a)
            self.loaded[key] = (model, names, model.get_weights())
        keras.config.set_floatx("float64" if a.float64 else "float32")
        model, names, weights = self.loaded[key]
        for layer in model.layers:  # the model's own flag, which was never down, reaches none of them
            layer.trainable = True
        model.set_weights(weights)
        return model, names

    def ask(self, command, **flags):
        """Runs `keras_oracle.py command --flag value ..`."""
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")
        argv = [command]
        for name, value in flags.items():
            argv += [f"--{name}"] if value is True else [f"--{name}", str(value)] if value is not False else []
        sys.argv[1:], kept = argv, sys.argv[1:]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self.module.main()
        finally:
            sys.argv[1:] = kept

    def model(self, net, size, work):
        """A random network with calibrated statistics as ModelCheckpoint saves it, and the same imported into Defrost."""
        legacy, whole, ours = (work / f"{net}-{size}{end}" for end in (".h5", "-whole.h5", ".safetensors"))
        if not ours.exists():
            keras.backend.clear_session()
            self.ask("weights", model=net, size=size, images=self.images, out=legacy)
            keras.backend.clear_session()
            self.ask("full", model=net, size=size, classes=3, weights=legacy, out=whole)
            (work / "classes.txt").write_text("".join(f"{p.name}\n" for p in sorted(self.images.iterdir())))
            defrost("import", whole, "--classes", work / "classes.txt", "--out", ours)
        return whole, ours

    def raw(self, whole, ours, images, size):
        """The model as if made for raw pixels, whose features are so large that its head would saturate: a smaller head."""
        whole_raw, ours_raw = (p.with_name(p.name.replace(f"-{size}", f"-{size}-raw")) for p in (whole, ours))
        if not ours_raw.exists():
            keras.backend.clear_session()
            keras.config.set_floatx("float32")
            keras.config.set_dtype_policy("float32")
            model = keras.models.load_model(whole, compile=False)
            pixels = next(iter(self.module.dataset(images, size, 24)))[0].numpy()
            features = keras.Model(model.inputs, model.layers[-2].output)(pixels, training=False)
            kernel, bias = model.layers[-1].get_weights()
            model.layers[-1].set_weights([kernel / np.abs(features).max(), bias])
            model.save(whole_raw)
            defrost("import", whole_raw, "--classes", whole.parent / "classes.txt", "--preprocess", "none", "--out", ours_raw)
        return whole_raw, ours_raw

    def train(self, whole, out, **flags):
        """Losses and weights after steps over the shuffled images."""
        self.ask("train", **{"model-file": whole, "images": self.images, "out": out}, **flags)
        tensors = load_file(out)
        return tensors.pop("loss").astype(float), tensors


def defrost(*args, code=0):
    """Runs the program; what it printed on stdout, or on stderr for another exit code than 0."""
    done = subprocess.run([str(a) for a in (DEFROST, *args)], capture_output=True, text=True)
    if done.returncode != code:
        raise SystemExit(f"defrost {' '.join(map(str, args))}: exit code {done.returncode}\n{done.stderr}")
    return done.stderr if code else done.stdout


def train(ours, images, out, net, size, batch, steps, *flags, device="cpu", order=42):
    """Losses and weights after `steps` steps in the order of the oracle."""
    out = out.with_suffix(".run")
    shutil.rmtree(out, ignore_errors=True)
    defrost("train", images, "--backbone", net, "--weights", ours, "--input-size", size, "--batch-size", batch, "--steps", steps,
            "--epochs", 1, "--val-split", 0, "--no-shuffle", "--split-seed", order, "--device", device, "--out", out, *flags)
    with open(out / "steps.csv") as f:
        losses = np.array([float(row["loss"]) for row in csv.DictReader(f)])
    tensors = load_file(out / "last.safetensors")
    shutil.rmtree(out)
    return losses, tensors


def change(after, before):
    return {n: after[n].astype(float) - before[n].astype(float) for n in before}


def errors(ours, keras):
    """Relative error of every tensor; one that Keras leaves alone must be left alone to the bit."""
    def one(a, b):
        norm = np.linalg.norm(b)
        return np.linalg.norm(a - b) / norm if norm else 0.0 if not a.any() else np.inf
    return {n: one(ours[n], keras[n]) for n in keras}


def exact(table, oracle, work, nets, full):
    """Double precision: Keras's f64 against the specification."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = []
        for net in nets:
            whole, ours = oracle.model(net, SIZES[net][0], work)
            for rule in RULES if full or net == "densenet121" else list(RULES)[:2]:
                steps, lr, flags = RULES[rule]
                own = [f for name, value in flags.items() for f in ([f"--{name}"] if value is True else [f"--{name}", value])]
                own = ["--freeze", "all"] if "freeze" in flags else own
                out = work / f"{net} {rule}"
                jobs.append((net, rule, whole, ours, pool.submit(
                    train, ours, oracle.images, out, net, SIZES[net][0], 4, steps, *own, "--lr", f"{lr:.6f}", device="naive")))
        for net, rule, whole, ours, job in jobs:
            steps, lr, flags = RULES[rule]
            losses, after = oracle.train(whole, work / "keras.safetensors", size=SIZES[net][0], batch=4, steps=steps, lr=lr, float64=True, **flags)
            before, (our_losses, our_after) = load_file(ours), job.result()
            off = errors(change(our_after, before), change(after, before))
            worst, median = max(off, key=off.get), np.median(list(off.values()))
            table.judge(f"{net}, f64, {rule}: change of {len(off)} tensors", off[worst], 1e-8, f"{worst}; median {median:.1e}")
            table.judge(f"{net}, f64, {rule}: loss", np.max(np.abs(our_losses - losses) / np.abs(losses)), 1e-8)


def f32(table, oracle, work, nets, full, variants):
    """Single precision on the CPU; what Keras's own f32 differs from its f64 is the yardstick of training."""
    few = sample(oracle.images, work / "few", 8)
    for net in nets:
        size = 128 if full else SIZES[net][1]
        whole, ours = oracle.model(net, size, work)
        inference(table, oracle, work, net, size, whole, ours, few, variants)
        one_step(table, oracle, work, net, size, whole, ours, range(1, 9 if full else 5), variants)
        ten_steps(table, oracle, work, net, size, whole, ours, range(1, 5), variants)


def title(net, flags, what):
    return f"{net}, {' '.join(['f32', *flags])}, {what}"


def sample(images, to, per_class):
    """The first images of every class, linked into a folder of their own."""
    for folder in sorted(p for p in images.iterdir() if p.is_dir()):
        (to / folder.name).mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.iterdir())[:per_class]:
            link = to / folder.name / file.name
            if not link.exists():
                link.symlink_to(file.resolve())
    return to


def inference(table, oracle, work, net, size, whole, ours, images, variants):
    for mode in ("backbone", "none"):
        if mode == "none":
            whole, ours = oracle.raw(whole, ours, images, size)
        out, ask = work / "forward.safetensors", {"model-file": whole, "images": images, "size": size, "batch": 8, "preprocess": mode}
        oracle.ask("forward", **ask, out=out, float64=True)
        exact = load_file(out)["probabilities"]
        oracle.ask("forward", **ask, out=out)
        with safe_open(out, "numpy") as f:
            meta, theirs = f.metadata(), f.get_tensor("probabilities")
        for flags in variants:
            answers = json.loads(defrost("predict", ours, images, "--preprocess", mode, "--json", *flags))
            answers = {os.path.relpath(a["path"], images): list(a["probabilities"].values()) for a in answers}
            answers = np.array([answers[f] for f in json.loads(meta["files"])])
            # Against Keras in double precision: two results in f32 differ by what both rounded, and Keras's part is not ours to bound.
            note = f"to Keras f32 {np.abs(answers - theirs).max():.1e}, which is {np.abs(theirs - exact).max():.1e} off itself"
            what = f"{size} px, --preprocess {mode}"
            table.judge(title(net, flags, f"{what}: probabilities of {len(theirs)} PNG images"), np.abs(answers - exact).max(), 1e-4, note)
            scores = json.loads(defrost("evaluate", ours, images, "--subset", "all", "--preprocess", mode, "--json", *flags))
            for score in ("loss", "accuracy"):
                table.judge(title(net, flags, f"{what}: evaluate, {score}"), abs(scores[score] - float(meta[score])), 1e-4)


def one_step(table, oracle, work, net, size, whole, ours, orders, variants):
    """Each tensor's change in one step of batch 8, root mean square over some batches: a single ReLU that rounds to the other side
    moves a gradient by more than all other rounding, in Keras as here, and one batch alone would be a lottery."""
    before = load_file(ours)
    names, keras_off, our_off = list(before), [], [[] for _ in variants]
    for order in orders:
        ask = {"size": size, "batch": 8, "steps": 1, "order-seed": order}
        exact, rounded = (change(oracle.train(whole, work / "keras.safetensors", float64=f64, **ask)[1], before) for f64 in (True, False))
        keras_off.append(list(errors(rounded, exact).values()))
        for flags, off in zip(variants, our_off):
            after = train(ours, oracle.images, work / f"{net} step", net, size, 8, 1, *flags, order=order)[1]
            off.append(list(errors(change(after, before), exact).values()))
    mean = lambda off: np.sqrt(np.mean(np.square(off), axis=0))
    theirs = mean(keras_off)
    for flags, off in zip(variants, map(mean, our_off)):
        what = title(net, flags, f"{size} px, {len(keras_off)} batches: a tensor's change in one step")
        table.judge(f"{what}, worst", off.max(), 3 * theirs.max(), f"{names[off.argmax()]}; Keras f32 {theirs.max():.1e}")
        table.judge(f"{what}, median", np.median(off), 3 * np.median(theirs), f"Keras f32 {np.median(theirs):.1e}")


def ten_steps(table, oracle, work, net, size, whole, ours, orders, variants):
    """The largest distance of ten losses, root mean square over some orders of the images: after ten steps it is a matter of chance which
    of two results in f32 is nearer to that in f64, by a factor of ten and more."""
    yards, offs, first = [], [[] for _ in variants], None
    for order in orders:
        ask = {"size": size, "batch": 8, "steps": 10, "lr": TEN[net], "order-seed": order}
        exact, rounded = (oracle.train(whole, work / "keras.safetensors", float64=f64, **ask)[0] for f64 in (True, False))
        first = exact if first is None else first
        yards.append(np.abs(rounded - exact).max())
        for flags, off in zip(variants, offs):
            rate = ("--lr", f"{TEN[net]:.6f}")
            losses = train(ours, oracle.images, work / f"{net} ten", net, size, 8, 10, *rate, *flags, order=order)[0]
            off.append(np.abs(losses - exact).max())
    mean = lambda off: np.sqrt(np.mean(np.square(off)))
    yard = mean(yards)
    for flags, off in zip(variants, map(mean, offs)):
        what = title(net, flags, f"{size} px, {len(yards)} orders: losses of ten steps")
        table.judge(what, off, 3 * max(yard, 1e-5), f"{first[0]:.3f} to {first[-1]:.3f}; Keras f32 {yard:.1e}")


def feed(folder, size, out, share=0.2, seed=42):
    """What Defrost feeds a network: pixels `[n, size, size, 3]` in listing order, and the two lists of a split."""
    done = subprocess.run([str(a) for a in (FEED, folder, size, share, seed, out)], capture_output=True, text=True, check=True)
    lists = {"train": [], "val": []}
    for line in done.stdout.splitlines():
        subset, path = line.split(" ", 1)
        lists[subset].append(path)
    return np.fromfile(out, "<f4").reshape(-1, size, size, 3), lists


def pixels(table, oracle, work, data, full):
    """Pixels after decode and resize, for every file of the real folders with one of the two codings."""
    folders, size = sorted(p for p in (data / "images").iterdir() if p.is_dir()), 224
    worst = {"PNG": [], "JPEG, accurate": [], "JPEG, default": []}
    for folder in folders:
        few = sample(folder, work / f"pixels {folder.name}", 1000 if full else 12)
        ours, _ = feed(few, size, work / "pixels.f32")
        files = oracle.module.dataset(few, size, 1).file_paths
        for mine, path in zip(ours, files, strict=True):
            raw = tf.io.read_file(path)
            resize = lambda image: tf.image.resize(image, (size, size), "bilinear").numpy()
            if raw.numpy()[:3] == b"\xff\xd8\xff":
                decoded = [tf.io.decode_jpeg(raw, 3, dct_method=method) for method in ("INTEGER_ACCURATE", "")]
                for kind, image in zip(("JPEG, accurate", "JPEG, default"), decoded):
                    worst[kind].append(np.abs(mine - resize(image)))
            else:
                worst["PNG"].append(np.abs(mine - resize(tf.io.decode_image(raw, 3, expand_animations=False))))
    top = {kind: max(off.max() for off in all) for kind, all in worst.items()}
    mean = {kind: max(off.mean() for off in all) for kind, all in worst.items()}
    table.judge(f"pixels at {size} px, {len(worst['PNG'])} PNG files", top["PNG"], 1e-3)
    count = f"{len(worst['JPEG, accurate'])} JPEG files"
    table.judge(f"pixels at {size} px, {count}, TensorFlow INTEGER_ACCURATE: worst", top["JPEG, accurate"], 4.0)
    table.judge(f"pixels at {size} px, {count}, TensorFlow INTEGER_ACCURATE: an image's mean", mean["JPEG, accurate"], 0.5)
    table.tell(f"pixels at {size} px, {count}, TensorFlow's default: worst", top["JPEG, default"], f"an image's mean {mean['JPEG, default']:.2f}")


def layouts(work, image):
    """Three folders of class folders: plain; nested, with dots, spaces and capitals; names whose order is easily mistaken."""
    trees = {
        "plain": {c: [f"{i}.png" for i in range(n)] for c, n in (("cat", 40), ("dog", 31), ("fox", 7))},
        "nested": {
            "Zebra fish": ["a/1.png", "a/b/2.PNG", "a.b/3.png", "a b/4.png", "10.png", "2.png", "é.png"],
            "apple": [f"patient {i}/frame {j}.JPG" for i in range(9) for j in range(3)],
            "B.1": ["x.jpeg", "X.jpeg", "x1.bmp", "notes.txt", ".hidden.png", ".dot/inside.png"],
        },
        "tricky": {c: [f"img{i}.png" for i in range(13)] for c in ("class10", "class2", "Class1", "_last", "ärzte", "class-1")},
    }
    for name, classes in trees.items():
        for c, files in classes.items():
            for file in files:
                path = work / "layouts" / name / c / file
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(image, path)
        yield name, work / "layouts" / name


def split(table, work, image):
    """The lists that image_dataset_from_directory makes, in its order before it shuffles batches."""
    for name, folder in layouts(work, image):
        for seed in (42, 7):
            _, ours = feed(folder, 8, work / "split.f32", seed=seed)
            wrong = 0
            for subset, key in (("training", "train"), ("validation", "val")):
                theirs = keras.utils.image_dataset_from_directory(folder, image_size=(8, 8), validation_split=0.2, subset=subset, seed=seed, verbose=0)
                theirs = [os.path.relpath(f, folder) for f in theirs.file_paths]
                wrong += abs(len(theirs) - len(ours[key])) + sum(a != b for a, b in zip(theirs, ours[key]))
            files = f"{len(ours['train'])} + {len(ours['val'])}"
            table.judge(f"split of the {name} folders, seed {seed}: files at another place of {files}", wrong, 0)


def files(table, work, data):
    """Real files of other networks: an import must end in an error that says which layer is not what it should be."""
    for path in sorted(p for p in (data / "weights/keras-files").iterdir() if p.suffix in (".hdf5", ".h5", ".keras")):
        out = work / "refused.safetensors"
        said = defrost("import", path, "--out", out, code=2).strip().splitlines()
        refused = said and path.name in said[0] and "holds another network" in said[0] and not out.exists()
        table.judge(f"import of {path.name} ends with the clear error", 0 if refused else np.inf, 0, said[0].split(f"{path.name}: ")[-1] if said else "")


def main():
    global DEFROST
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--oracle", type=pathlib.Path, required=True)
    ap.add_argument("--data", type=pathlib.Path, required=True)
    ap.add_argument("--full", action="store_true")
    ap.add_argument("--only", default="exact,f32,pixels,split,files")
    ap.add_argument("--nets", default=",".join(SIZES))
    ap.add_argument("--flags", action="append")
    ap.add_argument("--work", type=pathlib.Path)
    ap.add_argument("--defrost", type=pathlib.Path, default=DEFROST)
    a = ap.parse_args()
    DEFROST = a.defrost
    images = a.data / "images/breast-ultrasound-3"
    table, oracle, nets = Table(), Keras(a.oracle, images), a.nets.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        work = a.work or pathlib.Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        parts = {
            "exact": lambda: exact(table, oracle, work, nets, a.full),
            "f32": lambda: f32(table, oracle, work, nets, a.full, [f.split() for f in a.flags or [""]]),
            "pixels": lambda: pixels(table, oracle, work, a.data, a.full),
            "split": lambda: split(table, work, next((images / "normal").iterdir())),
            "files": lambda: files(table, work, a.data),
        }
        for part in a.only.split(","):
            parts[part]()
    print(table)
    sys.exit(table.failed)


if __name__ == "__main__":
    main()
