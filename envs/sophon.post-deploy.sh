#!/usr/bin/env bash
# Completes the conda environment of envs/sophon.yaml, from the checkout's top folder: the locked wheels, and out with the
# wheel's own glibc 2.35, with which nothing runs on another one.
set -euo pipefail
export PYTHONNOUSERSITE=1
python -m pip install --no-input --require-hashes --no-deps --only-binary :all: --requirement envs/sophon.txt
packages=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -f "$packages"/tpu_mlir/lib/third_party/{libc.so.6,libm.so.6,libpthread.so.0}
