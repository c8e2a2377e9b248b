# results/torchscript/{model}_{size}.pt, results/onnx/{model}_{size}.onnx and .sim.onnx


rule trace_torchscript:
    input:
        checked(TARGETS.checkpoint_of),
    output:
        "results/torchscript/{model}_{size}.pt",
    log:
        "logs/torchscript/{model}_{size}.log",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.graph.export", "facekiln.models.checkpoint"),
        declared=declared("network", "options", "sizes"),
    shell:
        "facekiln --log {log} torchscript trace {input} --model {wildcards.model} --size {wildcards.size}"
        " --output {output}"


rule export_onnx:
    input:
        checked(TARGETS.checkpoint_of),
    output:
        "results/onnx/{model}_{size}.onnx",
    log:
        "logs/onnx/{model}_{size}.export.log",
    wildcard_constraints:
        model=TARGETS.models_born_as("checkpoint"),
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.graph.export", "facekiln.models.checkpoint"),
        declared=declared("network", "options", "sizes", "input", "outputs"),
        opset=or_stop(KILN.opset),
    shell:
        "facekiln --log {log} onnx export {input} --model {wildcards.model} --size {wildcards.size}"
        " --opset {params.opset} --output {output}"


rule fetch_onnx:
    output:
        "results/onnx/{model}_{size}.onnx",
    log:
        "logs/onnx/{model}_{size}.fetch.log",
    wildcard_constraints:
        model=TARGETS.models_born_as("onnx"),
    retries: 2
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.models.born_onnx", "facekiln.models.fetch"),
        declared=declared("sizes", "input", "outputs", "published"),
        mirror=MIRROR,
    shell:
        "facekiln --log {log} onnx fetch --model {wildcards.model} {params.mirror} --output {output}"


rule simplify_onnx:
    input:
        "results/onnx/{model}_{size}.onnx",
    output:
        "results/onnx/{model}_{size}.sim.onnx",
    log:
        "logs/onnx/{model}_{size}.simplify.log",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.graph.simplify"),
    shell:
        "facekiln --log {log} onnx simplify {input} --output {output}"
