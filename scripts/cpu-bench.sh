#!/usr/bin/env bash
# Defrost beside PyTorch on this machine, each pair in one run: medians of 5 steps after a warm-up, process peak memory.
# usage: scripts/cpu-bench.sh TORCH_BENCH.py [PYTHON] > table.md        (PYTHON has torch, torchvision and timm)
set -euo pipefail
peer=$1 python=${2:-python3} steps=${STEPS:-5}
cd "$(dirname "$0")/.."
cargo build --release --quiet
field() { python3 -c "import json,sys; print(json.loads(sys.stdin.read())['$1'])"; }
echo "| network | mode | defrost images/s | PyTorch images/s | ratio | defrost MiB | PyTorch MiB |"
echo "| --- | --- | --- | --- | --- | --- | --- |"
for mode in ${MODES:-train infer}; do
  for net in ${NETS:-densenet121 inceptionv3 xception vgg16}; do
    ours=$(./target/release/defrost bench --backbone "$net" --mode "$mode" --steps "$steps" --json 2>/dev/null)
    theirs=$("$python" "$peer" --model "$net" --mode "$mode" --steps "$steps" --warmup 1 2>/dev/null)
    a=$(field images_per_s <<<"$ours") b=$(field images_per_s <<<"$theirs")
    printf '| %s | %s | %.2f | %.2f | %.2f | %.0f | %.0f |\n' "$net" "$mode" "$a" "$b" \
      "$(python3 -c "print($a/$b)")" "$(field peak_mib <<<"$ours")" "$(field peak_mib <<<"$theirs")"
  done
done
