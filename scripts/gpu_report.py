"""The record of gpu_check.py as a page of Markdown."""


def table(columns, rows):
    line = lambda cells: "| " + " | ".join(str(c) for c in cells) + " |"
    return [line(columns), line(["---"] * len(columns)), *[line(row) for row in rows], ""]


def selftest(part):
    lines = [f"`selftest`: {part['passed']} of {part['rows']} checks passed ({', '.join(part['dtypes'])}) in {part['seconds']} s.", ""]
    lines += [f"- {row['case']}, {row['check']}: {row['fault'] or row['share']}" for row in part["failed"][:20]]
    return lines + [f"- compute-sanitizer {tool}: {said}" for tool, said in part["sanitizer"].items()] + [""]


def train(part):
    def row(net, run):
        cpu, cuda = run["cpu"], run["cuda"]
        off = max(abs(a - b) / max(abs(a), 1e-6) for a, b in zip(cpu[:10], cuda[:10]))
        shown = [f"{loss:.6f}" for loss in [cpu[0], cuda[0], cpu[-1], cuda[-1]]]
        return [net, len(cpu), *shown, f"{100 * off:.3f}%", "yes" if run["repeats_to_the_bit"] else "NO"]

    columns = ["network", "steps", "first loss, cpu", "first, cuda", "last, cpu", "last, cuda", "largest difference in the first ten", "repeats to the bit"]
    return table(columns, [row(net, run) for net, run in part.items()])


def runs(part):
    lines = []
    for freeze, run in part.items():
        lines += [f"{run['network']}, `--freeze {freeze}`, from end to end in {run['seconds']} s:", "", "```", run["history"].strip(), "```", ""]
    return lines


def bench(part):
    kinds = list(dict.fromkeys(kind for row in part for kind in row["peers"]))
    columns = ["network", "mode", "batch", "precision", "ms", "images/s", "MiB", *[f"PyTorch {kind}" for kind in kinds], "ratio to its best"]

    def line(row):
        own = row["defrost"]
        rates = [f"{row['peers'][k]['images_per_s']:.0f}" if k in row["peers"] else "-" for k in kinds]
        ratios = [peer["ratio"] for peer in row["peers"].values()]
        cells = [row["network"], row["mode"], row["batch"], row["precision"], own["step_ms"], f"{own['images_per_s']:.0f}"]
        return [*cells, f"{own['peak_mib'] or 0:.0f}", *rates, f"{min(ratios):.2f}" if ratios else "-"]

    versions = sorted({peer["peer"] for row in part for peer in row["peers"].values()})
    lines = table(columns, [line(row) for row in part])
    return lines + ([f"Peers: {', '.join(versions)}. A ratio is of rates that were measured one after the other.", ""] if versions else [])


def profile(part):
    lines = []
    for net, record in part.items():
        peak, share = record["peak"], lambda x: f"{100 * x['share']:.0f}%"
        lines.append(f"{net}, {record['precision']}: {record['total_ms']:.2f} ms a step, {record['ideal_ms']:.2f} ms at the roofline")
        lines += [f"({peak['gflops']:.0f} GFLOP/s, {peak['gb_s']:.0f} GB/s). By op, and the steps that lose most:", ""]
        lines += table(["op", "steps", "ms", "roofline"], [[op["name"], op["steps"], f"{op['ms']:.3f}", share(op)] for op in record["ops"]])
        worst = sorted(record["steps"], key=lambda s: -s["lost_ms"])[:10]
        cells = [[s["layer"], s["phase"], s["op"], f"{s['ms']:.3f}", f"{s['lost_ms']:.3f}", share(s)] for s in worst]
        lines += table(["layer", "phase", "op", "ms", "lost ms", "roofline"], cells)
    return lines


SECTIONS = [
    ("selftest", "Operations against the specification", selftest),
    ("train", "Training: the cpu and the GPU", train),
    ("runs", "Whole runs", runs),
    ("bench", "Speed", bench),
    ("profile", "One training step against the roofline", profile),
]


def markdown(record):
    dry = ["**A dry run on the cpu with small images: it tries the script, and says nothing of any GPU.**", ""] if record["dry_run"] else []
    lines = [f"# {record['gpu']}", "", f"{record['date']}, driver {record['driver']}. The machine as it was found; times are medians.", "", *dry]
    for key, title, section in SECTIONS:
        if record.get(key):
            lines += [f"## {title}", "", *section(record[key])]
    for key, title in [("failures", "Failed"), ("left_out", "Left out")]:
        found = [f"- {part}: {what}" for part, whats in record[key].items() for what in whats]
        lines += [f"## {title}", "", *found, ""] if found else []
    if not any(record["failures"].values()):
        lines.append("All that can be right or wrong, of what was checked, was right.")
    return "\n".join(lines).rstrip() + "\n"
