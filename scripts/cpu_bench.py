"""The measurements of cpu-bench.sh: every program in a process of its own, one after the other, medians after a warm-up."""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys

NETS = ["vgg16", "xception", "inceptionv3", "densenet121"]
SIZES = {"vgg16": 224, "xception": 299, "inceptionv3": 299, "densenet121": 224}
DEFROST = "target/release/defrost"


def record(command):
    """The JSON line that a program prints last; None, with the reason on stderr, if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"})
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(f"failed: {' '.join(command)}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(lines[-1])


def ours(net, mode, steps, *more):
    return record([DEFROST, "bench", "--backbone", net, "--mode", mode, "--steps", str(steps), "--json", *more])


def peer(args, kind, net, mode, precision):
    keras = kind == "keras"
    python, script = (args.keras, "keras_bench.py") if keras else (args.torch, "torch_bench.py")
    if not python:
        return None
    command = [python, f"{args.peers_at}/{script}", "--model", net, "--mode", mode, "--steps", str(args.steps)]
    command += [] if keras else ["--dtype", precision]
    return record(command + (["--compile", "default"] if kind == "compile" else []))


def cpu():
    """What /proc/cpuinfo calls the processor, with its family and model, which tell generations apart."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    field = lambda name: (re.search(rf"^{name}\s*:\s*(.*)$", text, re.M) or ["", "?"])[1]
    return f"{field('model name')} (family {field('cpu family')}, model {field('model')})"


def cell(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def compare(args, precision, out):
    """A table of one precision; bf16 is PyTorch's autocast, which Keras has no like of on a CPU."""
    kinds = [k for k in args.peers.split(",") if k and (precision == "f32" or k != "keras")]
    columns = ["network", "mode", "defrost"] + kinds + ["ratio to the best"] + ["defrost MiB"] + [f"{k} MiB" for k in kinds]
    out += ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    versions = set()
    for mode in args.modes.split(","):
        for net in args.nets.split(","):
            own = ours(net, mode, args.steps, "--precision", precision)
            theirs = [peer(args, kind, net, mode, precision) for kind in kinds]
            versions |= {t["peer"] for t in theirs if t}
            rate = lambda r: r and r["images_per_s"]
            best = max((rate(t) for t in theirs if t), default=None)
            ratio = rate(own) / best if own and best else None
            row = [net, mode, cell(rate(own))] + [cell(rate(t)) for t in theirs] + [cell(ratio)]
            row += [cell(own and own["peak_mib"], 0)] + [cell(t and t["peak_mib"], 0) for t in theirs]
            out.append("| " + " | ".join(row) + " |")
            print(out[-1], file=sys.stderr)
    return versions


def growth(args, out):
    out += ["", "## How the time of a training step grows", "", "| network | batch, size, threads | ms | ms per image |", "| --- | --- | --- | --- |"]
    cores = os.cpu_count() or 1
    for net in args.nets.split(","):
        size = SIZES[net]
        points = [(batch, size, cores) for batch in (1, 4, 16, 32)] + [(16, side, cores) for side in (128, 192)] + [(16, size, 1)]
        for batch, side, threads in points:
            flags = ["--batch-size", str(batch), "--input-size", str(side), "--threads", str(threads)]
            own = ours(net, "train", max(3, args.steps // 2), *flags)
            if own:
                out.append(f"| {net} | {batch}, {side}, {threads} | {own['step_ms']:.0f} | {own['step_ms'] / batch:.1f} |")
                print(out[-1], file=sys.stderr)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("machine", nargs="?")
    ap.add_argument("--torch", default="")
    ap.add_argument("--keras", default="")
    ap.add_argument("--peers-at", default="")
    ap.add_argument("--steps", type=int, default=5)
    ap.add_argument("--nets", default=",".join(NETS))
    ap.add_argument("--modes", default="train,frozen,infer")
    ap.add_argument("--peers", default="eager,compile,keras")
    ap.add_argument("--precisions", default="f32", help="f32, bf16 or f32,bf16: bf16 beside PyTorch's autocast")
    ap.add_argument("--no-growth", action="store_true")
    args = ap.parse_args()
    peak = json.loads(subprocess.run([DEFROST, "bench", "--peak", "--json"], capture_output=True, text=True, check=True).stdout)
    best = {a["threads"]: a["gflops"] for a in reversed(peak["arithmetic"]) if a["precision"] == "f32"}
    memory = peak["bandwidth"][-1]
    table = []
    versions = set()
    for i, precision in enumerate(args.precisions.split(",")):
        table += ["", f"## In {precision}", ""] if i else []
        versions |= compare(args, precision, table)
    if not args.no_growth:
        growth(args, table)
    rust = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.strip()
    head = [
        f"# CPU: {os.cpu_count()} cores of {cpu()}, {datetime.date.today()}",
        "",
        f"{args.precisions.split(',')[0]}, batch 16, default sizes: images per second, medians of {args.steps} steps after a warm-up, each row in one run; MiB are the",
        "process's peak. `scripts/cpu-bench.sh` repeats it. Machines are shared and noisy: ratios say more than rates.",
        "",
        f"{rust}; {'; '.join(sorted(versions)) or 'no peer was there'}. Measured peak: "
        + ", ".join(f"{rate:.0f} GFLOP/s on {threads} threads" for threads, rate in sorted(best.items()))
        + f"; memory {memory['read_gb_s']:.0f} GB/s read, {memory['copy_gb_s']:.0f} GB/s copied.",
        "",
    ]
    name = args.machine or re.sub(r"[^a-z0-9]+", "-", cpu().lower()).strip("-") + f"-{os.cpu_count()}core"
    path = pathlib.Path("results/cpu") / f"{name}.md"
    path.write_text("\n".join(head + table) + "\n")
    print("\n".join(head + table))
    print(f"written to {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
