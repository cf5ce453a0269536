#!/bin/sh
# The engine's C files on this machine, on AArch64 (NEON) and on a big-endian machine (portable), under qemu-user, against
# the reference engine's integers. Needs Debian's gcc-aarch64-linux-gnu, gcc-s390x-linux-gnu and qemu-user.
set -eu
cd "$(dirname "$0")/../.."
out=build/cross
mkdir -p "$out"
"${PYTHON:-python3}" -m tests.cross.dump "$out/vectors"

sources="tests/cross/driver.c lmcompress/native/engine.c lmcompress/native/threads.c $(echo lmcompress/native/kernels_*.c)"
flags="-O2 -Wall -Wextra -Werror -ffp-contract=off -Ilmcompress/native -pthread"

${CC:-cc} $flags $sources -o "$out/driver" -lm
"$out/driver" "$out/vectors"
for machine in aarch64 s390x; do
    echo "== $machine"
    $machine-linux-gnu-gcc $flags $sources -o "$out/driver-$machine" -lm
    qemu-$machine -L /usr/$machine-linux-gnu "$out/driver-$machine" "$out/vectors"
done
