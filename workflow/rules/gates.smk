# results/gates/: verdicts with reasons; summary.json lists all of them, passed.json exists only where none failed

from pathlib import Path

from facekiln.boards.rule_inputs import compared, throughput_gates
from facekiln.evaluation.gates_list import refresh_summary
from facekiln.evaluation.plan import EvaluationTargets

PLAN = EvaluationTargets(KILN)
ALL_GATES = lambda: [*PLAN.gates(), *throughput_gates(KILN)]


# What stops a run (a prediction refused, a parity that failed) leaves no summary that says what is no longer so.
onerror:
    refresh_summary(
        ALL_GATES,
        Path("results/gates/summary.json"),
        Path("results/gates/summary.html"),
    )


# Seconds, and an input of every prediction, which refuses where it says "failed". Like all gates it keeps going,
# so that the summary lists its failure.
rule check_golden:
    input:
        unpack(checked(lambda wc: PLAN.files_of(wc.artifact))),
    output:
        "results/gates/golden/{artifact}.json",
    log:
        "logs/gates/golden/{artifact}.log",
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.evaluation.gates_run"),
        declared=checked(lambda wc: PLAN.declared_of(wc.artifact)),
        limits=KILN.gates["golden"],
        mirror=MIRROR,
    shell:
        "facekiln --log {log} gate golden {input.artifact} {params.mirror} --keep-going --output {output}"


rule check_accuracy:
    input:
        child="results/eval/{evaluator}/{backend}/{artifact}/{dataset}.json",
        parent=checked(
            lambda wc: PLAN.float_evaluation_of(wc.evaluator, wc.artifact, wc.dataset)
        ),
    output:
        "results/gates/accuracy/{evaluator}/{backend}/{artifact}/{dataset}.json",
    log:
        "logs/gates/accuracy/{evaluator}/{backend}/{artifact}/{dataset}.log",
    wildcard_constraints:
        evaluator=r"\w+",
        backend=r"[\w-]+",
        dataset=r"[\w@]+",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.evaluation.gates"),
        limits=KILN.gates["accuracy"],
    shell:
        "facekiln --log {log} gate accuracy {input.child} {input.parent} --keep-going --output {output}"


rule check_batch:
    input:
        unpack(checked(lambda wc: PLAN.files_of(wc.artifact))),
    output:
        "results/gates/batch/{artifact}.json",
    log:
        "logs/gates/batch/{artifact}.log",
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint("facekiln.evaluation.gates_run"),
        declared=checked(lambda wc: PLAN.declared_of(wc.artifact)),
        limits=KILN.gates["batch"],
    shell:
        "facekiln --log {log} gate batch {input.artifact} --keep-going --output {output}"


rule check_board_decode:
    input:
        "results/{artifact}",
    output:
        "results/gates/board_decode/{artifact}.json",
    log:
        "logs/gates/board_decode/{artifact}.log",
    conda:
        ENVIRONMENT
    threads: 2
    params:
        code=fingerprint(
            "facekiln.evaluation.gates_board", "facekiln.chips.nnie.runtime"
        ),
        declared=checked(lambda wc: PLAN.declared_of(wc.artifact)),
        pictures=[KILN.parity["count"], KILN.parity["seed"]],
        limits=KILN.gates["pipelines"],
    shell:
        "facekiln --log {log} gate board-decode {input} --keep-going --output {output}"


rule check_pipelines:
    input:
        host="results/predictions/{host}/{artifact}/{dataset}",
        board="results/predictions/{backend}/{artifact}/{dataset}",
    output:
        "results/gates/pipelines/{host}/{backend}/{artifact}/{dataset}.json",
    log:
        "logs/gates/pipelines/{host}/{backend}/{artifact}/{dataset}.log",
    wildcard_constraints:
        host=r"[\w-]+",
        backend=r"[\w-]+",
        dataset=r"[\w@]+",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.evaluation.gates_run"),
        limits=KILN.gates["pipelines"],
    shell:
        "facekiln --log {log} gate pipelines {input.host} {input.board} --keep-going --output {output}"


# Every record that is stored in config/throughput/ (key `gates.throughput.stored`) is a gate.
rule check_throughput:
    input:
        unpack(checked(lambda wc: compared(wc.board, wc.artifact, KILN))),
    output:
        "results/gates/throughput/{board}/{artifact}.json",
    log:
        "logs/gates/throughput/{board}/{artifact}.log",
    wildcard_constraints:
        board=r"\w+",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.boards.regression"),
        limits=KILN.gates["throughput"],
    shell:
        "facekiln --log {log} gate throughput {input.new} {input.stored} --keep-going --output {output}"


rule summarise_gates:
    input:
        checked(lambda wc: ALL_GATES()),
    output:
        json="results/gates/summary.json",
        page=report(
            "results/gates/summary.html",
            caption="../report/gates.rst",
            category="Gates",
            labels={"what": "all verdicts"},
        ),
    log:
        "logs/gates/summary.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.evaluation.gates_list"),
    shell:
        "facekiln --log {log} gate list --only {input} --keep-going --output {output.json} --page {output.page}"


rule require_gates:
    input:
        "results/gates/summary.json",
    output:
        "results/gates/passed.json",
    log:
        "logs/gates/passed.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        code=fingerprint("facekiln.evaluation.gates_list"),
    shell:
        "facekiln --log {log} gate require {input} --output {output}"
