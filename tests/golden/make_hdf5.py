#!/usr/bin/env python3
"""Small HDF5 files of every kind that the reader reads or refuses, written by h5py: tests/golden/hdf5/*.h5.

Element i of every data set is i / 2 - 3.  pip install h5py numpy
"""
import os

import h5py
import numpy as np

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hdf5")
TEXT = h5py.string_dtype()


def values(shape, dtype="<f4"):
    return (np.arange(int(np.prod(shape))) / 2 - 3).reshape(shape).astype(dtype)


def new(name, libver="earliest"):
    path = os.path.join(OUT, name)
    if os.path.exists(path):
        os.remove(path)
    return h5py.File(path, "w", libver=libver)


def types(name, libver):
    """Every float type, both byte orders; texts of fixed and variable length; an attribute in parts."""
    with new(name, libver) as f:
        f.attrs["fixed"] = np.array([b"input", b"conv1/bn", "größe".encode()])
        f.attrs["variable"] = np.array(["input", "conv1/bn", "größe"], dtype=TEXT)
        f.attrs["one"] = "3.15.1"
        f.attrs["none"] = np.zeros(0)
        f.attrs["part0"] = np.array(["a", "b"], dtype="S")
        f.attrs["part1"] = np.array(["c"], dtype="S")
        for dtype in ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]:
            f["conv1/bn/" + dtype.replace("<", "little_").replace(">", "big_")] = values((2, 3), dtype)
        f["scalar"] = np.float32(-3)
        f["empty"] = np.zeros((0, 4), "f4")
        f["integers"] = np.arange(4)


def many(name, libver):
    """More links and attributes than a header or one node holds."""
    with new(name, libver) as f:
        for i in range(150):
            f[f"layer_{i}"] = np.float32(i)
        g = f.create_group("attributes")
        for i in range(40):
            g.attrs[f"a{i}"] = f"text {i}"


def chunks(name, libver):
    with new(name, libver) as f:
        f.create_dataset("plain", data=values((7, 5)), chunks=(3, 2))
        f.create_dataset("gzip", data=values((7, 5)), chunks=(3, 2), compression="gzip")
        f.create_dataset("shuffle", data=values((3, 3, 4, 6), "<f8"), chunks=(2, 3, 3, 4), compression="gzip", shuffle=True)
        f.create_dataset("fletcher", data=values((7, 5)), chunks=(3, 2), compression="gzip", shuffle=True, fletcher32=True)
        f.create_dataset("single", data=values((7, 5)), chunks=(7, 5))
        f.create_dataset("single_gzip", data=values((7, 5)), chunks=(7, 5), compression="gzip")
        if libver == "latest":
            f.create_dataset("paged", data=values((1100,)), chunks=(1,))
        dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        dcpl.set_chunk((3, 2))
        dcpl.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        space = h5py.h5s.create_simple((7, 5))
        early = h5py.h5d.create(f.id, b"early", h5py.h5t.IEEE_F32LE, space, dcpl)
        early.write(h5py.h5s.ALL, h5py.h5s.ALL, values((7, 5)))


def refused():
    with new("refused.h5") as f:
        f["data"] = values((4,))
        f["soft"] = h5py.SoftLink("/data")
        f["external"] = h5py.ExternalLink("other.h5", "/data")
        f.create_dataset("raw", (4,), "f4", external=[("other.bin", 0, 16)])
        f.create_dataset("never", (4,), "f4")
        f.create_dataset("bomb", (1 << 20, 1 << 20, 1 << 20), "f4", chunks=(64, 64, 64))
        f.create_dataset("lzf", data=values((4,)), chunks=(4,), compression="lzf")
        f.create_dataset("growing", data=values((4,)), chunks=(2,), maxshape=(None,))
    with new("refused_latest.h5", "latest") as f:
        f["data"] = values((4,))
        f["soft"] = h5py.SoftLink("/data")
        f["external"] = h5py.ExternalLink("other.h5", "/data")
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "data", (4,))
        f.create_virtual_dataset("virtual", layout)
        f.create_dataset("growing", data=values((4,)), chunks=(2,), maxshape=(None,))


def weights():
    """A Keras 3 weight file and a legacy one of a small network, for the fuzzer to start from."""
    with new("legacy.h5") as f:
        names = ["input_1", "conv2d", "bn", "base", "dense"]
        f.attrs["layer_names"] = np.array(names, dtype=TEXT)
        f.attrs["keras_version"] = "3.15.1"
        parts = dict(
            conv2d=dict(kernel=(3, 3, 3, 4)),
            bn=dict(gamma=(4,), beta=(4,), moving_mean=(4,), moving_variance=(4,)),
            dense=dict(kernel=(4, 2), bias=(2,)),
        )
        nested = {"a/kernel": (1, 1, 4, 4), "b/gamma": (4,), "a/bias": (4,)}
        for name in names:
            g = f.create_group(name)
            shapes = nested if name == "base" else {f"{name}/{k}": s for k, s in parts.get(name, {}).items()}
            paths = [f"{p}:0" for p in shapes]
            g.attrs["weight_names"] = np.array(paths, dtype=TEXT) if paths else np.zeros(0)
            for path, shape in zip(paths, shapes.values()):
                g.create_dataset(path, data=values(shape), **(dict(compression="gzip", shuffle=True) if len(shape) == 4 else {}))
    with new("numbered.weights.h5") as f:
        for path, shape in {
            "layers/conv2d/vars/0": (3, 3, 3, 4),
            "layers/functional/layers/conv2d/vars/0": (1, 1, 4, 4),
            "layers/functional/layers/conv2d_1/vars/0": (1, 1, 4, 4),
            "layers/dense/vars/0": (4, 2),
            "layers/dense/vars/1": (2,),
        }.items():
            f[path] = values(shape)
        f["layers/dense/vars"].attrs["name"] = "predictions"


def main():
    os.makedirs(OUT, exist_ok=True)
    for libver, name in [("earliest", "v0"), (("v108", "v108"), "v108"), ("latest", "latest")]:
        types(f"types_{name}.h5", libver)
        many(f"many_{name}.h5", libver)
        chunks(f"chunks_{name}.h5", libver)
    refused()
    weights()


main()
