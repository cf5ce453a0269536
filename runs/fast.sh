#!/usr/bin/env bash
# Makes the model `fast` again: text -> vocabulary -> token ids -> training -> model file.
#   runs/fast.sh FOLDER_OF_TEXT OUT
# Then it goes on with the loss of network and mixer together, and, from the mean of what that began with and, twice, its
# end, with integers. On two CPU cores with AMX about 15,000 tokens a second; on a GPU the same command. With several GPUs:
#   torchrun --nproc_per_node=8 -m lmcompress.training.cli ... (same options)
# The model is OUT/fast-3/fast.lmm.
set -eu
data=$(realpath "$1") out=$(realpath -m "$2") init=()
cd "$(dirname "$0")/.."
for run in fast fast-2 fast-3; do
    python -m lmcompress.training.cli --config runs/$run.json --data "$data" --name fast --out "$out/$run" "${init[@]}"
    case $run in
        fast) init=(--beside "$out/fast/fast.lmm" --init "$out/fast/fast.lmm") ;;
        fast-2) init+=(--init "$out/$run/run/checkpoint.pt" --init "$out/$run/run/checkpoint.pt") ;;
    esac
done
