#!/usr/bin/env bash
# Makes the model `default`: runs/default.sh FOLDER_OF_TEXT OUT. It begins with the weights of `fast` (before fast-2), one and
# a half times as wide and a layer deeper, and goes on three times from the weights that it had before integers came in, each
# time at a lower rate; then twice more, each time from the mean of the last end and what it began with; and, from such a mean
# again, with integers alone (so did default-6, whose end was shipped once). At last the same two with the loss of network and
# mixer together, from the integers of default-8, and twice more, longer, each time from the weights behind the integers; then
# from the integers of default-14, from the mean of these and that end, and with integers from the mean of both ends and, twice,
# those of default-14. From there the networks have another shape (docs/LOG.md): default-18 without the last attention, which
# default-19, with integers from the mean of what default-18 began with, twice, and its end, has again. On two CPU cores with
# AMX 7,000 to 10,000 tokens a second. On a GPU: far more tokens. Then its n-grams are counted, unless OUT has those of `fast`
# already (ngrams.lmn). The folder has the pool's shards and those of corpora/debian.py, which only the last five runs and the
# n-grams of the shipped model have read. The model is OUT/default.lmm with OUT/ngrams.lmn.
set -eu
data=$(realpath "$1") out=$(realpath -m "$2") init=(--init fast)
cd "$(dirname "$0")/.."
for run in default default-2 default-3 default-4 default-5 default-6 default-7 default-8 default-9 default-10 \
    default-11 default-12 default-13 default-14 default-15 default-16 default-17 default-18 default-19; do
    mkdir -p "$out/$run"
    [ $run = default ] || cp "$out/default/vocabulary.json" "$out/$run"
    python -m lmcompress.training.cli --config runs/$run.json --data "$data" --name default --out "$out/$run" "${init[@]}"
    model=$out/$run/default.lmm end=$out/$run/run/checkpoint.pt
    case $run in
        default-4) init+=(--init "$end" --init "$end") ;;                # the third's, and twice this end: their mean
        default-7) init+=(--init "$end") ;;                              # as much of it as of what it began with
        default-5) init+=(--init "$end" --init "$end" --init "$end") ;;  # the same, of which there are three
        default-8 | default-14 | default-17) init=(--beside "$model" --init "$model") ;;
        default-10 | default-12) init=(--beside "$model" --init "$end") ;;
        default-16) init+=(--init "$end" --init "$out/default-14/default.lmm") ;; # twice what default-15 began with, both ends
        default-18) init+=(--init "$out/default-17/default.lmm" --init "$end") ;; # twice what it began with, this end
        default-9 | default-11 | default-13 | default-15) init+=(--init "$end") ;; # as much of it as of what it began with
        *) init=(--init "$out/$run/run/float.pt") ;;
    esac
done
python -m lmcompress.training.ngrams --data "$data" --lines 524288 --table "$out/ngrams.lmn" "$model" "$out/default.lmm"
