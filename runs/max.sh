#!/usr/bin/env bash
# Makes the model `max`: runs/max.sh FOLDER_OF_TEXT OUT. Sized for a GPU; see runs/fast.sh for several.
set -eu
cd "$(dirname "$0")/.."
exec python -m lmcompress.training.cli --config runs/max.json --data "$1" --out "$2"
