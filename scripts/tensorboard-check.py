#!/usr/bin/env python3
"""Reads a run's event files with TensorBoard itself and holds them against history.csv and steps.csv.

Needs: pip install tensorboard

  tensorboard-check.py RUN
"""
import csv
import os
import sys

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = sys.argv[1]


def scalars(subset):
    """All scalars of a subset by tag, as (step, value), and nothing left out to save memory."""
    board = EventAccumulator(os.path.join(run, "tensorboard", subset), size_guidance={"scalars": 0})
    board.Reload()
    return {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in board.Tags()["scalars"]}


def table(name):
    with open(os.path.join(run, name), newline="") as f:
        return list(csv.DictReader(f))


history, steps = table("history.csv"), table("steps.csv")


def column(rows, key, name):
    return [(int(row[key]), float(np.float32(row[name]))) for row in rows if row[name]]


expected = dict(train=dict(epoch_loss=column(history, "epoch", "loss"), epoch_accuracy=column(history, "epoch", "accuracy"),
                           epoch_learning_rate=column(history, "epoch", "lr"), batch_loss=column(steps, "step", "loss")),
                validation=dict(epoch_loss=column(history, "epoch", "val_loss"), epoch_accuracy=column(history, "epoch", "val_accuracy")))
checked = 0
for subset, tags in expected.items():
    found = scalars(subset)
    for tag, rows in tags.items():
        # Of an epoch that was interrupted the tables do not tell yet.
        values = found.get(tag, [])
        wrong = [(is_, should) for is_, should in zip(values, rows) if is_ != should]
        if wrong or len(values) < len(rows):
            sys.exit(f"{subset}/{tag}: {len(values)} values for {len(rows)} rows; first difference {wrong[:1]}")
        checked += len(rows)
    for tag, values in found.items():
        if [step for step, _ in values] != list(range(1, len(values) + 1)):
            sys.exit(f"{subset}/{tag}: a step is missing, twice there or out of order")
print(f"TensorBoard reads {checked} scalars as the tables have them")
