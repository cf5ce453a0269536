#!/usr/bin/env bash
# Makes the model `default`: runs/default.sh FOLDER_OF_TEXT OUT. It begins with the weights of `fast`, one and a half times as
# wide and a layer deeper, goes on three times more from the weights that it had before integers came in, each time at a lower rate,
# and at last takes the mean of the last two ends, 2 to 1, and trains with integers alone; on two CPU cores with AMX 8,000 to
# 10,000 tokens a second. On a GPU: far more tokens. The model is OUT/default-5/default.lmm.
set -eu
data=$(realpath "$1") out=$(realpath -m "$2") init=(--init fast)
cd "$(dirname "$0")/.."
for run in default default-2 default-3 default-4 default-5; do
    mkdir -p "$out/$run"
    [ $run = default ] || cp "$out/default/vocabulary.json" "$out/$run"
    python -m lmcompress.training.cli --config runs/$run.json --data "$data" --name default --out "$out/$run" "${init[@]}"
    case $run in
        default-4) last=$out/default-4/run/checkpoint.pt init=(--init "$last" --init "$last" "${init[@]}") ;;
        *) init=(--init "$out/$run/run/float.pt") ;;
    esac
done
