#!/usr/bin/env bash
# Fine-tuning on real images, frozen and unfrozen, in Keras and in Defrost, three seeds each (claim.py): writes results/claim/inceptionv3.md.
# Half an hour on two cores. usage: scripts/claim.sh [--seeds 1,2,3] [--epochs 8] [--note TEXT] ...
set -euo pipefail
cd "$(dirname "$0")/.."
oracle=../shared/oracle data=../shared/data
if [ ! -f "$oracle/inception2015.py" ] || [ ! -d "$data/weights/inception-v3-2015" ]; then
  echo "skipped: the experiment with Keras, because $oracle/inception2015.py or $data/weights is not there"
  exit 0
fi
python=$(scripts/keras-python.sh)
cargo build --quiet --release --bin defrost
"$python" scripts/claim.py --oracle "$oracle" --data "$data" "$@"
