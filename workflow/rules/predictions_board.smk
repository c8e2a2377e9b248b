# results/predictions/board-{board}/{artifact}/{dataset}[@{inference}]/: run on a board, prepared and decoded here

from facekiln.predictions.board_names import BOARD_CODE, BoardTargets

ON_BOARD = BoardTargets(KILN)


rule predict_on_board:
    input:
        unpack(checked(ON_BOARD.files)),
    output:
        predictions=directory("results/predictions/board-{board}/{artifact}/{dataset}"),
        raw="results/predictions/board-{board}/{artifact}/{dataset}.log",
    log:
        "logs/predictions/board-{board}/{artifact}/{dataset}.log",
    wildcard_constraints:
        board=r"\w+",
        dataset=r"[\w@]+",
    conda:
        ENVIRONMENT
    resources:
        **one_job_per_board(),
    params:
        code=fingerprint(*BOARD_CODE),
        settings=checked(ON_BOARD.digest),
    # A run that was ended goes on behind the last shard that came home.
    shell:
        "facekiln --log {log} predict board --stage {input.artifact:q} --board {wildcards.board} --wait 7200"
        " --dataset {wildcards.dataset} --output {output.predictions:q}"
