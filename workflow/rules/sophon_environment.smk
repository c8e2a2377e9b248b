# {toolchains}/sophon-{lock}.ready: the locked tpu_mlir, in a Python 3.10 of its own, outside results/

import os

from facekiln.chips.sophon.environment import toolchains

# So that commands of rules look where Snakemake's own `--config toolchains=...` says.
os.environ["FACEKILN_TOOLCHAINS"] = str(toolchains(KILN))


rule make_sophon_environment:
    output:
        or_stop(SOPHON.stamp),
    log:
        "logs/sophon/environment.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        tools=or_stop(SOPHON.identity),
    shell:
        "facekiln --log {log} sophon environment --make"
