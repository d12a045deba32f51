#!/usr/bin/env python3
"""Writes metrics.json: scikit-learn's measures of pseudo-random predictions, in the keys of `defrost evaluate --json`.

A prediction is w / sum(w) with w hashed into 1..levels (the formula of src/weights/init.rs), so that ties abound and both
programs divide the same integers. Measures that scikit-learn defines by decree (0 for 0/0) are null.
"""
import hashlib, json, os
import numpy as np
from sklearn import metrics as sk, __version__

def hashed(name, n):
    """n numbers in 0..1, from the f32 in -1..1 that the program draws."""
    key = np.uint64(int.from_bytes(hashlib.sha256((42).to_bytes(8, "little") + name.encode()).digest()[:8], "little"))
    with np.errstate(over="ignore"):
        z = key + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return ((2.0 * (z.astype(np.float64) / 2.0**53) - 1.0).astype(np.float32).astype(np.float64) + 1.0) / 2.0

def case(name, n, k, levels, present):
    """`present`: classes that occur among the labels; the others are in the model alone."""
    w = 1 + np.floor(hashed(name + "/weights", n * k) * levels).astype(int).reshape(n, k)
    draw, keep = hashed(name + "/labels", n), hashed(name + "/keep", n)
    # Half of the labels are what the model prefers, as far as that class is present.
    labels = np.where((keep < 0.5) & (w.argmax(1) < present), w.argmax(1), np.floor(draw * present).astype(int))
    p = w / w.sum(1, keepdims=True)
    predicted, every = p.argmax(1), list(range(k))
    confusion = sk.confusion_matrix(labels, predicted, labels=every)
    precision, recall, f1, support = sk.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=np.nan)
    def auroc(c):
        return sk.roc_auc_score(labels == c, p[:, c]) if 0 < support[c] < n else np.nan
    def specificity(c):
        return sk.recall_score(labels != c, predicted != c, zero_division=np.nan)
    rows = [dict(name=str(c), precision=precision[c], recall=recall[c], specificity=specificity(c), f1=f1[c],
                 auroc=auroc(c), support=int(support[c])) for c in every]
    def mean(values):
        return np.nanmean(values) if not np.all(np.isnan(values)) else np.nan
    record = dict(loss=sk.log_loss(labels, p, labels=every), accuracy=sk.accuracy_score(labels, predicted),
                  balanced_accuracy=mean(recall), mcc=sk.matthews_corrcoef(labels, predicted),
                  auroc_macro=mean([r["auroc"] for r in rows]), images=n, classes=rows, confusion=confusion.tolist())
    if present == k and n > 1:
        assert np.isclose(record["balanced_accuracy"], sk.balanced_accuracy_score(labels, predicted), rtol=0, atol=1e-15)
        ovr = sk.roc_auc_score(labels, p, multi_class="ovr") if k > 2 else sk.roc_auc_score(labels, p[:, 1])
        assert np.isclose(record["auroc_macro"], ovr, rtol=0, atol=1e-15)
    plain = lambda x: {a: plain(b) for a, b in x.items()} if isinstance(x, dict) else [plain(b) for b in x] if isinstance(x, list) \
        else (None if np.isnan(x) else float(x)) if isinstance(x, (float, np.floating)) else x
    return dict(name=name, levels=levels, present=present, metrics=plain(record))

cases = [case("five", 300, 5, 12, 5), case("two", 101, 2, 30, 2), case("three", 64, 3, 1000, 3), case("absent", 80, 4, 9, 3),
         case("alone", 12, 3, 5, 1), case("single", 1, 2, 5, 2)]
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "metrics.json")
with open(path, "w") as out:
    out.write('{"by": "scikit-learn %s", "cases": [\n' % __version__ + ",\n".join(json.dumps(c) for c in cases) + "\n]}\n")
