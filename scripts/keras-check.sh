#!/usr/bin/env bash
# Defrost held against Keras, in tables that end with an exit code: numbers (keras-check.py), files read and files written.
# usage: scripts/keras-check.sh [--full] [--only exact,f32,pixels,split,files] [--nets NET,..] [--flags "FLAG .."]..
# --full takes every rule through every network and larger images: the better part of an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
oracle=../shared/oracle/keras_oracle.py data=../shared/data
python=$(scripts/keras-python.sh)
cargo build --quiet --release --bin defrost --example feed
if [ -f "$oracle" ] && [ -d "$data/images" ]; then
  "$python" scripts/keras-check.py --oracle "$oracle" --data "$data" "$@"
else
  echo "skipped: numbers, pixels and splits, because $oracle or $data/images is not there"
fi
case "$*" in *--only* | *--nets*) exit 0 ;; esac
"$python" scripts/keras-import.py
"$python" scripts/keras_export_check.py
