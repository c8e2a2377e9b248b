# What exists: the config, one file of rules per artifact family, and what a bare `snakemake` builds.

from snakemake.utils import min_version

min_version("9.20")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/datasets.smk"
include: "workflow/rules/checkpoints.smk"
include: "workflow/rules/onnx.smk"
include: "workflow/rules/caffe.smk"
include: "workflow/rules/calibration.smk"
include: "workflow/rules/quant.smk"
include: "workflow/rules/nnie.smk"
include: "workflow/rules/tengine.smk"
include: "workflow/rules/ncnn.smk"
include: "workflow/rules/sophon.smk"
include: "workflow/rules/sophon_environment.smk"
include: "workflow/rules/sophon_calibration.smk"
include: "workflow/rules/magicmind.smk"
include: "workflow/rules/parity.smk"
include: "workflow/rules/predictions.smk"
include: "workflow/rules/predictions_board.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/landmarks.smk"
include: "workflow/rules/gates.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/sophon_table.smk"
include: "workflow/rules/bench.smk"
include: "workflow/rules/magicmind_table.smk"


rule all:
    default_target: True
    input:
        expand("results/{target}", target=KILN.targets),
    localrule: True


# Last, as it takes every name that no rule above does.
include: "workflow/rules/unknown.smk"
