"""What a rule's command imports by itself is in the rule's fingerprint: what is not makes stale artifacts."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from facekiln.cli import build_parser
from facekiln.fingerprint import _PLUMBING, _path_of, modules_behind
from facekiln.predictions.board_names import BOARD_CODE

# Modules that decide no byte of what the rule makes, with why.
NOT_DECIDING = {
    "facekiln.targets": "finds the model in a file's name",
    "facekiln.graph.export": "reads a whole ONNX file, and says what it cannot read",
    "facekiln.boards.ancestors": "ends a job whose Snakemake was killed",
    "facekiln.boards.bench": "reads a record; who wrote it runs again with it",
    "facekiln.caffe.census": "counts layers for the log",
    "facekiln.chips.ncnn.inspect": "counts layers for the log",
    "facekiln.vision.priors": "warns of centres that are beside those of the original",
}
# The rule's module says itself which code decides.
OWN_LIST = {"predict_on_board": "BOARD_CODE", "make_sophon_environment": "the lock"}


def _rules(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each rule's name, the words of its command up to the verb, and its fingerprints' modules."""
    for path in sorted((root / "workflow/rules").glob("*.smk")):
        for part in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            command = re.search(r"facekiln --log \{log\} (\w+) ([\w{.}-]+)", part)
            if command:
                verb = "samples" if command[2].startswith("{") else command[2]
                named = re.findall(r"fingerprint\(([^)]*)\)", part)
                yield part.partition(":")[0], [command[1], verb], re.findall(r'"([\w.]+)"', " ".join(named))


RULES = {name: (words, modules) for name, words, modules in _rules(Path(__file__).parents[2])}


def _handler(noun: str, verb: str) -> Callable[..., object]:
    parser: argparse.ArgumentParser = build_parser(noun)
    for word in (noun, verb):
        choices = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
        parser = choices[word]
    run = parser.get_default("run")
    assert callable(run)
    return run


def _imported(module: ModuleType, name: str, seen: set[tuple[str, str]]) -> set[str]:
    """Modules that a function of a command imports, with those of the commands' functions that it names."""
    if (module.__name__, name) in seen or not hasattr(module, name):
        return set()
    seen.add((module.__name__, name))
    function = getattr(module, name)
    home = inspect.getmodule(function)
    if home is None or not home.__name__.startswith("facekiln.commands"):
        return set()
    found: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(function).strip())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.startswith("facekiln.commands"):
                __import__(node.module)
                for one in node.names:
                    found |= _imported(sys.modules[node.module], one.name, seen)
                continue
            found.add(node.module)
            found |= {f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Name):
            found |= _imported(home, node.id, seen)
    return {one for one in found if one.startswith("facekiln.") and _path_of(one)}


@pytest.mark.parametrize("rule", sorted(RULES.keys() - OWN_LIST.keys()))
def test_a_rule_knows_the_code_that_its_command_runs(rule: str) -> None:
    (noun, verb), modules = RULES[rule]
    assert modules, "no fingerprint"
    run = _handler(noun, verb)
    home = inspect.getmodule(run)
    assert home is not None
    imported = _imported(home, run.__name__, set())
    assert imported, f"nothing is imported by {home.__name__}.{run.__name__}"
    assert imported - _PLUMBING - set(modules_behind(*modules)) <= NOT_DECIDING.keys()


def test_rules_are_found() -> None:
    assert len(RULES) > 45
    assert BOARD_CODE
