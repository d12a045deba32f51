#!/usr/bin/env bash
# Prints a Python that has Keras: KERAS_PYTHON if it is set, otherwise that of a virtual environment in target/keras, made when missing.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${KERAS_PYTHON:-target/keras/bin/python}
if ! "$python" -c 'import tensorflow, keras, h5py, PIL, safetensors' 2>/dev/null; then
  if [ -n "${KERAS_PYTHON:-}" ]; then
    echo "$python has no tensorflow, keras, h5py, pillow and safetensors" >&2
    exit 3
  fi
  python3 -m venv target/keras >&2
  "$python" -m pip install --quiet 'tensorflow-cpu==2.21.*' 'keras==3.15.*' h5py pillow safetensors >&2
fi
echo "$python"
