#!/usr/bin/env bash
# Completes the conda environment of envs/sophon.yaml, from the checkout's top folder: the locked wheels, out with the wheel's
# own glibc 2.35, with which nothing runs on another one, and its lock beside what it guards, not where another user's lies.
set -euo pipefail
export PYTHONNOUSERSITE=1
python -m pip install --no-input --require-hashes --no-deps --only-binary :all: --requirement envs/sophon.txt
packages=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rm -f "$packages"/tpu_mlir/lib/third_party/{libc.so.6,libm.so.6,libpthread.so.0}
sed -i 's|"/tmp/cmodel_so.lock"|os.path.join(os.environ["TPUC_ROOT"], "lib", "cmodel_so.lock")|' \
    "$packages"/tpu_mlir/python/tools/{model_runner,mlir_cut}.py
