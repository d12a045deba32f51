#!/usr/bin/env bash
# Defrost held against Keras, in tables that end with an exit code: numbers (keras-check.py), files read and files written.
# usage: scripts/keras-check.sh [--full] [--only exact,f32,pixels,split,files] [--nets NET,..]
# KERAS_PYTHON names a Python with tensorflow-cpu, keras, h5py, pillow and safetensors; without it one is made in target/keras.
set -euo pipefail
cd "$(dirname "$0")/.."
oracle=../shared/oracle/keras_oracle.py data=../shared/data
if [ ! -f "$oracle" ] || [ ! -d "$data/images" ]; then
  echo "skipped: the comparison with Keras, because $oracle or $data/images is not there"
  exit 0
fi
python=${KERAS_PYTHON:-target/keras/bin/python}
if [ -z "${KERAS_PYTHON:-}" ] && ! "$python" -c 'import tensorflow, keras, h5py, PIL, safetensors' 2>/dev/null; then
  python3 -m venv target/keras
  "$python" -m pip install --quiet 'tensorflow-cpu==2.21.*' 'keras==3.15.*' h5py pillow safetensors
fi
cargo build --quiet --release --bin defrost --example feed
"$python" scripts/keras-check.py --oracle "$oracle" --data "$data" "$@"
if [ $# = 0 ] || [ "$*" = --full ]; then
  "$python" scripts/keras-import.py
  "$python" scripts/keras_export_check.py
fi
