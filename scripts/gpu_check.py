#!/usr/bin/env python3
"""What gpu-check.sh runs once it has found a GPU; needs nothing but Python, and PyTorch to measure against.

  selftest   `selftest --device cuda` in f32, tf32 and bf16; compute-sanitizer's memcheck and racecheck on a part of it, where that tool works
  train      real images: cpu and cuda losses side by side, two runs equal to the bit, a frozen and an unfrozen run from end to end
  bench      `bench` beside torch_bench.py, eager and compiled, with ratios
  profile    one training step of each network, every step against its roofline

NAME.json is saved after every row, and NAME.md made from it: what is cut off keeps what it had, and a later call with other --parts, --nets
or --peers adds to it. On a machine that is lent for minutes, --budget SECONDS ends the check in time; what was left out is in the record.
--dry-run does all of this on the cpu with small images, to try the script itself where there is no GPU; it proves and measures nothing.
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

import gpu_peer
import gpu_report

NETWORKS = ["vgg16", "xception", "inceptionv3", "densenet121"]
PARTS = ["selftest", "train", "bench", "profile"]
PEERS = ["../shared/peers/torch_bench.py", "torch_bench.py"]
IMAGES = ["../shared/data/images/brain-mri-4", "images/brain-mri-4", "images/demo"]
# Images of training runs, the smallest that each network takes, or a little more.
SIDES = {"vgg16": 64, "xception": 96, "inceptionv3": 96, "densenet121": 64}
SMALLEST = {"vgg16": 32, "xception": 71, "inceptionv3": 75, "densenet121": 32}
# A loss before any update has only been through the forward pass; later ones drift as rounding does.
FIRST_LOSS = 1e-3
# A command that would have less time than this is not begun.
SHORTEST = 5


class OutOfTime(Exception):
    pass


class Check:
    """Runs commands within the budget, keeps what they said, and saves the record after every row."""

    def __init__(self, args, gpu, driver):
        self.args, self.dry, self.defrost = args, args.dry_run, args.defrost
        self.device = "cpu" if self.dry else "cuda"
        self.deadline = time.monotonic() + args.budget if args.budget else None
        name = "dry-run" if self.dry else re.sub(r"[^a-z0-9]+", "-", gpu.split(",")[0].lower()).strip("-")
        self.path = args.results / f"{args.name or name}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(self.path.read_text()) if self.path.is_file() else {}
        same = (known.get("gpu"), known.get("driver"), known.get("dry_run")) == (gpu, driver, self.dry)
        self.record = known if same else {"gpu": gpu, "driver": driver, "dry_run": self.dry, "failures": {}, "left_out": {}}
        self.record["date"] = datetime.date.today().isoformat()
        self.part = None

    def begin(self, part):
        self.part = part
        self.record["failures"][part], self.record["left_out"][part] = [], []

    def save(self, note=None):
        if note:
            print(f"{self.part}: {note}", flush=True)
        self.path.write_text(json.dumps(self.record, indent=1) + "\n")
        self.path.with_suffix(".md").write_text(gpu_report.markdown(self.record))

    def fail(self, what):
        self.record["failures"][self.part].append(what)
        self.save(f"FAILED: {what}")

    def leave_out(self, what):
        self.record["left_out"][self.part].append(what)
        self.save(f"left out: {what}")

    def check_time(self):
        """Seconds that are left, if there is a budget. Ends the part when there are too few."""
        left = self.deadline - time.monotonic() if self.deadline else None
        if left is not None and left < SHORTEST:
            raise OutOfTime
        return left

    def run(self, *words, limit=900):
        """Exit code, stdout, stderr. Ends the part when the budget does."""
        left = self.check_time() or limit
        try:
            done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=min(limit, left))
        except subprocess.TimeoutExpired:
            if left < limit:
                raise OutOfTime from None
            return 124, "", f"not done after {limit} s"
        except OSError as error:
            return 127, "", str(error)
        return done.returncode, done.stdout, done.stderr

    def ours(self, *words, limit=900):
        return self.run(self.defrost, *words, limit=limit)

    def ours_json(self, what, *words):
        """The record that a command of ours prints; None, with a failure noted, if it fails."""
        code, out, err = self.ours(*words, "--json")
        if code == 0:
            return json.loads(out)
        return self.fail(f"{what}: exit code {code}: {err.strip()[-400:]}")


def selftest(c):
    started = time.monotonic()
    one = ["--op", "dense"] if c.dry else []
    code, out, err = c.ours("selftest", "--device", c.device, *one, "--json")
    try:
        report = json.loads(out)
    except json.JSONDecodeError:
        return c.fail(f"selftest: exit code {code}: {err.strip()[-400:]}")
    c.record["selftest"] = {**report, "seconds": round(time.monotonic() - started, 1), "sanitizer": {}}
    if report["failed"] or report["passed"] != report["rows"]:
        c.fail(f"{len(report['failed'])} checks of the self-test")
    c.save(f"{report['passed']} of {report['rows']} checks passed")
    for tool in ["memcheck", "racecheck"]:
        said = sanitize(c, tool)
        c.record["selftest"]["sanitizer"][tool] = said
        c.save(f"compute-sanitizer {tool}: {said}")


def sanitize(c, tool):
    """The last line of compute-sanitizer on the convolutions, whose kernels are the ones that share memory."""
    sanitizer = c.args.sanitizer or shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not pathlib.Path(sanitizer).is_file():
        return "not on this machine"
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", c.defrost, "selftest", "--device", c.device, "--op", "dense" if c.dry else "conv2d"]
    code, out, err = c.run(*command, limit=300)
    last = ((out + err).strip().splitlines() or [""])[-1]
    if code == 9:
        c.fail(f"compute-sanitizer {tool}: {last}")
    return f"exit code {code}: {last}"


def losses(run):
    with open(run / "steps.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def train_once(c, out, device, *more):
    code, _, err = c.ours("train", c.args.images, "--weights", "random", "--out", out, "--device", device, *more)
    if code != 0:
        c.fail(f"train {' '.join(map(str, more))} --device {device}: exit code {code}: {err.strip()[-400:]}")
    return code == 0


def train(c):
    if not c.args.images:
        return c.leave_out("there are no images")
    steps = ["--steps", 3 if c.dry else 30, "--batch-size", 4 if c.dry else 8, "--momentum", "0.9"]
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for net in c.args.nets:
            compare(c, work, net, ["--backbone", net, "--input-size", (SMALLEST if c.dry else SIDES)[net], *steps])
        for freeze in ["all", "none"]:
            net, out, started = c.args.nets[-1], work / f"whole-{freeze}", time.monotonic()
            size = SMALLEST[net] if c.dry else 128
            if train_once(c, out, c.device, "--backbone", net, "--freeze", freeze, "--epochs", 1 if c.dry else 2, "--input-size", size):
                history = {"network": net, "seconds": round(time.monotonic() - started, 1), "history": (out / "history.csv").read_text()}
                c.record.setdefault("runs", {})[freeze] = history
                c.save(f"{net}, --freeze {freeze}, from end to end")


def compare(c, work, net, words):
    """The same steps on the cpu and twice on the GPU."""
    runs = [(work / f"{net}-{name}", device) for name, device in [("cpu", "cpu"), ("cuda", c.device), ("again", c.device)]]
    if not all([train_once(c, out, device, *words) for out, device in runs]):
        return
    cpu, cuda, again = [losses(out) for out, _ in runs]
    first, second = [(out / "last.safetensors").read_bytes() for out, _ in runs[1:]]
    equal = cuda == again and first == second
    c.record.setdefault("train", {})[net] = {"cpu": cpu, "cuda": cuda, "repeats_to_the_bit": equal}
    if not equal:
        c.fail(f"{net}: two runs on {c.device} differ")
    if abs(cpu[0] - cuda[0]) > FIRST_LOSS * abs(cpu[0]):
        c.fail(f"{net}: the first loss is {cuda[0]} on {c.device} and {cpu[0]} on the cpu")
    c.save(f"{net}: losses {cpu[0]:.6f} to {cpu[-1]:.6f} on the cpu, {cuda[0]:.6f} to {cuda[-1]:.6f} on {c.device}")


def bench(c):
    bench_file = c.args.peer or next((p for p in PEERS if pathlib.Path(p).is_file()), None)
    # One worker for all that is not compiled, and one for each network and mode of torch.compile: these compile at the same time.
    names = [("eager", None) if kind == "eager" else (kind, net) for kind in c.args.peers for net in c.args.nets]
    deadline = c.deadline and c.deadline - SHORTEST
    peers = {name: gpu_peer.Peer(bench_file, c.args.peer_limit, deadline) for name in names} if bench_file else {}
    try:
        peers = arrived(c, peers)
        if not peers:
            c.leave_out("PyTorch with CUDA is not on this machine, or torch_bench.py is missing: there is nothing to measure against")
        # What matters most comes first, should time be short.
        for precision, batch, mode in [(p, b, m) for p in c.args.precisions for b in c.args.batches for m in c.args.modes]:
            bench_networks(c, peers, precision, batch, mode)
    finally:
        for peer in peers.values():
            peer.stop()


def arrived(c, peers):
    """The workers, once all have imported what they need, so that none does while something is measured; none if there is no PyTorch for
    this device."""
    for peer in peers.values():
        peer.start()
    try:
        versions = [peer.versions() for peer in peers.values()]
    except gpu_peer.Failed as failure:
        c.check_time()
        c.leave_out(f"a worker for PyTorch: {failure}")
        versions = []
    if versions and (c.dry or versions[0].get("cuda")):
        return peers
    for peer in peers.values():
        peer.stop()
    return {}


def bench_networks(c, peers, precision, batch, mode):
    """The networks one after the other, ours and then theirs, once all of theirs have been compiled."""
    def words(net):
        size = ["--size", SMALLEST[net]] if c.dry else []
        return ["--model", net, "--mode", mode, "--batch", batch, "--dtype", precision, "--device", c.device, *size, "--steps", 20, "--warmup", 5]

    c.check_time()
    compiled = {name: peer for name, peer in peers.items() if name[1]}
    for (kind, net), peer in compiled.items():
        peer.prepare([*words(net), "--compile", kind])
    for peer in compiled.values():
        peer.warm()
    for net in c.args.nets:
        row = bench_ours(c, {"network": net, "mode": mode, "batch": batch, "precision": precision})
        for kind in c.args.peers if row and peers else []:
            if kind == "eager":
                peers[kind, None].prepare([*words(net), "--compile", ""])
            measure_peer(c, peers[kind, None if kind == "eager" else net], row, kind)


def bench_ours(c, key):
    """The row of the table with our own rate; None, with a failure noted, if there is none."""
    net, mode, batch, precision = key.values()
    size = ["--input-size", SMALLEST[net]] if c.dry else []
    words = ["--backbone", net, "--mode", mode, "--batch-size", batch, "--precision", precision, "--device", c.device, *size]
    own = c.ours_json(f"bench {net} {mode} {batch} {precision}", "bench", *words, "--steps", 2 if c.dry else 20)
    if own is None:
        return None
    table = c.record.setdefault("bench", [])
    row = next((r for r in table if all(r[k] == v for k, v in key.items())), None)
    if row is None:
        row = {**key, "peers": {}}
        table.append(row)
    row["defrost"] = own
    c.save(f"{net} {mode} {batch} {precision}: {own['images_per_s']:.0f} images/s")
    return row


def measure_peer(c, peer, row, kind):
    """One way of PyTorch's, with the rate of ours that was measured just before: the two that a ratio is of."""
    try:
        theirs = peer.measure()
    except gpu_peer.Failed as failure:
        c.check_time()
        return c.leave_out(f"{kind} of {row['network']} {row['mode']} {row['batch']} {row['precision']}: {failure}")
    row["peers"][kind] = {**theirs, "ratio": round(row["defrost"]["images_per_s"] / theirs["images_per_s"], 3)}
    c.save(f"  PyTorch {kind}: {theirs['images_per_s']:.0f} images/s, ratio {row['peers'][kind]['ratio']:.2f}")


