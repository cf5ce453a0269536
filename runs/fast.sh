#!/usr/bin/env bash
# Makes the model `fast` again: text -> vocabulary -> token ids -> training -> model file.
#   runs/fast.sh FOLDER_OF_TEXT OUT
# Then it goes on with the loss of network and mixer together, and, from the mean of what that began with and, twice, its
# end, with integers; and so once more, longer, from the weights behind those integers. On two CPU cores with AMX about
# 15,000 tokens a second; on a GPU the same command. With several GPUs:
#   torchrun --nproc_per_node=8 -m lmcompress.training.cli ... (same options)
# At last the same a third time, from the integers and half and half, and a fourth, in another shape (docs/LOG.md); then its
# n-grams are counted. The folder has the pool's shards and those of corpora/debian.py, which only the last four runs and the
# n-grams of the shipped model have read. The model is OUT/fast.lmm with OUT/ngrams.lmn.
set -eu
data=$(realpath "$1") out=$(realpath -m "$2") init=()
cd "$(dirname "$0")/.."
for run in fast fast-2 fast-3 fast-4 fast-5 fast-6 fast-7 fast-8 fast-9; do
    python -m lmcompress.training.cli --config runs/$run.json --data "$data" --name fast --out "$out/$run" "${init[@]}"
    model=$out/$run/fast.lmm end=$out/$run/run/checkpoint.pt
    case $run in
        fast | fast-5 | fast-7) init=(--beside "$model" --init "$model") ;;
        fast-3) init=(--beside "$model" --init "$end") ;;
        fast-6 | fast-8) init+=(--init "$end") ;; # as much of it as of what it began with
        *) init+=(--init "$end" --init "$end") ;;
    esac
done
python -m lmcompress.training.ngrams --data "$data" --lines 524288 --table "$out/ngrams.lmn" "$model" "$out/fast.lmm"
