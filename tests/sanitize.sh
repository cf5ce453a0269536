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

echo "== the extension in Python: address,undefined"
rm -rf "$out/tree"
mkdir "$out/tree"
cp -r lmcompress tests benchmarks corpora setup.py pyproject.toml "$out/tree"
rm -f "$out"/tree/lmcompress/_native*.so
cd "$out/tree"
export CFLAGS="-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
${PYTHON:-python3} setup.py -q build_ext --inplace
unset CFLAGS
# what Python itself leaves behind at its end is not looked at
LD_PRELOAD="$(${CC:-cc} -print-file-name=libasan.so) $(${CC:-cc} -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0 "${PYTHON:-python3}" -m pytest -q -p no:cacheprovider \
    tests/test_engine.py tests/test_tokenizer.py tests/test_coder.py tests/test_mixer.py \
    -k "not without_python and not whole_texts" # the first compiles the driver once more, the second takes minutes
