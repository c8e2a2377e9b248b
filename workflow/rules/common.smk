# The loaded config, and short helpers that give rules their inputs; their logic is facekiln.targets.

import shlex

from facekiln.boards.settings import load_boards
from facekiln.chips.deciding import deciding
from facekiln.config import load_config
from facekiln.errors import KilnError
from facekiln.fingerprint import fingerprint
from facekiln.targets import Targets, unclaimed
from snakemake.exceptions import WorkflowError


wildcard_constraints:
    model=r"\w+",
    size=r"\d+",


def or_stop(function, *arguments):
    """Call a function; its KilnError becomes Snakemake's own error, which has no Python traceback."""
    try:
        return function(*arguments)
    except KilnError as error:
        raise WorkflowError(str(error)) from None


def checked(function):
    """An input function from a function of facekiln.targets that takes the wildcards."""
    return lambda wildcards: or_stop(function, wildcards)


def declared(*fields):
    """A rerun trigger: the parts of the model's declaration that a rule depends on."""
    return lambda wildcards: or_stop(KILN.model, wildcards.model).digest(*fields)


def untracked(value):
    """A param that is no rerun trigger: Snakemake records none that is computed from the job's files."""
    return lambda wildcards, output: value


def one_job_per_board():
    """Resources for jobs with a wildcard {board}; this run then starts one at a time on each board.

    A resource without a limit is ignored, so the limits are set here. Other runs are held off by the lease.
    """
    boards = ["local", *or_stop(load_boards)]
    for board in boards:
        workflow.global_resources.setdefault(f"board_{board}", 1)
    return {
        f"board_{board}": lambda wildcards, board=board: int(wildcards.board == board)
        for board in boards
    }


KILN = or_stop(load_config, "config", config)
TARGETS = Targets(KILN)
# Where pinned files lie is no part of what they are: another place makes nothing again.
MIRROR = untracked(shlex.join(["--mirror", KILN.mirror]) if KILN.mirror else "")
# What `--sdm conda` makes; in an activated virtual environment it is not used.
ENVIRONMENT = workflow.source_path("../../envs/facekiln.yaml")
