#!/usr/bin/env python3
"""What gpu-check.sh runs once it has found a GPU; needs nothing but Python, and PyTorch to measure against.

1. `selftest --device cuda` in each precision, and compute-sanitizer on a part of it where that tool works;
2. training on real images: cpu and cuda losses side by side, two runs equal to the bit, a frozen and an unfrozen run;
3. `bench` beside torch_bench.py, and `profile` of one step of each network.
"""
import argparse
import csv
import datetime
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

NETWORKS = ["vgg16", "xception", "inceptionv3", "densenet121"]
PRECISIONS = ["f32", "tf32", "bf16"]
PEERS = ["../shared/peers/torch_bench.py", "torch_bench.py"]
IMAGES = ["../shared/data/images/brain-mri-4", "images/brain-mri-4", "images/demo"]


class Check:
    """Runs commands, keeps what they said, and writes the record."""

    def __init__(self, defrost, name, quick):
        self.defrost, self.quick = defrost, quick
        self.folder = pathlib.Path("results/gpu")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.lines, self.record, self.failures = [], {"selftest": {}, "training": {}, "bench": [], "profile": {}}, []

    def say(self, line=""):
        print(line, flush=True)
        self.lines.append(line)

    def fail(self, what):
        self.failures.append(what)
        self.say(f"**FAILED**: {what}")

    def run(self, *words, limit=1800):
        try:
            done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return 124, "", f"not done after {limit} s"
        except OSError as error:
            return 127, "", str(error)
        return done.returncode, done.stdout, done.stderr

    def ours(self, *words, limit=1800):
        return self.run(self.defrost, *words, limit=limit)

    def save(self):
        self.record["failures"] = self.failures
        (self.folder / f"{self.name}.md").write_text("\n".join(self.lines) + "\n")
        (self.folder / f"{self.name}.json").write_text(json.dumps(self.record, indent=1) + "\n")


def selftest(c):
    c.say("\n## Operations against the specification\n")
    started = time.monotonic()
    code, out, err = c.ours("selftest", "--device", "cuda", "--json")
    seconds = time.monotonic() - started
    try:
        report = json.loads(out)
    except json.JSONDecodeError:
        return c.fail(f"selftest --device cuda: exit code {code}: {err.strip()}")
    c.record["selftest"] = report
    dtypes = ", ".join(report["dtypes"])
    c.say(f"`selftest --device cuda`: {report['passed']} of {report['rows']} checks passed ({dtypes}) in {seconds:.0f} s")
    if report["failed"] or report["passed"] != report["rows"]:
        c.fail(f"{len(report['failed'])} checks of the self-test")
        for row in report["failed"][:10]:
            c.say(f"- {row['case']}, {row['check']}: {row['fault'] or row['share']}")
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    for tool in ["memcheck", "racecheck"]:
        if not pathlib.Path(sanitizer).is_file():
            c.say(f"compute-sanitizer {tool}: not on this machine, left out")
            continue
        words = [sanitizer, "--tool", tool, "--error-exitcode", "9", c.defrost, "selftest", "--device", "cuda", "--op", "conv2d"]
        code, out, err = c.run(*words, limit=600)
        last = (out + err).strip().splitlines()[-1:] or [""]
        if code == 9:
            c.fail(f"compute-sanitizer {tool}: {last[0]}")
        else:
            c.say(f"compute-sanitizer {tool}: exit code {code}: {last[0]}")


