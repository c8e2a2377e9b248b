# results/sophon/calibration/{model}_{size}_{batch}b.table for every chip, {chip}/{model}_{size}_{batch}b.qtable for one


rule calibrate_sophon:
    input:
        unpack(checked(SOPHON.for_calibrate)),
        environment=SOPHON_READY,
    output:
        r"results/sophon/calibration/{model}_{size}_{batch,\d+}b.table",
    log:
        "logs/sophon/calibration/{model}_{size}_{batch}b.log",
    benchmark:
        "logs/benchmarks/sophon/calibration/{model}_{size}_{batch}b.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=2000,
    params:
        code=fingerprint("facekiln.chips.sophon.calibrate"),
        declared=declared("input"),
        settings=SOPHON.calibration(),
        tool=or_stop(SOPHON.identity),
        given=lambda wildcards, input: " ".join(
            f"--{name} {input[name]}"
            for name in ("ranges", "single")
            if name in input.keys()
        ),
    shell:
        "facekiln --log {log} sophon calibrate {input.top} --model {wildcards.model} --size {wildcards.size}"
        " --onnx {input.onnx} --calibration $(dirname {input.calibration:q}) {params.given} --output {output}"


rule plan_sophon:
    input:
        unpack(checked(SOPHON.for_plan)),
        environment=ancient(or_stop(SOPHON.plan_tools)),
    output:
        r"results/sophon/calibration/{chip,[a-z0-9]+}/{model}_{size}_{batch,\d+}b.qtable",
    log:
        "logs/sophon/calibration/{chip}/{model}_{size}_{batch}b.log",
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint("facekiln.chips.sophon.plan", "facekiln.quant.run"),
        settings=checked(SOPHON.plan),
        given=checked(SOPHON.plan_options),
    shell:
        "facekiln --log {log} sophon plan {input.top} --chip {wildcards.chip} --model {wildcards.model}"
        " --onnx {input.onnx} {params.given} --output {output}"
