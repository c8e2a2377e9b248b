# results/checkpoints/{model}.pth: trained here on procedural faces, or fetched and pinned, or the user's own.


rule train_checkpoint:
    input:
        recipe=lambda wc: f"config/training/{KILN.model(wc.model).recipe}.yaml",
    output:
        "results/checkpoints/{model}.pth",
    params:
        code=fingerprint("facekiln.training.train"),
        declared=declared("network", "options", "input", "priors"),
    log:
        "logs/checkpoints/{model}.train.log",
    benchmark:
        "logs/benchmarks/checkpoints/{model}.train.tsv"
    threads: 2
    wildcard_constraints:
        model=TARGETS.models_with("synthetic"),
    shell:
        "facekiln --log {log} checkpoint train --model {wildcards.model} --output {output}"


rule fetch_checkpoint:
    output:
        "results/checkpoints/{model}.pth",
    params:
        code=fingerprint("facekiln.models.fetch"),
        declared=declared("network", "options", "input", "priors", "published", "local"),
        weights=lambda wc: KILN.weights_of(wc.model),
        mirror=f"--mirror {KILN.mirror}" if KILN.mirror else "",
    log:
        "logs/checkpoints/{model}.fetch.log",
    retries: 2
    wildcard_constraints:
        model=f"{TARGETS.models_with('published')}|{TARGETS.models_with('local')}",
    shell:
        "facekiln --log {log} checkpoint fetch --model {wildcards.model} --weights {params.weights}"
        " {params.mirror} --output {output}"
