# results/nnie/{model}_{size}.wk (8 bit) and {model}_{size}_int16.wk, and what the mapper is given


rule legalise_nnie:
    input:
        unpack(checked(TARGETS.caffe_for_nnie)),
    output:
        prototxt="results/nnie/{model}_{size}.prototxt",
        caffemodel="results/nnie/{model}_{size}.caffemodel",
        heads="results/nnie/{model}_{size}.heads.json",
    log:
        "logs/nnie/{model}_{size}.legalise.log",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.chips.nnie.legalise.file"),
        limits=deciding(
            KILN.chips["nnie"], "chip", "nnie_versions", "legalise", "restrictions"
        ),
    shell:
        "facekiln --log {log} nnie legalise {input.prototxt} {input.caffemodel} --heads {input.heads}"
        " --model {wildcards.model} --size {wildcards.size} --output-prefix results/nnie/{wildcards.model}_{wildcards.size}"


rule map_nnie:
    input:
        prototxt="results/nnie/{model}_{size}.prototxt",
        caffemodel="results/nnie/{model}_{size}.caffemodel",
        heads="results/nnie/{model}_{size}.heads.json",
        calibration="results/calibration/{model}_{size}/calibration.json",
    output:
        wk="results/nnie/{model}_{size}{precision}.wk",
        cfg="results/nnie/{model}_{size}{precision}.cfg",
    log:
        "logs/nnie/{model}_{size}{precision}.map.log",
    benchmark:
        "logs/benchmarks/nnie/{model}_{size}{precision}.map.tsv"
    wildcard_constraints:
        precision="|_int16",
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint(
            "facekiln.chips.nnie.mapper.map_file", "facekiln.chips.nnie.mapper.mapper"
        ),
        declared=declared("input"),
        settings=deciding(
            KILN.chips["nnie"],
            "chip",
            "nnie_versions",
            "mapper",
            "cfg",
            "restrictions",
            "emulator",
        ),
        bits=lambda wc: 16 if wc.precision else 8,
    shell:
        "facekiln --log {log} nnie map --prototxt {input.prototxt} --caffemodel {input.caffemodel}"
        " --heads {input.heads} --calibration $(dirname {input.calibration:q}) --model {wildcards.model}"
        " --size {wildcards.size} --precision {params.bits} --cfg {output.cfg} --output {output.wk}"
