# A name that no rule makes is answered with the nearest that one does, not with a bare MissingRuleException.

import re as _re


def _patterns():
    """Every output pattern below results/ that the rules above declare, with plain {wildcard} names."""
    outputs = [str(output) for rule in workflow.rules for output in rule.output]
    return [_re.sub(r"\{(\w+),[^}]*\}", r"{\1}", o).removeprefix("results/") for o in outputs if o.startswith("results/")]


KNOWN_PATTERNS = _patterns()
KNOWN_REGEX = "|".join(
    _re.sub(r"\(\?P<\w+>", "(?:", output.regex()).removeprefix("results/").removesuffix("$")
    for rule in workflow.rules
    for output in rule.output
    if str(output).startswith("results/")
)


def refuse(wildcards):
    raise WorkflowError(str(TARGETS.explain_unknown(wildcards.unknown, KNOWN_PATTERNS)))


rule refuse_unknown_target:
    input:
        refuse,
    output:
        "results/{unknown}",
    log:
        "logs/unknown/{unknown}.log",
    wildcard_constraints:
        unknown=rf"(?!(?:{KNOWN_REGEX})$).+",
    shell:
        "false"
