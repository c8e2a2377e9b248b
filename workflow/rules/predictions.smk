# results/predictions/{backend}/{artifact}/{dataset}[@{inference}]/: a stage run over a dataset, in shards

from facekiln.predictions.names import PredictionTargets

PREDICTIONS = PredictionTargets(KILN)


scattergather:
    predictions=KILN.prediction_shards,


rule predict_shard:
    input:
        unpack(checked(PREDICTIONS.files)),
        tools=lambda wc: ancient(or_stop(PREDICTIONS.tools, wc)),
        # Stops an artifact that finds nothing before a long run.
        golden="results/gates/golden/{artifact}.json",
    output:
        temp(
            directory(
                "results/prediction_shards/{backend}/{artifact}/{dataset}/{scatteritem}"
            )
        ),
    log:
        "logs/predictions/{backend}/{artifact}/{dataset}.{scatteritem}.log",
    benchmark:
        "logs/benchmarks/predictions/{backend}/{artifact}/{dataset}.{scatteritem}.tsv"
    wildcard_constraints:
        backend=r"(?!board-)[\w-]+",
        dataset=r"[\w@]+",
    conda:
        ENVIRONMENT
    threads: lambda wc: SOPHON.threads_of(wc.artifact, wc.backend)
    params:
        code=fingerprint("facekiln.predictions.run"),
        settings=checked(PREDICTIONS.digest),
    shell:
        "facekiln --log {log} predict run --backend {wildcards.backend} --stage {input.artifact:q}"
        " --dataset {wildcards.dataset} --shard {wildcards.scatteritem} --golden {input.golden:q}"
        " --output {output:q}"


rule merge_predictions:
    input:
        # The shards are gone after this rule, so it has to notice itself what they depend on.
        unpack(checked(PREDICTIONS.files)),
        tools=lambda wc: ancient(or_stop(PREDICTIONS.tools, wc)),
        shards=gather.predictions(
            "results/prediction_shards/{{backend}}/{{artifact}}/{{dataset}}/{scatteritem}"
        ),
    output:
        directory("results/predictions/{backend}/{artifact}/{dataset}"),
    log:
        "logs/predictions/{backend}/{artifact}/{dataset}.merge.log",
    wildcard_constraints:
        backend=r"(?!board-)[\w-]+",
        dataset=r"[\w@]+",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.predictions.run"),
        settings=checked(PREDICTIONS.digest),
    shell:
        "facekiln --log {log} predict merge {input.shards:q} --output {output:q}"
