# {toolchains}/sophon-{lock}.ready: the locked tpu_mlir, in a Python 3.10 of its own, outside results/

import os

from facekiln.chips.sophon.environment import toolchains, wanted
from facekiln.chips.sophon.settings import load_settings as load_sophon_settings

# So that commands of rules look where Snakemake's own `--config toolchains=...` says.
os.environ["FACEKILN_TOOLCHAINS"] = str(toolchains(KILN))
SOPHON_ENVIRONMENT = or_stop(wanted, load_sophon_settings("config"), KILN)
# Inputs of rules that run its tools: made first, but no reason to run again; what changes it changes its lock, see
# SOPHON_TOOLS, which belongs into their params.
SOPHON_READY = ancient(str(SOPHON_ENVIRONMENT.stamp))
SOPHON_TOOLS = SOPHON_ENVIRONMENT.identity()


rule make_sophon_environment:
    output:
        str(SOPHON_ENVIRONMENT.stamp),
    log:
        "logs/sophon/environment.log",
    conda:
        ENVIRONMENT
    localrule: True
    params:
        tools=SOPHON_TOOLS,
    shell:
        "facekiln --log {log} sophon environment --make"
