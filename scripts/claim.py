"""The claim on real data: an unfrozen ImageNet network beats a frozen one, in Defrost as in Keras, at the same accuracy.

usage: claim.py --oracle DIR --data DIR [--seeds 1,2,3] [--epochs 8] [--size 160] [--work DIR] [--defrost FILE] [--note TEXT] [--out FILE]

InceptionV3 with the 2015 ImageNet parameters (inception2015.py) on hyperkvasir-5: 500 endoscopy frames of five classes, validation split
0.2 with split seed 42, SGD at 0.01, batch 16. Keras (experiment_keras.py) and `defrost compare` take turns, seed by seed, so that what
else the machine does meets both. A run that is done is kept in --work and not run again; the page has what is done.
"""

import argparse
import csv
import os
import pathlib
import platform
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIELDS = ["program", "start", "freeze", "seed", "accuracy", "loss", "epoch", "seconds"]


class Claim:
    """The runs, each a row of rows.csv as soon as it is done."""

    def __init__(self, a):
        self.a, self.path = a, a.work / "rows.csv"
        self.images = a.data / "images/hyperkvasir-5"
        self.keras_file, self.model = a.work / "inception2015.h5", a.work / "inception2015.safetensors"
        self.rows = list(csv.DictReader(self.path.open())) if self.path.exists() else []

    def prepare(self):
        """The parameters as a Keras weight file, and that file imported."""
        if not self.keras_file.exists():
            part = self.a.work / "part.h5"
            run(sys.executable, self.a.oracle / "inception2015.py", "--images", self.images, "--out", part)
            part.rename(self.keras_file)
        if not self.model.exists():
            run(self.a.defrost, "import", self.keras_file, "--out", self.model)

    def keep(self, program, start, freeze, seed, accuracy, loss, epoch, seconds):
        row = dict(zip(FIELDS, map(str, (program, start, freeze, seed, accuracy, loss, epoch, seconds))))
        self.rows.append(row)
        with self.path.open("w", newline="") as f:
            writer = csv.DictWriter(f, FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)
        self.a.out.write_text(self.page())
        print(",".join(row.values()), file=sys.stderr, flush=True)

    def has(self, program, start, freeze, seed):
        return any([r["program"], r["start"], r["freeze"], r["seed"]] == [program, start, freeze, str(seed)] for r in self.rows)

    def keras(self, start, freeze, seed):
        if self.has("Keras", start, freeze, seed):
            return
        weights = self.keras_file if start == "imagenet" else "random"
        said = run(sys.executable, ROOT / "scripts/experiment_keras.py", self.images, "--backbone", "inceptionv3", "--weights", weights,
                   "--freeze", freeze, "--size", self.a.size, "--epochs", self.a.epochs, "--seed", seed)
        _, _, accuracy, loss, epoch, seconds, _ = said.strip().splitlines()[-1].split(",")
        self.keep("Keras", start, freeze, seed, accuracy, loss, epoch, seconds)

    def defrost(self, seed):
        if self.has("Defrost", "imagenet", "unfrozen", seed):
            return
        out = self.a.work / f"compare-{seed}"
        run(self.a.defrost, "compare", self.images, "--backbones", "inceptionv3", "--weights", self.model, *self.options(seed), "--out", out)
        for row in csv.DictReader((out / "results.csv").open()):
            if not self.has("Defrost", "imagenet", row["freeze"], seed):
                values = (row["best_val_accuracy"], row["val_loss"], row["epoch"], row["seconds"])
                self.keep("Defrost", "imagenet", row["freeze"], seed, *values)

    def defrost_random(self, seed):
        if self.has("Defrost", "random", "frozen", seed):
            return
        out = self.a.work / f"random-{seed}"
        run(self.a.defrost, "train", self.images, "--backbone", "inceptionv3", "--weights", "random", "--freeze", "all",
            *self.options(seed), "--out", out)
        history = list(csv.DictReader((out / "history.csv").open()))
        best = max(history, key=lambda row: (float(row["val_accuracy"]), -int(row["epoch"])))
        seconds = sum(float(row["seconds"]) for row in history)
        self.keep("Defrost", "random", "frozen", seed, best["val_accuracy"], best["val_loss"], best["epoch"], f"{seconds:.1f}")

    def options(self, seed):
        return ["--input-size", self.a.size, "--epochs", self.a.epochs, "--seed", seed, *self.a.defrost_flags.split()]

    def page(self):
        """Means, spreads and times side by side."""
        lines = [
            "# The claim: Keras and Defrost on real data",
            "",
            (__doc__.split("\n\n")[2].replace("\n", " ").replace("(inception2015.py)", "").replace("  ", " ")),
            "",
            f"{self.a.size} px, {self.a.epochs} epochs, seeds {self.a.seeds}. The accuracy is that of the best epoch on the 100 validation images,",
            "where one standard error of a single run is about 0.03; mean +- standard deviation over the seeds, then each run. The",
            "time is that of all epochs with their validation; Defrost computes a frozen backbone's features once, Keras in every epoch.",
            "",
            "| start, backbone | program | best validation accuracy | each seed | its loss | seconds | each seed |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for start, freeze in (("imagenet", "frozen"), ("imagenet", "unfrozen"), ("random", "frozen")):
            for program in ("Keras", "Defrost"):
                rows = [r for r in self.rows if (r["program"], r["start"], r["freeze"]) == (program, start, freeze)]
                if rows:
                    of = lambda key: [float(r[key]) for r in rows]
                    each = lambda key, digits: ", ".join(f"{x:.{digits}f}" for x in of(key))
                    lines.append(f"| {start}, {freeze} | {program} | {spread(of('accuracy'), 3)} | {each('accuracy', 2)} | {spread(of('loss'), 2)} "
                                 f"| {spread(of('seconds'), 0)} | {each('seconds', 0)} |")
        lines += ["", f"{machine()}. {self.a.note}".rstrip(), "", "`scripts/claim.sh` repeats it.", ""]
        return "\n".join(lines)


def run(*args):
    """A program's stdout; this ends with its message if it fails."""
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, args))}: exit code {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


def spread(values, digits):
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def machine():
    """The processor, its cores, the versions of the other program."""
    from importlib.metadata import version
    models = [line.split(": ", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")] or [platform.processor()]
    return f"{models[0]}, {os.cpu_count()} cores; Keras {version('keras')}, TensorFlow {version('tensorflow-cpu')}"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--oracle", type=pathlib.Path, required=True)
    ap.add_argument("--data", type=pathlib.Path, required=True)
    ap.add_argument("--seeds", default="1,2,3")
    ap.add_argument("--epochs", type=int, default=8)
    ap.add_argument("--size", type=int, default=160)
    ap.add_argument("--work", type=pathlib.Path, default=ROOT / "target/claim")
    ap.add_argument("--defrost", type=pathlib.Path, default=ROOT / "target/release/defrost")
    ap.add_argument("--defrost-flags", default="", help="more flags of Defrost, as one argument")
    ap.add_argument("--note", default="", help="what else the page should say, as that others used the machine")
    ap.add_argument("--out", type=pathlib.Path, default=ROOT / "results/claim/inceptionv3.md")
    a = ap.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    claim, seeds = Claim(a), [int(s) for s in a.seeds.split(",")]
    claim.prepare()
    for seed in seeds:
        claim.keras("imagenet", "frozen", seed)
        claim.keras("imagenet", "unfrozen", seed)
        claim.defrost(seed)
    claim.keras("random", "frozen", seeds[0])
    claim.defrost_random(seeds[0])
    a.out.write_text(claim.page())
    print(a.out.read_text())


if __name__ == "__main__":
    main()
