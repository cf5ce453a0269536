#!/usr/bin/env bash
# Makes the model `default`: runs/default.sh FOLDER_OF_TEXT OUT. It begins with the weights of `fast`, one and a half times as
# wide and a layer deeper, and goes on twice more, each time at a lower rate; on two CPU cores with AMX 8,000 to 10,000 tokens a
# second. The model is OUT/default-3/default.lmm. On a GPU: far more tokens.
set -eu
data=$(realpath "$1") out=$(realpath -m "$2") init=fast
cd "$(dirname "$0")/.."
for run in default default-2 default-3; do
    mkdir -p "$out/$run"
    [ $run = default ] || cp "$out/default/vocabulary.json" "$out/$run"
    python -m lmcompress.training.cli --config runs/$run.json --data "$data" --name default --out "$out/$run" --init "$init"
    init=$out/$run/run/float.pt
done
