# results/calibration/{model}_{size}/: pictures at the network's size, their list, and what they are


rule make_calibration:
    output:
        images=directory("results/calibration/{model}_{size}/images"),
        names="results/calibration/{model}_{size}/list.txt",
        facts="results/calibration/{model}_{size}/calibration.json",
    log:
        "logs/calibration/{model}_{size}.log",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.data.calibration"),
        declared=declared("sizes", "input"),
        chosen=KILN.calibration,
    shell:
        "facekiln --log {log} calibration make --model {wildcards.model} --size {wildcards.size}"
        " --source {params.chosen[source]:q} --count {params.chosen[count]} --seed {params.chosen[seed]}"
        " --output results/calibration/{wildcards.model}_{wildcards.size}"
