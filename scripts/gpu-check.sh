#!/usr/bin/env bash
# Everything that a GPU must show: the op table, training against the cpu, speed beside PyTorch. Runs in the tree or in the folder
# that gpu-pack.sh makes, writes results/gpu/NAME.md and NAME.json, and exits with 0 if all that is right or wrong was right.
# usage: gpu-check.sh [--parts selftest,train,bench,profile] [--budget SECONDS] [--nets N,..] [--peers eager,max-autotune] [--dry-run] ...
# PYTHON names a python with torch, torchvision and timm, to measure against. --help tells the rest.
set -euo pipefail
cd "$(dirname "$0")"
[ -x ./defrost ] || cd ..
defrost=./defrost script=./gpu_check.py
if [ ! -x "$defrost" ]; then
  defrost=${DEFROST:-target/release/defrost} script=scripts/gpu_check.py
fi
python=${PYTHON:-python3}
case " $* " in *" --help "* | *" -h "*) exec "$python" "$script" --defrost "$defrost" --help ;; esac
if [ ! -x "$defrost" ]; then
  DEFROST_CUDA=require cargo build --release --bin defrost
fi
found=$("$defrost" devices)
case " $* " in
*" --dry-run "*) ;;
*)
  if ! grep -q '^cuda:0 *yes' <<< "$found"; then
    echo "no GPU can be used here, so nothing was checked and nothing was measured:" >&2
    grep '^cuda' <<< "$found" >&2
    exit 3
  fi
  ;;
esac
exec "$python" "$script" --defrost "$defrost" "$@"
