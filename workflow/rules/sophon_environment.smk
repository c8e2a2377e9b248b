# {toolchains}/sophon-{lock}.ready: the locked tpu_mlir, in a Python 3.10 of its own, outside results/

from facekiln.chips.sophon.environment import share_toolchains, wanted
from facekiln.chips.sophon.settings import load_settings as load_sophon_settings

or_stop(lambda: share_toolchains(KILN, main=workflow.is_main_process))
SOPHON_TOOLS = or_stop(lambda: wanted(load_sophon_settings("config"), KILN))


rule make_sophon_environment:
    output:
        SOPHON_TOOLS.stamp_of_rules,
    log:
        "logs/sophon/environment.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        tools=SOPHON_TOOLS.identity(),
    shell:
        "facekiln --log {log} sophon environment --make"
