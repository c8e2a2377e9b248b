# results/torchscript/{model}_{size}.pt, results/onnx/{model}_{size}.onnx and .sim.onnx


rule trace_torchscript:
    input:
        checkpoint_of,
    output:
        "results/torchscript/{model}_{size}.pt",
    params:
        code=fingerprint("facekiln.graph.export", "facekiln.models.checkpoint"),
        declared=declared("network", "options", "sizes"),
    log:
        "logs/torchscript/{model}_{size}.log",
    shell:
        "facekiln --log {log} torchscript trace {input} --model {wildcards.model} --size {wildcards.size}"
        " --output {output}"


rule export_onnx:
    input:
        checkpoint_of,
    output:
        "results/onnx/{model}_{size}.onnx",
    params:
        code=fingerprint("facekiln.graph.export", "facekiln.models.checkpoint"),
        declared=declared("network", "options", "sizes", "input", "outputs"),
        opset=or_stop(KILN.opset),
    log:
        "logs/onnx/{model}_{size}.export.log",
    wildcard_constraints:
        size=r"\d+",
    shell:
        "facekiln --log {log} onnx export {input} --model {wildcards.model} --size {wildcards.size}"
        " --opset {params.opset} --output {output}"


rule simplify_onnx:
    input:
        "results/onnx/{model}_{size}.onnx",
    output:
        "results/onnx/{model}_{size}.sim.onnx",
    params:
        code=fingerprint("facekiln.graph.simplify"),
    log:
        "logs/onnx/{model}_{size}.simplify.log",
    shell:
        "facekiln --log {log} onnx simplify {input} --output {output}"
