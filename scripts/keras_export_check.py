#!/usr/bin/env python3
"""Holds `defrost export` against Keras, for all four networks: a table of what differs, and exit code 1 if a budget is broken.

Needs: pip install tensorflow-cpu keras h5py pillow safetensors. Run from the project's folder after `cargo build --release`.

- `opens`: a Keras model with perturbed random weights, imported and exported, opened by load_model: its probabilities are to be
  those of the model that it came from, to the bit, for it has the same layers and weights; also as weights loaded into
  a fresh network of keras.applications, and as a model that preprocesses raw pixels itself.
- `predicts`: the opened model's probabilities of PNG images against `defrost predict` of the model file.
- `torch`: files with the names of torchvision and timm (tests/golden/torch_names.txt), imported, exported, opened by Keras in
  double precision: the answers of torchvision's and timm's own networks, tests/golden/torch_numbers.txt.
"""
import hashlib, json, logging, math, os, subprocess, sys, tempfile
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
import numpy as np, keras
from PIL import Image
import keras.applications as ka
logging.disable(logging.WARNING)
from safetensors.numpy import save_file

DEFROST = os.environ.get("DEFROST", "target/release/defrost")
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden")
NETS = dict(vgg16=(ka.VGG16, ka.vgg16), xception=(ka.Xception, ka.xception), inceptionv3=(ka.InceptionV3, ka.inception_v3),
            densenet121=(ka.DenseNet121, ka.densenet))
rows = []

