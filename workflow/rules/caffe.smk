# results/caffe/{model}_{size}.prototxt, .caffemodel and .heads.json


rule convert_caffe:
    input:
        "results/onnx/{model}_{size}.sim.onnx",
    output:
        prototxt="results/caffe/{model}_{size}.prototxt",
        caffemodel="results/caffe/{model}_{size}.caffemodel",
        heads="results/caffe/{model}_{size}.heads.json",
    log:
        "logs/caffe/{model}_{size}.convert.log",
    benchmark:
        "logs/benchmarks/caffe/{model}_{size}.convert.tsv"
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.caffe.convert"),
        declared=declared("priors", "outputs"),
    shell:
        "facekiln --log {log} caffe convert {input} --model {wildcards.model} --size {wildcards.size}"
        " --prototxt {output.prototxt} --caffemodel {output.caffemodel} --heads {output.heads}"
