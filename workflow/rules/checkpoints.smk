# results/checkpoints/{model}.pth: trained here by a recipe, or fetched and pinned, or the user's own.
# A training that was killed goes on from its state below results/training/{model}/.


rule train_checkpoint:
    input:
        recipe=checked(TARGETS.recipe_of),
        audits=checked(TARGETS.audits_of),
    output:
        checkpoint="results/checkpoints/{model}.pth",
        history="results/training/{model}/history.json",
        curves=report(
            "results/training/{model}/curves.png",
            caption="../report/training.rst",
            category="Training",
            labels={"model": "{model}"},
        ),
    log:
        "logs/checkpoints/{model}.train.log",
    benchmark:
        "logs/benchmarks/checkpoints/{model}.train.tsv"
    wildcard_constraints:
        model=TARGETS.models_with("synthetic", "trained"),
    conda:
        ENVIRONMENT
    threads: checked(TARGETS.threads_of)
    resources:
        # On a cluster: a recipe of photographs takes a day.
        runtime=1440,
    params:
        code=fingerprint("facekiln.training.train"),
        declared=declared("declaration"),
    shell:
        "facekiln --log {log} checkpoint train --model {wildcards.model} --output {output.checkpoint}"


rule fetch_checkpoint:
    input:
        checked(TARGETS.own_file_of),
    output:
        "results/checkpoints/{model}.pth",
    log:
        "logs/checkpoints/{model}.fetch.log",
    wildcard_constraints:
        model=TARGETS.models_with("published", "local"),
    retries: 2
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.models.fetch", "facekiln.models.checkpoint"),
        declared=declared("declaration", "published", "local"),
        weights=lambda wc: KILN.weights_of(wc.model),
        mirror=MIRROR,
    shell:
        "facekiln --log {log} checkpoint fetch --model {wildcards.model} --weights {params.weights}"
        " {params.mirror} --output {output}"
