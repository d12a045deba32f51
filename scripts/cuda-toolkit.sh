#!/usr/bin/env bash
# Brings nvcc 13.0 into .cuda/ from NVIDIA's own pip wheels: no system install, no GPU needed, about 130 MB. The build finds it there.
set -euo pipefail
cd "$(dirname "$0")/.."
cuda=.cuda
version=13.0

if [ -x "$cuda/bin/nvcc" ] && "$cuda/bin/nvcc" --version | grep -q "release $version"; then
  echo "nvcc $version is in $cuda already"
  exit 0
fi
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip --version > /dev/null || { echo "pip is missing: install Python's pip, or nvcc $version by other means" >&2; exit 3; }
"$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$work" \
  "nvidia-cuda-nvcc==$version.*" "nvidia-cuda-crt==$version.*" "nvidia-nvvm==$version.*" \
  "nvidia-cuda-runtime==$version.*" "nvidia-cuda-cccl==$version.*"
# The wheels share one folder laid out as a CUDA toolkit: bin/nvcc, nvvm/bin/cicc, include/, lib/.
toolkit=$(dirname "$(dirname "$(find "$work" -path '*/bin/nvcc' | head -n 1)")")
rm -rf "$cuda"
cp -r "$toolkit" "$cuda"
chmod +x "$cuda"/bin/* "$cuda"/nvvm/bin/*

printf '#include <cuda_bf16.h>\nextern "C" __global__ void f(__nv_bfloat16* x) { x[threadIdx.x] = __float2bfloat16(1.0f); }\n' > "$work/f.cu"
"$cuda/bin/nvcc" -arch=sm_90a -fatbin -o "$work/f.fatbin" "$work/f.cu"
"$cuda/bin/nvcc" --version | tail -n 2 | head -n 1

# The next build looks for nvcc again.
touch build.rs
