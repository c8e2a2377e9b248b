# results/parity/{artifact path}.json: an artifact run beside the one that it was made from


rule compare_stages:
    input:
        child="results/{artifact}",
        parent=checked(lambda wc: TARGETS.parent_of(wc.artifact)),
        proved_with=checked(lambda wc: SOPHON.proved_with(wc.artifact)),
        tools=lambda wc: ancient(or_stop(SOPHON.tools_of, wc.artifact)),
    output:
        "results/parity/{artifact}.json",
    log:
        "logs/parity/{artifact}.log",
    conda:
        ENVIRONMENT
    threads: lambda wc: SOPHON.threads_of(wc.artifact)
    params:
        code=fingerprint("facekiln.parity.compare", "facekiln.parity.executors"),
        # Its faces are decoded by the model's thresholds (PLAN: gates.smk).
        declared=checked(lambda wc: PLAN.declared_of(wc.artifact)),
        pictures=KILN.parity,
        run=lambda wc: SOPHON.run_settings(wc.artifact),
    shell:
        "facekiln --log {log} parity compare {input.parent} {input.child}"
        " --images {params.pictures[images]:q} --count {params.pictures[count]} --seed {params.pictures[seed]}"
        " --output {output}"
