#!/bin/sh
# The engine's C files under AddressSanitizer and UndefinedBehaviorSanitizer, then under ThreadSanitizer: every function of
# every instruction set here, and whole models on several threads (tests/cross/driver.c).
set -eu
cd "$(dirname "$0")/.."
out=build/sanitize
mkdir -p "$out"
"${PYTHON:-python3}" -m tests.cross.dump "$out/vectors"

sources="tests/cross/driver.c lmcompress/native/engine.c lmcompress/native/threads.c $(echo lmcompress/native/kernels_*.c)"
flags="-O1 -g -fno-omit-frame-pointer -ffp-contract=off -Ilmcompress/native -pthread"

for sanitizers in address,undefined thread; do
    echo "== $sanitizers"
    ${CC:-cc} $flags -fsanitize=$sanitizers -fno-sanitize-recover=all $sources -o "$out/driver" -lm
    "$out/driver" "$out/vectors"
done
