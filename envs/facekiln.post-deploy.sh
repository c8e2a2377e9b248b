#!/usr/bin/env bash
# Run by Snakemake in a new conda environment, from the folder that Snakemake runs in.
set -euo pipefail
python -m pip install --editable .
