# results/calibration/{model}_{size}/: pictures at the network's size, their list, what they are, a contact sheet

from facekiln.data.calibration_rule import (
    choice_options,
    sets_digest,
    with_evaluation_sets,
)

CHOSEN = or_stop(with_evaluation_sets, KILN.calibration, KILN.tables)
CHOICE = choice_options(CHOSEN)
SETS = or_stop(sets_digest, CHOSEN)


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
        declared=declared("sizes", "input", "crop"),
        sets=SETS,
        choice=CHOICE,
    shell:
        "facekiln --log {log} calibration make --model {wildcards.model} --size {wildcards.size} {params.choice}"
        " --output results/calibration/{wildcards.model}_{wildcards.size}"


rule draw_calibration_sheet:
    input:
        facts="results/calibration/{model}_{size}/calibration.json",
        images="results/calibration/{model}_{size}/images",
    output:
        report(
            "results/calibration/{model}_{size}.sheet.png",
            category="Calibration",
            subcategory="{model}_{size}",
            caption="../report/calibration_sheet.rst",
        ),
    log:
        "logs/calibration/{model}_{size}.sheet.log",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.data.calibration_sheet"),
    shell:
        "facekiln --log {log} calibration sheet $(dirname {input.facts:q}) --output {output}"


rule measure_stability:
    input:
        "results/onnx/{model}_{size}.sim.onnx",
    output:
        facts="results/quant/{model}_{size}/stability.json",
        curve=report(
            "results/quant/{model}_{size}/stability.png",
            category="Calibration",
            subcategory="{model}_{size}",
            caption="../report/calibration_stability.rst",
        ),
    log:
        "logs/quant/{model}_{size}.stability.log",
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint("facekiln.quant.stability"),
        declared=declared("sizes", "input", "crop"),
        sets=SETS,
        choice=CHOICE,
        percentile=KILN.calibration["percentile"],
    shell:
        "facekiln --log {log} calibration stability {input} --model {wildcards.model} --size {wildcards.size}"
        " {params.choice} --output {output.facts}"
