#!/usr/bin/env bash
# Defrost beside PyTorch (eager and compiled) and Keras on this machine's CPU, each pair in one run, and how its time grows with the
# batch, the input's size and the threads. Writes results/cpu/MACHINE.md.
# usage: scripts/cpu-bench.sh [MACHINE] [--steps N] [--nets NET,..] [--modes train,frozen,infer] [--peers eager,compile,keras]
#        [--precisions f32,bf16] [--no-growth]
# TORCH_PYTHON and KERAS_PYTHON name Pythons that have the peers; without them, both are installed below target/peers.
set -euo pipefail
cd "$(dirname "$0")/.."
peers=../shared/peers
venv() { # folder, packages...
  local python=target/peers/$1/bin/python
  if [ ! -x "$python" ] || ! "$python" -c "import $2" 2>/dev/null; then
    python3 -m venv "target/peers/$1"
    "$python" -m pip install --quiet "${@:3}"
  fi
  echo "$python"
}
torch= keras=
if [ -d "$peers" ]; then
  torch=${TORCH_PYTHON:-$(venv torch torch,torchvision,timm torch torchvision timm)}
  keras=${KERAS_PYTHON:-$(venv keras keras,tensorflow 'tensorflow-cpu==2.21.*' 'keras==3.15.*')}
else
  echo "skipped: PyTorch and Keras, because $peers is not there" >&2
fi
cargo build --release --quiet --bin defrost
python3 scripts/cpu_bench.py --torch "$torch" --keras "$keras" --peers-at "$peers" "$@"
