# results/sophon/mlir/{model}_{size}_{batch}b/top.mlir, results/sophon/{chip}/{model}_{size}_{precision}_{batch}b.bmodel, .twin/

from facekiln.chips.sophon.targets import SophonTargets

SOPHON = or_stop(SophonTargets, KILN)
# Made before the rules that run its tools; what changes it changes their `tool`, its date is no reason to run again.
SOPHON_READY = ancient(or_stop(SOPHON.stamp))


rule transform_sophon:
    input:
        unpack(checked(SOPHON.for_transform)),
        environment=SOPHON_READY,
    output:
        top=r"results/sophon/mlir/{model}_{size}_{batch,\d+}b/top.mlir",
        weights="results/sophon/mlir/{model}_{size}_{batch}b/weights.npz",
        pictures="results/sophon/mlir/{model}_{size}_{batch}b/input.npz",
        reference="results/sophon/mlir/{model}_{size}_{batch}b/reference.npz",
    log:
        "logs/sophon/mlir/{model}_{size}_{batch}b.log",
    benchmark:
        "logs/benchmarks/sophon/mlir/{model}_{size}_{batch}b.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=2000,
    params:
        code=fingerprint("facekiln.chips.sophon.transform"),
        declared=declared("input", "outputs", "sizes"),
        tool=or_stop(SOPHON.identity),
    shell:
        "facekiln --log {log} sophon transform {input.onnx} --model {wildcards.model} --size {wildcards.size}"
        " --batch {wildcards.batch} --calibration $(dirname {input.calibration:q}) --output $(dirname {output.top:q})"


rule compile_sophon:
    input:
        unpack(checked(SOPHON.for_compile)),
        environment=SOPHON_READY,
    output:
        r"results/sophon/{chip,[a-z0-9]+}/{model}_{size}_{precision,[a-z]+\d+}_{batch,\d+}b{cores,|_\d+core}.bmodel",
    log:
        "logs/sophon/{chip}/{model}_{size}_{precision}_{batch}b{cores}.log",
    benchmark:
        "logs/benchmarks/sophon/{chip}/{model}_{size}_{precision}_{batch}b{cores}.tsv"
    conda:
        ENVIRONMENT
    threads: 2
    resources:
        mem_mb=1000,
    params:
        code=fingerprint("facekiln.chips.sophon.compile_file"),
        tool=or_stop(SOPHON.identity),
        tolerance=checked(SOPHON.tolerance),
        tables=checked(SOPHON.table_options),
        pictures=checked(SOPHON.gate_options),
        gate=checked(SOPHON.gate),
        code_of_gate=fingerprint("facekiln.chips.sophon.sight"),
    shell:
        "facekiln --log {log} sophon compile $(dirname {input.top:q}) {params.tables} {params.pictures}"
        " --output {output:q}"


rule twin_sophon:
    input:
        unpack(checked(SOPHON.for_twin)),
        environment=SOPHON_READY,
    output:
        final=r"results/sophon/{chip,[a-z0-9]+}/{model}_{size}_{precision,[a-z]+\d+}_{batch,\d+}b{cores,|_\d+core}.twin/final.mlir",
        weights=r"results/sophon/{chip,[a-z0-9]+}/{model}_{size}_{precision,[a-z]+\d+}_{batch,\d+}b{cores,|_\d+core}.twin/weights.npz",
    log:
        "logs/sophon/{chip}/{model}_{size}_{precision}_{batch}b{cores}.twin.log",
    conda:
        ENVIRONMENT
    resources:
        mem_mb=500,
    params:
        code=fingerprint("facekiln.chips.sophon.twin"),
        tool=or_stop(SOPHON.identity),
        tables=checked(SOPHON.table_options),
    shell:
        "facekiln --log {log} sophon twin {input.bmodel:q} $(dirname {input.top:q}) {params.tables}"
        " --output $(dirname {output.final:q})"
