# results/datasets/{dataset}/: a declared dataset compared with its declaration, and what its rules leave out


rule check_dataset:
    output:
        report="results/datasets/{dataset}/report.json",
        text="results/datasets/{dataset}/report.txt",
        weights="results/datasets/{dataset}/weights.csv",
    log:
        "logs/datasets/{dataset}.log",
    wildcard_constraints:
        dataset=r"\w+",
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint("facekiln.data.audit", "facekiln.data.report"),
        declared=checked(lambda wc: TARGETS.dataset_digest(wc.dataset)),
    shell:
        "facekiln --log {log} dataset check {wildcards.dataset} --jobs {threads}"
        " --output results/datasets/{wildcards.dataset}"
