# results/calibration/{model}_{size}/ranges.json, and what SIMULATED int8 says: results/quant/{model}_{size}/


rule measure_ranges:
    input:
        onnx="results/onnx/{model}_{size}.sim.onnx",
        calibration="results/calibration/{model}_{size}/calibration.json",
    output:
        "results/calibration/{model}_{size}/ranges.json",
    log:
        "logs/quant/{model}_{size}.ranges.log",
    benchmark:
        "logs/benchmarks/quant/{model}_{size}.ranges.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint("facekiln.quant.ranges"),
        declared=declared("input"),
        percentile=KILN.calibration["percentile"],
    shell:
        "facekiln --log {log} quant ranges {input.onnx} --calibration $(dirname {input.calibration:q})"
        " --model {wildcards.model} --size {wildcards.size} --percentile {params.percentile} --output {output}"


rule compare_range_methods:
    input:
        onnx="results/onnx/{model}_{size}.sim.onnx",
        ranges="results/calibration/{model}_{size}/ranges.json",
    output:
        "results/quant/{model}_{size}/methods.json",
    log:
        "logs/quant/{model}_{size}.methods.log",
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint("facekiln.quant.estimate", "facekiln.parity.pictures"),
        declared=declared("input", "outputs", "priors", "decode", "crop"),
        pictures=KILN.parity,
    shell:
        "facekiln --log {log} quant methods {input.onnx} --ranges {input.ranges} --model {wildcards.model}"
        " --size {wildcards.size} --images {params.pictures[images]:q} --seed {params.pictures[seed]} --output {output}"


rule measure_sensitivity:
    input:
        onnx="results/onnx/{model}_{size}.sim.onnx",
        ranges="results/calibration/{model}_{size}/ranges.json",
    output:
        facts="results/quant/{model}_{size}/sensitivity.json",
        table="results/quant/{model}_{size}/sensitivity.csv",
        bars=report(
            "results/quant/{model}_{size}/sensitivity.png",
            category="Quantisation",
            subcategory="{model}_{size}",
            caption="../report/sensitivity.rst",
        ),
    log:
        "logs/quant/{model}_{size}.sensitivity.log",
    benchmark:
        "logs/benchmarks/quant/{model}_{size}.sensitivity.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint(
            "facekiln.quant.sensitivity",
            "facekiln.quant.sensitivity_report",
            "facekiln.parity.pictures",
        ),
        declared=declared("input", "outputs", "priors", "decode", "crop"),
        pictures=KILN.parity,
    shell:
        "facekiln --log {log} quant sensitivity {input.onnx} --ranges {input.ranges} --model {wildcards.model}"
        " --size {wildcards.size} --images {params.pictures[images]:q} --seed {params.pictures[seed]}"
        " --output {output.facts}"