def losses(run):
    with open(run / "steps.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def train(c, out, device, *more):
    images = next((p for p in IMAGES if pathlib.Path(p).is_dir()), None)
    words = ["train", images, "--weights", "random", "--out", out, "--device", device, *more]
    code, _, err = c.ours(*words)
    if code != 0:
        c.fail(f"train {' '.join(map(str, more))} --device {device}: exit code {code}: {err.strip()[-400:]}")
    return code == 0


def training(c, work):
    c.say("\n## Training\n")
    steps = ["--steps", "30", "--batch-size", "8", "--momentum", "0.9"]
    small = {"vgg16": 64, "xception": 96, "inceptionv3": 96, "densenet121": 64}
    c.say("| network | step 1 cpu | step 1 cuda | step 30 cpu | step 30 cuda | largest difference in the first ten |")
    c.say("| --- | --- | --- | --- | --- | --- |")
    for net in NETWORKS:
        common = ["--backbone", net, "--input-size", str(small[net]), *steps]
        runs = [(work / f"{net}-{name}", device) for name, device in [("cpu", "cpu"), ("cuda", "cuda"), ("again", "cuda")]]
        if not all([train(c, out, device, *common) for out, device in runs]):
            continue
        cpu, cuda, again = [losses(out) for out, _ in runs]
        worst = max(abs(a - b) / max(abs(a), 1e-6) for a, b in zip(cpu[:10], cuda[:10]))
        c.record["training"][net] = {"cpu": cpu, "cuda": cuda}
        c.say(f"| {net} | {cpu[0]:.6f} | {cuda[0]:.6f} | {cpu[-1]:.6f} | {cuda[-1]:.6f} | {100 * worst:.3f}% |")
        # The first loss has only been through the forward pass; later ones drift as rounding does.
        if abs(cpu[0] - cuda[0]) > 1e-3 * abs(cpu[0]):
            c.fail(f"{net}: the first loss is {cuda[0]} on cuda and {cpu[0]} on cpu")
        weights = [(out / "last.safetensors").read_bytes() for out, device in runs if device == "cuda"]
        if cuda != again or weights[0] != weights[1]:
            c.fail(f"{net}: two runs on cuda differ")
    for freeze in ["all", "none"]:
        out = work / f"whole-{freeze}"
        if train(c, out, "cuda", "--backbone", "densenet121", "--freeze", freeze, "--epochs", "2", "--input-size", "128"):
            c.say(f"\ndensenet121, `--freeze {freeze}`, two epochs end to end:\n\n```\n{(out / 'history.csv').read_text().strip()}\n```")


def bench(c, python):
    c.say("\n## Speed\n")
    peer = next((p for p in PEERS if pathlib.Path(p).is_file()), None)
    has_torch = peer and c.run(python, "-c", "import torch, torchvision; assert torch.cuda.is_available()")[0] == 0
    if not has_torch:
        c.say("PyTorch with CUDA is not on this machine (or torch_bench.py is missing), so there is nothing to measure against.\n")
    c.say("| network | mode | batch | precision | defrost images/s | PyTorch eager | PyTorch compiled | ratio to its best |")
    c.say("| --- | --- | --- | --- | --- | --- | --- | --- |")
    nets, batches = (NETWORKS[:1], [16]) if c.quick else (NETWORKS, [16, 64])
    for net in nets:
        for mode in ["train", "frozen", "infer"]:
            for batch in batches:
                for precision in ["tf32", "bf16"]:
                    words = ["--backbone", net, "--mode", mode, "--batch-size", batch, "--precision", precision, "--device", "cuda", "--steps", "20"]
                    code, out, err = c.ours("bench", *words, "--json")
                    if code != 0:
                        c.fail(f"bench {net} {mode} {batch} {precision}: {err.strip()[-300:]}")
                        continue
                    row, theirs = json.loads(out), {}
                    for compiled in ["", "max-autotune"] if has_torch else []:
                        words = ["--model", net, "--mode", mode, "--batch", batch, "--dtype", precision, "--device", "cuda"]
                        code, out, _ = c.run(python, peer, *words, "--steps", "20", "--warmup", "5", "--compile", compiled)
                        theirs[compiled or "eager"] = json.loads(out.strip().splitlines()[-1]) if code == 0 else None
                    rates = [t["images_per_s"] if t else None for t in theirs.values()]
                    best = max([r for r in rates if r], default=None)
                    shown = [f"{r:.0f}" if r else "-" for r in rates] or ["-", "-"]
                    ratio = f"{row['images_per_s'] / best:.2f}" if best else "-"
                    c.record["bench"].append({"defrost": row, "torch": theirs})
                    c.say(f"| {net} | {mode} | {batch} | {precision} | {row['images_per_s']:.0f} | {shown[0]} | {shown[1]} | {ratio} |")
                    c.save()


def profile(c):
    c.say("\n## One step of each network against the roofline\n")
    for net in NETWORKS:
        code, out, err = c.ours("profile", net, "--mode", "train", "--device", "cuda", "--json")
        if code != 0:
            c.fail(f"profile {net}: {err.strip()[-300:]}")
            continue
        record = json.loads(out)
        c.record["profile"][net] = record
        c.say(f"{net}: {record['total_ms']:.2f} ms a step, {record['ideal_ms']:.2f} ms at the roofline\n")
        c.say("| op | rows | ms | share of the roofline |\n| --- | --- | --- | --- |")
        for op in record["ops"][:12]:
            c.say(f"| {op['name']} | {op['steps']} | {op['ms']:.3f} | {100 * op['share']:.0f}% |")
        c.say()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--defrost", required=True)
    ap.add_argument("--name", help="of the result files [default: the GPU's name]")
    ap.add_argument("--quick", action="store_true", help="one network, one batch size")
    args = ap.parse_args()
    devices = json.loads(subprocess.run([args.defrost, "devices", "--json"], capture_output=True, text=True, check=True).stdout)
    gpu = next(d["description"] for d in devices if d["name"] == "cuda:0")
    name = args.name or re.sub(r"[^a-z0-9]+", "-", gpu.split(",")[0].lower()).strip("-")
    c = Check(args.defrost, name, args.quick)
    c.record["gpu"], c.record["date"] = gpu, datetime.date.today().isoformat()
    c.say(f"# {gpu}\n\n{c.record['date']}. GPU, driver and program as they were; times are medians.")
    with tempfile.TemporaryDirectory() as work:
        selftest(c)
        c.save()
        training(c, pathlib.Path(work))
        c.save()
        bench(c, sys.executable)
        profile(c)
    c.say(f"\n{len(c.failures)} failures." if c.failures else "\nAll that can be right or wrong was right.")
    c.save()
    return 1 if c.failures else 0


if __name__ == "__main__":
    sys.exit(main())
