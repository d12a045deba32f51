#!/usr/bin/env bash
# Everything that a GPU must show: the op table, training against the cpu, speed beside PyTorch. Runs in the tree or in the folder
# that gpu-pack.sh makes, writes results/gpu/NAME.md and NAME.json, and exits with 0 if all that is right or wrong was right.
# usage: gpu-check.sh [--name NAME] [--quick]     (PYTHON: a python with torch, torchvision and timm, to measure against)
set -euo pipefail
cd "$(dirname "$0")"
[ -x ./defrost ] || cd ..
defrost=./defrost
if [ ! -x "$defrost" ]; then
  defrost=target/release/defrost
  DEFROST_CUDA=require cargo build --release --bin defrost
fi
found=$("$defrost" devices)
if ! grep -q '^cuda:0 *yes' <<< "$found"; then
  echo "no GPU can be used here, so nothing was checked and nothing was measured:" >&2
  grep '^cuda' <<< "$found" >&2
  exit 3
fi
script=./gpu_check.py
[ -f "$script" ] || script=scripts/gpu_check.py
exec "${PYTHON:-python3}" "$script" --defrost "$defrost" "$@"
