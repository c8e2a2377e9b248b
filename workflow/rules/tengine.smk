# results/tengine/{model}_{size}.tmfile (fp32), _uint8.tmfile and _int8.tmfile, and the scales of the quantised ones


rule convert_tengine:
    input:
        checked(TARGETS.onnx_for_tengine),
    output:
        "results/tengine/{model}_{size}.tmfile",
    log:
        "logs/tengine/{model}_{size}.convert.log",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.chips.tengine.build_file"),
        declared=declared("input", "outputs"),
        settings=deciding(
            KILN.chips["tengine"], "generation", "consumer", "consumers", "tools"
        ),
    shell:
        "facekiln --log {log} tengine convert {input} --model {wildcards.model} --size {wildcards.size}"
        " --output {output}"


rule quantise_tengine:
    input:
        tmfile="results/tengine/{model}_{size}.tmfile",
        calibration="results/calibration/{model}_{size}/calibration.json",
        images="results/calibration/{model}_{size}/images",
    output:
        tmfile="results/tengine/{model}_{size}_{precision}.tmfile",
        scales="results/tengine/{model}_{size}_{precision}.scale",
    log:
        "logs/tengine/{model}_{size}_{precision}.log",
    benchmark:
        "logs/benchmarks/tengine/{model}_{size}_{precision}.tsv"
    wildcard_constraints:
        precision="uint8|int8",
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint("facekiln.chips.tengine.quantise_file"),
        declared=declared("input", "decode", "priors"),
        settings=deciding(
            KILN.chips["tengine"], "generation", "quantise", "gate", "tools"
        ),
    shell:
        "facekiln --log {log} tengine quantise {input.tmfile} --precision {wildcards.precision}"
        " --model {wildcards.model} --size {wildcards.size} --calibration $(dirname {input.calibration:q})"
        " --output {output.tmfile} --scales-output {output.scales}"
