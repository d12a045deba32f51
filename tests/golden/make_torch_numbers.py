#!/usr/bin/env python3
"""Writes torch_names.txt and torch_numbers.txt: what torchvision and timm call their weights, and what their own networks compute in
double precision from weights that are hashes of these names (the formula of src/weights/init.rs).

torch_names.txt: network, tensor, shape. torch_numbers.txt: network, library, input size, and the logits of one image of hashed
pixels; of VGG16, whose classifier has no counterpart, the first eight pooled features. Batch norm runs on its moving statistics.
"""
import hashlib, math, os
import numpy as np, timm, torch, torchvision
from torch import nn

CLASSES = 8

def hashed(name, n):
    """n numbers in -1..1, as f32."""
    key = np.uint64(int.from_bytes(hashlib.sha256((42).to_bytes(8, "little") + name.encode()).digest()[:8], "little"))
    with np.errstate(over="ignore"):
        z = key + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return (2.0 * (z.astype(np.float64) / 2.0**53) - 1.0).astype(np.float32).astype(np.float64)

def weight(name, shape, norms):
    """In f32: kernels of unit gain, batch norm's factors around one, the rest around zero."""
    u, (module, kind) = hashed(name, math.prod(shape)).reshape(shape), name.rsplit(".", 1)
    if len(shape) > 1:
        # A separable convolution has no ReLU between its two, so half the variance each keeps its gain at one.
        separable = ".conv1." in name and shape[1] == 1 or "pointwise" in name
        u = math.sqrt((3.0 if separable else 6.0) / math.prod(shape[1:])) * u * (0.2 if len(shape) == 2 else 1.0)
    elif module in norms and kind == "weight":
        u = 1.0 + 0.4 * u
    elif kind == "running_var":
        u = 1.0 + 0.5 * u
    else:
        u = 0.1 * u
    return torch.tensor(u.astype(np.float32))

def vgg16(net):
    return lambda x: net.features(x).mean((2, 3))[:, :CLASSES]

def itself(net):
    return net

mean, deviation = [torch.tensor(v, dtype=torch.float64).reshape(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
plain = lambda x: (x / 255 - mean) / deviation
half = lambda x: (x / 255 - 0.5) / 0.5
tv, models = torchvision.models, []
for name, library, make, run, preprocess, sizes in [
    ("vgg16", "torchvision", lambda: tv.vgg16(num_classes=CLASSES), vgg16, plain, [39, 224]),
    ("vgg16", "timm", lambda: timm.create_model("vgg16", num_classes=CLASSES), vgg16, plain, [39]),
    ("xception", "timm", lambda: timm.create_model("legacy_xception", num_classes=CLASSES), itself, half, [74, 299]),
    ("inceptionv3", "torchvision", lambda: tv.inception_v3(num_classes=CLASSES, init_weights=False, transform_input=True), itself, plain, [107, 299]),
    ("inceptionv3", "timm", lambda: timm.create_model("inception_v3", num_classes=CLASSES), itself, half, [107, 76]),
    ("densenet121", "torchvision", lambda: tv.densenet121(num_classes=CLASSES), itself, plain, [75, 224]),
    ("densenet121", "timm", lambda: timm.create_model("densenet121", num_classes=CLASSES), itself, plain, [75]),
]:
    net = make()
    norms = {n for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    state = {k: v if k.endswith("num_batches_tracked") else weight(k, tuple(v.shape), norms) for k, v in net.state_dict().items()}
    net.load_state_dict(state)
    net = net.double().eval()
    models.append((name, library, net, run(net), preprocess, sizes))

here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "torch_names.txt"), "w") as out:
    print(f"# torchvision {torchvision.__version__}, timm {timm.__version__}, by make_torch_numbers.py: network, library, tensor, shape", file=out)
    written = set()
    for name, library, net, *_ in models:
        own = {(name, k): tuple(v.shape) for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
        head = lambda k: k.startswith(("pre_logits", "head", "AuxLogits") + (("classifier",) if name == "vgg16" else ()))
        for (n, k), shape in own.items():
            # Where both libraries agree, the name stands there once.
            if (n, k, shape) not in written:
                print(n, library if head(k) else "both", k, "x".join(map(str, shape)), file=out)
                written.add((n, k, shape))
with open(os.path.join(here, "torch_numbers.txt"), "w") as out:
    print(f"# torch {torch.__version__}, float64, by make_torch_numbers.py: network, library, input size, numbers", file=out)
    for name, library, net, run, preprocess, sizes in models:
        for size in sizes:
            pixels = torch.tensor(127.5 + 127.5 * hashed("pixels", size * size * 3)).reshape(1, size, size, 3).permute(0, 3, 1, 2)
            with torch.no_grad():
                print(name, library, size, *map(repr, run(preprocess(pixels))[0].tolist()), file=out)
