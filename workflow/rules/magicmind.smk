# results/magicmind/{model}_{size}_{precision}_{batch}b.mm: fixed batches (4b) and mutable ones (1-8b)

from facekiln.chips.magicmind.targets import MagicmindTargets, options_of

MAGICMIND = MagicmindTargets(KILN)


rule build_magicmind:
    input:
        unpack(checked(MAGICMIND.files)),
    output:
        "results/magicmind/{model}_{size}_{precision}_{batch}b.mm",
    log:
        "logs/magicmind/{model}_{size}_{precision}_{batch}b.log",
    benchmark:
        "logs/benchmarks/magicmind/{model}_{size}_{precision}_{batch}b.tsv"
    wildcard_constraints:
        precision="(force|qint8)_[a-z0-9_]+",
        batch=r"\d+(-\d+)?",
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint("facekiln.chips.magicmind.build_file"),
        declared=declared("input", "outputs", "decode", "priors"),
        settings=deciding(
            KILN.chips["magicmind"],
            "source",
            "cards",
            "sdk",
            "build",
            "calibration",
            "precisions",
            "keep_float",
            "keep_sensitive",
            "emulator",
            "gate",
        ),
        options=lambda wildcards, input: options_of(input),
    shell:
        "facekiln --log {log} magicmind build {input.onnx} {params.options:q}"
        " --model {wildcards.model} --size {wildcards.size}"
        " --precision {wildcards.precision} --batch {wildcards.batch} --output {output}"
