#!/usr/bin/env bash
# Makes one folder, under 60 MB, that proves and measures defrost on a machine with an NVIDIA GPU without Rust or nvcc: the program
# with sm_90a kernels, the peers to measure against, a small set of images, and gpu-check.sh to run them all.
# usage: scripts/gpu-pack.sh [FOLDER]          then there: ./gpu-check.sh
set -euo pipefail
cd "$(dirname "$0")/.."
pack=${1:-target/gpu-pack} shared=../shared most=$((60 * 1000 * 1000))

scripts/cuda-toolkit.sh
DEFROST_CUDA=require cargo build --release --bin defrost
rm -rf "$pack"
mkdir -p "$pack/images"
cp target/release/defrost scripts/gpu-check.sh scripts/gpu_check.py scripts/gpu_peer.py scripts/gpu_report.py "$pack"
strip --strip-debug "$pack/defrost"

if [ -d "$shared/peers" ]; then
  cp "$shared"/peers/torch_bench.py "$pack"
else
  echo "left out: $shared/peers is not there, so the other machine has nothing to measure against"
fi
if [ -d "$shared/data/images/brain-mri-4" ]; then
  cp -r "$shared/data/images/brain-mri-4" "$pack/images"
else
  # Without real images: those that `defrost demo` draws.
  "$pack/defrost" demo --out "$pack/demo" --epochs 1 > /dev/null
  mv "$pack/demo/images" "$pack/images/demo"
  rm -rf "$pack/demo"
  echo "left out: $shared/data is not there; drawn images take the place of real ones"
fi

size=$(du -sb "$pack" | cut -f1)
echo "$pack: $((size / 1000000)) MB"
"$pack/defrost" devices
if [ "$size" -gt "$most" ]; then
  echo "more than 60 MB" >&2
  exit 1
fi
