# results/eval/{port,matlab,octave,voc}/{backend}/{artifact}/{dataset}.json and .curves.npz: average precision

from facekiln.evaluation.rule_inputs import PrecisionTargets

PRECISION = PrecisionTargets(KILN)


rule evaluate_wider:
    input:
        checked(PRECISION.wider),
    output:
        record="results/eval/{evaluator}/{backend}/{artifact}/{dataset}.json",
        curves="results/eval/{evaluator}/{backend}/{artifact}/{dataset}.curves.npz",
    log:
        "logs/eval/{evaluator}/{backend}/{artifact}/{dataset}.log",
    wildcard_constraints:
        evaluator="port|matlab|octave",
        backend=r"[\w-]+",
        dataset=r"[\w@]+",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint(
            "facekiln.evaluation.wider",
            "facekiln.evaluation.wider_record",
            "facekiln.evaluation.read_any",
        ),
        declared=checked(PRECISION.digest),
        truth=checked(PRECISION.truth),
        boxes=PRECISION.box_rule,
    shell:
        "facekiln --log {log} eval wider {input} --protocol {wildcards.evaluator} --boxes {params.boxes}"
        " --output {output.record} --curves {output.curves}"


rule evaluate_voc:
    input:
        checked(PRECISION.voc),
    output:
        record="results/eval/{evaluator}/{backend}/{artifact}/{dataset}.json",
        curves="results/eval/{evaluator}/{backend}/{artifact}/{dataset}.curves.npz",
    log:
        "logs/eval/{evaluator}/{backend}/{artifact}/{dataset}.log",
    wildcard_constraints:
        evaluator="voc",
        backend=r"[\w-]+",
        dataset=r"[\w@]+",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.evaluation.voc_record"),
        declared=checked(PRECISION.digest),
        boxes=PRECISION.box_rule,
    shell:
        "facekiln --log {log} eval voc {input} --boxes {params.boxes} --output {output.record}"
        " --curves {output.curves}"
