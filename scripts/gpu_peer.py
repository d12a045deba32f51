#!/usr/bin/env python3
"""Measures with torch_bench.py many times, with Python started and PyTorch imported once: both ends of the line between gpu_check.py and
its workers.

A worker runs torch_bench.py's own main() for each configuration. It stops where the first timed step would begin, with everything compiled
and warm, until it is told to go on: so several workers can compile at the same time, and still only one of them measures.

  gpu_peer.py BENCH      the worker. Lines of JSON: it says {"versions"} when it is there; {"words"} is answered by {"ready"}, and {} then
                         by {"result"}; {"error"} may come instead of either.
"""
import contextlib
import gc
import importlib.util
import io
import json
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time

# What is left on the device after a configuration is the next one's peak: with more than this, a fresh process takes it.
MOST_LEFT = 64 << 20


class Failed(Exception):
    """Why there is no number."""


class Peer:
    """A worker, started when it is first asked and again after it has died. `limit` seconds are for starting and warming up, and for
    measuring; after `deadline` (monotonic) nothing is waited for."""

    def __init__(self, bench, limit, deadline=None):
        self.bench, self.limit, self.deadline = bench, limit, deadline or float("inf")
        self.process = None

    def start(self):
        """Does not wait until it is there."""
        if self.process and self.process.poll() is None:
            return
        self.stop()
        self.until = time.monotonic() + self.limit
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.bench)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)
        # A thread reads, because a wait for a line has to end in time.
        self.lines = queue.Queue()
        threading.Thread(target=self.listen, args=(self.process.stdout, self.lines), daemon=True).start()
        self.greeted, self.said = None, None

    @staticmethod
    def listen(stdout, lines):
        for line in stdout:
            lines.put(line)
        lines.put("")

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.errors.close()
        self.process = None

    def hear(self):
        """The next line. A worker that dies or takes too long is ended."""
        try:
            line = self.lines.get(timeout=max(min(self.until, self.deadline) - time.monotonic(), 0))
        except queue.Empty:
            self.stop()
            raise Failed("not done in time") from None
        if not line:
            code = self.process.wait()
            self.errors.seek(0)
            last = self.errors.read().strip()[-200:]
            self.stop()
            raise Failed(f"exit code {code}: {last}")
        return json.loads(line)

    def say(self, message):
        try:
            print(json.dumps(message), file=self.process.stdin, flush=True)
        except OSError:
            pass  # it is dead, and the next `hear` says so

    def versions(self):
        """What a worker has imported, once it has."""
        self.start()
        if self.greeted is None:
            self.greeted = self.hear()["versions"]
        return self.greeted

    def prepare(self, words):
        """Begins to compile and to warm up, and does not wait for it."""
        self.until, self.said = time.monotonic() + self.limit, None
        try:
            self.versions()
            self.say({"words": [str(w) for w in words]})
        except Failed as failure:
            self.said = {"error": str(failure)}

    def warm(self):
        """Waits until the worker is ready, or has failed."""
        if self.said is None:
            try:
                self.said = self.hear()
            except Failed as failure:
                self.said = {"error": str(failure)}

    def measure(self):
        """The record of torch_bench.py for what was prepared."""
        self.warm()
        said = self.said
        if "ready" in said:
            self.until = time.monotonic() + self.limit
            self.say({})
            said = self.hear()
        if said.get("last"):
            self.stop()
        if "error" in said:
            raise Failed(said["error"])
        return said["result"]


class Clock:
    """The time module as torch_bench.py sees it: the first time it asks for is that of its first timed step."""

    def __init__(self, before_first):
        self.before_first = before_first

    def __getattr__(self, name):
        return getattr(time, name)

    def perf_counter(self):
        if self.before_first:
            before, self.before_first = self.before_first, None
            before()
        return time.perf_counter()


def measured(bench, words, wait):
    """What torch_bench.py prints for these words."""
    said = io.StringIO()
    bench.time = Clock(wait)
    sys.argv = [bench.__file__, *words]
    try:
        with contextlib.redirect_stdout(said):
            bench.main()
        return {"result": json.loads(said.getvalue().strip().splitlines()[-1])}
    except SystemExit as exit:
        return {"error": f"it ended with {exit.code}"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}


def free(torch):
    """Gives the device's memory back; returns the bytes that are left."""
    if not torch:
        return 0
    # Before the cache is emptied: compiled code and recorded graphs hold memory.
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    trees = sys.modules.get("torch._inductor.cudagraph_trees")
    if trees:
        trees.reset_cudagraph_trees()
    gc.collect()
    if not torch.cuda.is_available():
        return 0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def serve(path):
    """Answers until there is no more to read."""
    answers, sys.stdout = sys.stdout, sys.stderr

    def say(message):
        print(json.dumps(message), file=answers, flush=True)

    def listen():
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)
        return json.loads(line)

    def wait():
        say({"ready": True})
        listen()

    spec = importlib.util.spec_from_file_location("torch_bench", path)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    torch = sys.modules.get("torch")
    versions = {"torch": torch.__version__, "cuda": torch.cuda.is_available()} if torch else {}
    say({"versions": versions})
    while True:
        answer = measured(bench, listen()["words"], wait)
        left = free(torch)
        say({**answer, "last": left > MOST_LEFT})


if __name__ == "__main__":
    if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1]).is_file():
        sys.exit(__doc__)
    serve(sys.argv[1])
