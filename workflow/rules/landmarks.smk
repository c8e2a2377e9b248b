# results/eval/nme/{backend}/{artifact}/{dataset}.json and .curves.npz: landmark error


rule evaluate_landmarks:
    input:
        "results/predictions/{backend}/{artifact}/{dataset}",
    output:
        record="results/eval/nme/{backend}/{artifact}/{dataset}.json",
        curves="results/eval/nme/{backend}/{artifact}/{dataset}.curves.npz",
    log:
        "logs/eval/nme/{backend}/{artifact}/{dataset}.log",
    wildcard_constraints:
        backend=r"[\w-]+",
        dataset=r"[\w@]+",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.evaluation.landmarks_record"),
        settings=KILN.landmarks,
    shell:
        "facekiln --log {log} eval landmarks {input} --normaliser {params.settings[normaliser]}"
        " --failure-limit {params.settings[failure_limit]} --output {output.record} --curves {output.curves}"
