#!/usr/bin/env bash
# Makes the model `char`: runs/char.sh FOLDER_OF_TEXT OUT. Sized for a GPU; see runs/fast.sh for several.
set -eu
cd "$(dirname "$0")/.."
exec python -m lmcompress.training.cli --config runs/char.json --data "$1" --out "$2"
