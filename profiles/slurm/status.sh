#!/usr/bin/env bash
# Tell Snakemake the state of one Slurm job; squeue is enough, no accounting database is needed.
case $(squeue -h -t all -o %T -j "$1" 2>/dev/null) in
  COMPLETED) echo success ;;
  PENDING | RUNNING | CONFIGURING | COMPLETING | SUSPENDED) echo running ;;
  *) echo failed ;;
esac
