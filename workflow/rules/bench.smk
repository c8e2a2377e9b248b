# results/bench/{board}/{artifact}.json: how long an artifact takes on a board, with the raw log beside it

from facekiln.boards.latency_plan import records_of
from facekiln.boards.rule_inputs import LOCAL, benched, measured_by


rule bench_artifact:
    input:
        unpack(checked(lambda wc: benched(wc.board, wc.artifact))),
    output:
        record="results/bench/{board}/{artifact}.json",
        raw="results/bench/{board}/{artifact}.log",
    log:
        "logs/bench/{board}/{artifact}.log",
    wildcard_constraints:
        board=r"\w+",
        artifact=r"(?:onnx|ncnn|tengine|sophon/\w+|magicmind|nnie)/[\w-]+(?:\.sim)?\.(?:onnx|param|tmfile|bmodel|mm|wk)",
    conda:
        ENVIRONMENT
    # This machine is measured with nothing else running; another board has its queue in its lease.
    threads: lambda wc: (workflow.cores or 1) if wc.board == LOCAL else 1
    resources:
        **one_job_per_board(),
    params:
        code=fingerprint("facekiln.boards.bench", "facekiln.boards.bench_board"),
        by=checked(lambda wc: measured_by(wc.board, wc.artifact)),
    # A noisy measurement is kept: its record says "noisy: rejected", and tables say so.
    shell:
        "facekiln --log {log} bench run {input.artifact} --board {wildcards.board} --wait 7200 --keep-noisy"
        " --output {output.record}"


rule make_latency_table:
    input:
        records=checked(lambda wc: records_of(KILN)),
        evaluations=[
            f"results/eval/{entry}.json" for entry in KILN.latency["evaluations"]
        ],
    output:
        csv="results/tables/latency.csv",
        md="results/tables/latency.md",
    log:
        "logs/tables/latency.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.boards.latency_table"),
        title=KILN.latency["title"],
        evaluations=lambda wc, input: (
            ["--evaluations", *input.evaluations] if input.evaluations else []
        ),
    shell:
        "facekiln --log {log} bench table {input.records} {params.evaluations:q} --title {params.title:q}"
        " --output results/tables/latency"
