#!/usr/bin/env python3
"""Writes metrics.json: scikit-learn's measures of pseudo-random predictions, in the keys of `defrost evaluate --json`.

A prediction is w / sum(w) with w hashed into 1..levels (the formula of src/weights/init.rs), so that ties abound and both
programs divide the same integers. Measures that scikit-learn defines by decree (0 for 0/0) are null. Intervals measure every
one of the 2,000 resamples, drawn as src/metrics/bootstrap.rs does, with scikit-learn again.
"""
import hashlib, json, os, warnings
import numpy as np
from sklearn import metrics as sk, __version__
from sklearn.calibration import calibration_curve

warnings.filterwarnings("ignore")
RESAMPLES, SEED, BINS, MASK = 2000, 42, 15, (1 << 64) - 1

def hashed(name, n):
    """n numbers in 0..1, from the f32 in -1..1 that the program draws."""
    key = np.uint64(int.from_bytes(hashlib.sha256((42).to_bytes(8, "little") + name.encode()).digest()[:8], "little"))
    with np.errstate(over="ignore"):
        z = key + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return ((2.0 * (z.astype(np.float64) / 2.0**53) - 1.0).astype(np.float32).astype(np.float64) + 1.0) / 2.0

class SplitMix64:
    def __init__(self, seed):
        self.state = seed
    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = ((self.state ^ (self.state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)
    def below(self, bound):
        while True:
            product = self.next() * bound
            if (product & MASK) >= ((1 << 64) - bound) % bound:
                return product >> 64

def mean(values):
    return np.nanmean(values) if not np.all(np.isnan(values)) else np.nan

def scores(labels, p, k):
    """All classes together, and each against the rest."""
    every, predicted, here = list(range(k)), p.argmax(1), np.bincount(labels, minlength=k)
    kw = dict(zero_division=np.nan)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(labels, predicted, labels=every, **kw)
    rows = []
    for c in every:
        both, any_ = 0 < here[c] < len(labels), here[c] > 0
        rows.append(dict(
            precision=precision[c], recall=recall[c], specificity=sk.recall_score(labels != c, predicted != c, **kw),
            npv=sk.precision_score(labels != c, predicted != c, **kw), f1=f1[c],
            auroc=sk.roc_auc_score(labels == c, p[:, c]) if both else np.nan,
            average_precision=sk.average_precision_score(labels == c, p[:, c]) if any_ else np.nan))
    overall = dict(
        loss=sk.log_loss(labels, p, labels=every), accuracy=sk.accuracy_score(labels, predicted), balanced_accuracy=mean(recall),
        mcc=sk.matthews_corrcoef(labels, predicted), auroc_macro=mean([r["auroc"] for r in rows]),
        average_precision_macro=mean([r["average_precision"] for r in rows]),
        brier=sk.brier_score_loss(labels, p if k > 2 else p[:, 1], **({"labels": every} if k > 2 else {"pos_label": 1})))
    return overall, rows

def intervals(labels, p, k, groups):
    units = groups.max() + 1
    if units < 2:
        return None, [None] * k
    drawn = []
    for r in range(RESAMPLES):
        random = SplitMix64(SplitMix64(SEED << 32 | r).next())
        count = np.bincount([random.below(int(units)) for _ in range(units)], minlength=units)
        rows = np.repeat(np.arange(len(labels)), count[groups])
        drawn.append(scores(labels[rows], p[rows], k))
    def ends(values):
        values = [v for v in values if not np.isnan(v)]
        return list(np.percentile(values, [2.5, 97.5])) if values else None
    overall = {key: ends([o[key] for o, _ in drawn]) for key in drawn[0][0]}
    classes = [{key: ends([rows[c][key] for _, rows in drawn]) for key in drawn[0][1][c]} for c in range(k)]
    return overall, classes

def reliability(labels, p):
    confidence, right = p.max(1), p.argmax(1) == labels
    edges = np.linspace(0, 1, BINS + 1)
    of = np.digitize(confidence, edges[1:-1], right=True)
    accuracy, mean_confidence = (list(x) for x in calibration_curve(right, confidence, n_bins=BINS, strategy="uniform"))
    bins, ece = [], 0.0
    for b in range(BINS):
        n = int((of == b).sum())
        a, c = (accuracy.pop(0), mean_confidence.pop(0)) if n else (np.nan, np.nan)
        ece += n / len(labels) * abs(a - c) if n else 0.0
        bins.append({"from": edges[b], "to": edges[b + 1], "images": n, "confidence": c, "accuracy": a})
    assert not accuracy
    return ece, bins

def plain(x):
    if isinstance(x, dict):
        return {a: plain(b) for a, b in x.items()}
    if isinstance(x, list):
        return [plain(b) for b in x]
    if isinstance(x, (float, np.floating)):
        return None if np.isnan(x) else float(x)
    return int(x) if isinstance(x, np.integer) else x

def case(name, n, k, levels, present, silent=False, group=0):
    """`present`: classes that occur among the labels; the others are in the model alone. `silent`: the last class is never
    predicted. `group`: images of one group in a row; 0 for no groups."""
    w = 1 + np.floor(hashed(name + "/weights", n * k) * levels).astype(int).reshape(n, k)
    if silent:
        w[:, -1] = 1
    draw, keep = hashed(name + "/labels", n), hashed(name + "/keep", n)
    # Half of the labels are what the model prefers, as far as that class is present.
    labels = np.where((keep < 0.5) & (w.argmax(1) < present), w.argmax(1), np.floor(draw * present).astype(int))
    p = w / w.sum(1, keepdims=True)
    confusion = sk.confusion_matrix(labels, p.argmax(1), labels=list(range(k)))
    overall, rows = scores(labels, p, k)
    groups = np.arange(n) // group if group else np.arange(n)
    overall_ends, class_ends = intervals(labels, p, k, groups)
    ece, bins = reliability(labels, p)
    if present == k and n > 1:
        assert np.isclose(overall["balanced_accuracy"], sk.balanced_accuracy_score(labels, p.argmax(1)), rtol=0, atol=1e-15)
        ovr = sk.roc_auc_score(labels, p, multi_class="ovr") if k > 2 else sk.roc_auc_score(labels, p[:, 1])
        assert np.isclose(overall["auroc_macro"], ovr, rtol=0, atol=1e-15)
    if silent:
        assert confusion[:, -1].sum() == 0 and rows[-1]["recall"] == 0 and np.isnan(rows[-1]["precision"])
    for c, row in enumerate(rows):
        tp = confusion[c, c]
        fp, fn = confusion[:, c].sum() - tp, confusion[c].sum() - tp
        row.update(name=str(c), sensitivity=row["recall"], support=tp + fn, true_positives=tp, false_positives=fp, false_negatives=fn,
                   true_negatives=n - tp - fp - fn, intervals=class_ends[c])
    how = dict(level=0.95, resamples=RESAMPLES, seed=SEED, unit="group" if group else "image", units=int(groups.max()) + 1)
    record = dict(**overall, images=n, classes=rows, confusion=confusion.tolist(), ece=ece, reliability=bins,
                  intervals=overall_ends and {**how, **overall_ends})
    return dict(name=name, levels=levels, present=present, silent=silent, group=group, metrics=plain(record))

cases = [case("five", 300, 5, 12, 5), case("two", 101, 2, 30, 2), case("three", 64, 3, 1000, 3, group=5), case("absent", 80, 4, 9, 3),
         case("never", 90, 4, 7, 4, silent=True), case("alone", 12, 3, 5, 1), case("single", 1, 2, 5, 2)]
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "metrics.json")
with open(path, "w") as out:
    out.write('{"by": "scikit-learn %s", "cases": [\n' % __version__ + ",\n".join(json.dumps(c) for c in cases) + "\n]}\n")
