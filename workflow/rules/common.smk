# The loaded config, and short helpers that give rules their inputs; their logic is facekiln.targets.

from facekiln.config import load_config
from facekiln.errors import KilnError
from facekiln.fingerprint import fingerprint
from facekiln.targets import Targets
from snakemake.exceptions import WorkflowError


wildcard_constraints:
    model=r"\w+",
    size=r"\d+",


def or_stop(function, *arguments):
    """Call a function; its KilnError becomes Snakemake's own one-line error."""
    try:
        return function(*arguments)
    except KilnError as error:
        raise WorkflowError(str(error)) from None


KILN = or_stop(load_config, "config", config)
TARGETS = Targets(KILN)


def checkpoint_of(wildcards):
    return or_stop(TARGETS.checkpoint, wildcards.model, wildcards.get("size"))


def declared(*fields):
    """A rerun trigger: the parts of the model's declaration that a rule depends on."""
    return lambda wildcards: or_stop(KILN.model, wildcards.model).digest(*fields)
