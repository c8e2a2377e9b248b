# results/ncnn/{model}_{size}.param and .bin (fp32), _fp16 and _int8, each with the ids of its blobs as a C header


rule convert_ncnn:
    input:
        checked(TARGETS.onnx_for_ncnn),
    output:
        param="results/ncnn/{model}_{size}.param",
        bin="results/ncnn/{model}_{size}.bin",
        ids="results/ncnn/{model}_{size}.id.h",
    log:
        "logs/ncnn/{model}_{size}.convert.log",
    benchmark:
        "logs/benchmarks/ncnn/{model}_{size}.convert.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint("facekiln.chips.ncnn.build_file"),
        declared=declared("input", "outputs", "sizes"),
    shell:
        "facekiln --log {log} ncnn convert {input} --model {wildcards.model} --size {wildcards.size}"
        " --output {output.param}"


rule halve_ncnn:
    input:
        param="results/ncnn/{model}_{size}.param",
        bin="results/ncnn/{model}_{size}.bin",
    output:
        param="results/ncnn/{model}_{size}_fp16.param",
        bin="results/ncnn/{model}_{size}_fp16.bin",
        ids="results/ncnn/{model}_{size}_fp16.id.h",
    log:
        "logs/ncnn/{model}_{size}.halve.log",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.chips.ncnn.build_file"),
    shell:
        "facekiln --log {log} ncnn halve {input.param} --output {output.param}"


rule quantise_ncnn:
    input:
        param="results/ncnn/{model}_{size}.param",
        bin="results/ncnn/{model}_{size}.bin",
        onnx="results/onnx/{model}_{size}.sim.onnx",
        calibration="results/calibration/{model}_{size}/calibration.json",
        ranges="results/calibration/{model}_{size}/ranges.json",
    output:
        param="results/ncnn/{model}_{size}_int8.param",
        bin="results/ncnn/{model}_{size}_int8.bin",
        ids="results/ncnn/{model}_{size}_int8.id.h",
        table="results/ncnn/{model}_{size}_int8.table",
    log:
        "logs/ncnn/{model}_{size}.quantise.log",
    benchmark:
        "logs/benchmarks/ncnn/{model}_{size}.quantise.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint("facekiln.chips.ncnn.quantise_file"),
        declared=declared("input", "decode", "priors"),
        settings=deciding(KILN.chips["ncnn"], "quantise", "gate"),
    shell:
        "facekiln --log {log} ncnn quantise {input.param} --onnx {input.onnx} --ranges {input.ranges}"
        " --calibration $(dirname {input.calibration:q}) --model {wildcards.model} --size {wildcards.size}"
        " --output {output.param}"
