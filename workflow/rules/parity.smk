# results/parity/{artifact path}.json: an artifact run beside the one that it was made from


def parent_of(wildcards):
    return or_stop(TARGETS.parent_of, wildcards.artifact)


rule compare_stages:
    input:
        child="results/{artifact}",
        parent=parent_of,
    output:
        "results/parity/{artifact}.json",
    params:
        code=fingerprint("facekiln.parity.compare", "facekiln.parity.executors"),
        pictures=KILN.parity,
    log:
        "logs/parity/{artifact}.log",
    threads: 2
    shell:
        "facekiln --log {log} parity compare {input.parent} {input.child}"
        " --images {params.pictures[images]:q} --count {params.pictures[count]} --seed {params.pictures[seed]}"
        " --output {output}"