def defrost(*args):
    done = subprocess.run([DEFROST, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"defrost {' '.join(map(str, args))}\n{done.stderr}")
    return done.stdout

def judge(what, worst, budget):
    rows.append((what, budget, worst))
    print(f"{what:58} budget {budget:8.1e}  worst {worst:8.1e}", flush=True)

def network(name, size, classes):
    base = NETS[name][0](include_top=False, weights=None, input_shape=(size, size, 3))
    x = keras.layers.GlobalAveragePooling2D()(base.output)
    return keras.Model(base.inputs, keras.layers.Dense(classes, activation="softmax")(x))

def perturb(model, seed):
    """Kernels of unit gain; batch norm's numbers all different from where they start."""
    rng = np.random.default_rng(seed)
    for w in model.weights:
        u, kind = rng.uniform(-1, 1, w.shape), w.path.split("/")[-1]
        if kind.endswith("kernel"):
            separable = "depthwise" in kind or "pointwise" in kind
            taps = np.prod(w.shape[:2]) if "depthwise" in kind else np.prod(w.shape[:-1])
            u *= math.sqrt((3 if separable else 6) / taps)
            if w.path == "block1_conv1/kernel" and len(model.layers) < 25:
                u /= 64  # VGG16 has no batch norm that would bring pixels of up to 150 down to order one
        w.assign({"gamma": 1 + 0.4 * u, "moving_variance": 1 + 0.5 * u}.get(kind, u if kind.endswith("kernel") else 0.1 * u))

def check_keras(name, size, folder, images, paths):
    keras.backend.clear_session()
    model, preprocess = network(name, size, 5), NETS[name][1].preprocess_input
    perturb(model, 1)
    h5, ours, back, raw = (os.path.join(folder, f"{name}{end}") for end in (".h5", ".safetensors", "-back.h5", "-raw.h5"))
    model.save(h5)
    theirs = model.predict_on_batch(preprocess(images.copy()))
    defrost("import", h5, "--out", ours)
    print(defrost("export", ours, "--to", "keras-h5", "--out", back), end="")
    opened = keras.models.load_model(back, compile=False)
    judge(f"{name} {size}: load_model against the original", np.abs(opened.predict_on_batch(preprocess(images.copy())) - theirs).max(), 0.0)
    fresh = network(name, size, 5)
    fresh.load_weights(back)
    judge(f"{name} {size}: load_weights into keras.applications", np.abs(fresh.predict_on_batch(preprocess(images.copy())) - theirs).max(), 0.0)
    assert [l.name for l in opened.layers if l.weights] == [l.name for l in model.layers if l.weights]
    defrost("export", ours, "--to", "keras-h5", "--with-preprocessing", "--out", raw)
    opened = keras.models.load_model(raw, compile=False)
    # Preprocessing in another order of operations rounds each pixel otherwise.
    judge(f"{name} {size}: with preprocessing, from raw pixels", np.abs(opened.predict_on_batch(images) - theirs).max(), 1e-4)
    records = json.loads(defrost("predict", ours, *paths, "--json"))
    predicted = np.array([[r["probabilities"][str(k)] for k in range(5)] for r in records])
    judge(f"{name} {size}: defrost predict", np.abs(predicted - theirs).max(), 1e-4)

def hashed(name, n):
    """n numbers in -1..1, as f32: the formula of src/weights/init.rs."""
    key = np.uint64(int.from_bytes(hashlib.sha256((42).to_bytes(8, "little") + name.encode()).digest()[:8], "little"))
    with np.errstate(over="ignore"):
        z = key + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return (2.0 * (z.astype(np.float64) / 2.0**53) - 1.0).astype(np.float32).astype(np.float64)

def state_dict(name, library):
    """As tests/golden/make_torch_numbers.py draws it; VGG16's classifier is left out."""
    lines = [l.split() for l in open(os.path.join(GOLDEN, "torch_names.txt"))]
    shapes = {l[2]: tuple(map(int, l[3].split("x"))) for l in lines if l[0] == name and l[1] in ("both", library)}
    shapes = {k: s for k, s in shapes.items() if name != "vgg16" or k.startswith("features")}
    tensors = {}
    for key, shape in shapes.items():
        u, (module, kind) = hashed(key, math.prod(shape)).reshape(shape), key.rsplit(".", 1)
        if len(shape) > 1:
            separable = ".conv1." in key and shape[1] == 1 or "pointwise" in key
            u = math.sqrt((3.0 if separable else 6.0) / math.prod(shape[1:])) * u * (0.2 if len(shape) == 2 else 1.0)
        elif kind == "weight":
            u = 1.0 + 0.4 * u
        elif kind == "running_var":
            u = 1.0 + 0.5 * u
        else:
            u = 0.1 * u
        tensors[key] = u.astype(np.float32)
    return tensors

def in_double(path):
    """The exported model computed in double precision: the file's own configuration with another number type."""
    model = keras.models.load_model(path, compile=False)
    config = json.loads(json.dumps(model.get_config()).replace('"float32"', '"float64"'))
    double = keras.Model.from_config(config)
    double.set_weights(model.get_weights())
    # The logits: without the softmax of the last layer.
    if hasattr(double.layers[-1], "activation"):
        double.layers[-1].activation = keras.activations.linear
    return double

def check_torch(name, library, size, theirs, folder):
    keras.backend.clear_session()
    keras.config.set_floatx("float64")
    source, ours, back = (os.path.join(folder, f"{name}-{library}-{end}") for end in ("t.safetensors", "m.safetensors", "k.h5"))
    if not os.path.exists(source):
        save_file(state_dict(name, library), source)
    defrost("import", source, "--input-size", size, "--out", ours)
    defrost("export", ours, "--to", "keras-h5", "--with-preprocessing", "--out", back)
    pixels = (127.5 + 127.5 * hashed("pixels", 3 * size * size)).reshape(1, size, size, 3)
    answer = np.array(in_double(back)(pixels, training=False))[0, :8]
    keras.config.set_floatx("float32")
    # The configuration's constants are cast through f32 by Keras: pixels off by 1e-7.
    judge(f"{name} {size}: Keras computes what {library} computes", np.abs(answer - theirs).max(), 1e-5)

def main():
    rng = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        for name, size in [("vgg16", 64), ("xception", 96), ("inceptionv3", 107), ("densenet121", 75)]:
            images = rng.integers(0, 256, (4, size, size, 3), dtype=np.uint8)
            paths = [os.path.join(folder, f"{name}-{i}.png") for i in range(len(images))]
            for image, path in zip(images, paths):
                Image.fromarray(image).save(path)
            check_keras(name, size, folder, images.astype("float32"), paths)
        for line in open(os.path.join(GOLDEN, "torch_numbers.txt")):
            words = line.split()
            if words[0] != "#" and int(words[2]) < 200:
                check_torch(words[0], words[1], int(words[2]), np.array(list(map(float, words[3:]))), folder)
    broken = [what for what, budget, worst in rows if not worst <= budget]
    if broken:
        sys.exit("broken: " + "; ".join(broken))

main()
