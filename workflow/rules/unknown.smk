# A name that no rule makes is answered with the nearest that one does, not with a bare MissingRuleException.

CLAIMED = [
    output
    for rule in workflow.rules
    for output in rule.output
    if str(output).startswith("results/")
]


rule refuse_unknown_target:
    input:
        checked(lambda wc: TARGETS.refuse_unknown(wc.unknown, CLAIMED)),
    output:
        "results/{unknown}",
    log:
        "logs/unknown/{unknown}.log",
    wildcard_constraints:
        unknown=unclaimed(output.regex().pattern for output in CLAIMED),
    conda:
        ENVIRONMENT
    shell:
        "false"