def profile(c):
    for precision in c.args.precisions[:1]:
        for net in c.args.nets:
            words = ["--mode", "train", "--device", c.device, "--precision", precision]
            small = ["--input-size", SMALLEST[net], "--batch-size", 2, "--steps", 1] if c.dry else []
            record = c.ours_json(f"profile {net}", "profile", net, *words, *small)
            if record:
                c.record.setdefault("profile", {})[net] = {**record, "precision": precision}
                c.save(f"{net}: {record['total_ms']:.2f} ms a step, {record['ideal_ms']:.2f} ms at the roofline")


def machine(args):
    """What the GPU is called, and its driver."""
    found = subprocess.run([args.defrost, "devices", "--json"], capture_output=True, text=True, check=True).stdout
    wanted = "cpu" if args.dry_run else "cuda:0"
    gpu = next(d["description"] for d in json.loads(found) if d["name"] == wanted)
    try:
        asked = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True, timeout=60)
        driver = asked.stdout.strip().splitlines()[0] if asked.returncode == 0 and asked.stdout.strip() else "unknown"
    except (OSError, subprocess.TimeoutExpired):
        driver = "unknown"
    return gpu, driver


def words(known=None):
    def parse(text):
        chosen = [w for w in text.split(",") if w]
        wrong = [w for w in chosen if known and w not in known]
        if wrong or not chosen:
            raise argparse.ArgumentTypeError(f"{', '.join(wrong) or 'nothing'} is none of {', '.join(known or [])}")
        return chosen

    return parse


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--defrost", required=True, help="the program")
    ap.add_argument("--parts", type=words(PARTS), default=PARTS, help="which, in this order [default: all]")
    ap.add_argument("--budget", type=float, help="seconds, after which no row is begun [default: none]")
    ap.add_argument("--name", help="of the result files [default: the GPU's name]")
    ap.add_argument("--results", type=pathlib.Path, help="where they go [default: results/gpu; a temporary folder for --dry-run]")
    ap.add_argument("--nets", type=words(NETWORKS), default=NETWORKS)
    ap.add_argument("--modes", type=words(["train", "frozen", "infer"]), default=["train", "infer", "frozen"])
    ap.add_argument("--batches", type=lambda text: [int(n) for n in text.split(",")], default=None, help="[default: 16,64]")
    ap.add_argument("--precisions", type=words(["f32", "tf32", "bf16"]), default=None, help="[default: bf16,tf32]")
    ap.add_argument("--peers", type=words(), default=["eager", "max-autotune"], help="eager, or a mode of torch.compile")
    ap.add_argument("--peer", help="another torch_bench.py")
    ap.add_argument("--peer-limit", type=float, default=400, help="seconds for one row of PyTorch's to compile and warm up [default: 400]")
    ap.add_argument("--sanitizer", help="another compute-sanitizer")
    ap.add_argument("--images", help="a folder of class folders")
    ap.add_argument("--dry-run", action="store_true", help="all of it on the cpu, with small images")
    args = ap.parse_args()
    args.results = args.results or pathlib.Path(tempfile.mkdtemp(prefix="gpu-check-") if args.dry_run else "results/gpu")
    args.batches = args.batches or ([2] if args.dry_run else [16, 64])
    args.precisions = args.precisions or (["f32"] if args.dry_run else ["bf16", "tf32"])
    args.images = args.images or next((p for p in IMAGES if pathlib.Path(p).is_dir()), None)
    return args


def main():
    args = arguments()
    c = Check(args, *machine(args))
    for part in args.parts:
        c.begin(part)
        try:
            {"selftest": selftest, "train": train, "bench": bench, "profile": profile}[part](c)
        except OutOfTime:
            c.leave_out("the rest: the time that was given is up")
        c.save()
    failures = [f for part in args.parts for f in c.record["failures"][part]]
    left_out = [f for part in args.parts for f in c.record["left_out"][part]]
    print(f"{len(failures)} failures, {len(left_out)} things left out; written: {c.path.with_suffix('.md')}, {c.path}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
