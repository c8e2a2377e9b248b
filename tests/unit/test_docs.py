"""The pages and the help tell what there is: commands parse, files exist, the table of rules is theirs."""

import argparse
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from facekiln.cli import NOUNS, build_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
PACKAGE = ROOT / "workflow" / "facekiln"
# Lines that stand for several commands, and what a user's own board program prints.
ABBREVIATED = re.compile(r"\.\.\.|\||\[--|facekiln infer 1")


def _text(page: str) -> str:
    """A page with continued lines joined."""
    return re.sub(r"\\\n\s*", " ", (ROOT / page).read_text(encoding="utf-8"))


def _commands_of_pages() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for line in _text(page).splitlines():
            if (found := re.match(r"    (facekiln .*)", line)) and not ABBREVIATED.search(found[1]):
                yield page, found[1]


def _verbs(noun: str) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a noun's verbs by name; the noun's own where it has none."""
    top = next(
        action for action in build_parser(noun)._actions if isinstance(action, argparse._SubParsersAction)
    )
    parser = top.choices[noun]
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(inner[0].choices) if inner else {"": parser}


def _examples() -> Iterator[tuple[str, str]]:
    for noun in NOUNS:
        for verb, parser in _verbs(noun).items():
            for line in re.sub(r"\\\n\s*", " ", parser.epilog or "").splitlines():
                if found := re.match(r"\s+(facekiln .*)", line):
                    for command in found[1].split(" && "):
                        yield f"{noun} {verb} --help", command


def _refusal(command: str) -> str:
    """What argparse says against a command; empty where it takes it."""
    words = shlex.split(command, comments=True)[1:]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            build_parser(next((word for word in words if word in NOUNS), None)).parse_args(words)
    except SystemExit as ended:
        return said.getvalue() if ended.code else ""
    return ""


def test_commands_of_pages_and_examples_of_help_parse() -> None:
    commands = [*_commands_of_pages(), *_examples()]
    assert len(commands) > 150
    wrong = [f"{place}: {command}: {said}" for place, command in commands if (said := _refusal(command))]
    assert not wrong, "\n".join(wrong)


def test_a_command_with_an_unknown_option_is_noticed() -> None:
    assert "unrecognized" in _refusal("facekiln nnie inspect x.wk --nonsense")


@pytest.mark.parametrize("page", PAGES)
def test_commands_that_are_named_in_a_sentence_exist(page: str) -> None:
    for noun, verb in re.findall(r"`facekiln ([a-z]+)(?: ([a-z][a-z-]+)(?=[ `]))?", _text(page)):
        if noun == "infer":  # a line that a board's own program prints
            continue
        assert noun in NOUNS, f"{page}: facekiln {noun}"
        verbs = _verbs(noun)
        assert not verb or "" in verbs or verb in verbs, f"{page}: facekiln {noun} {verb}"


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    text = _text(page)
    named = set(
        re.findall(
            r"(?<![\w/.])((?:docs|workflow|tests|benchmarks|envs|profiles|\.ci)/[\w./-]*\w)(?![\w./-]*[{<*])",
            text,
        )
    )
    named |= set(re.findall(r"`(config/(?:chips|models|training)/\w+\.yaml|config/\w+\.yaml)`", text))
    missing = sorted(name for name in named if not (ROOT / name).exists())
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    missing += [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert not missing


def _rules() -> dict[tuple[str, str], str]:
    """The text of each rule, by its file and name."""
    found = {}
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        for name, body in re.findall(
            r"^rule (\w+):\n((?:    .*\n|\n)+)", path.read_text(encoding="utf-8"), re.M
        ):
            found[path.name, name] = body
    return found


def _rows() -> list[tuple[list[str], str, str, str, str]]:
    """The table of docs/workflow.md: paths, rule file, rule, command, module."""
    rows = []
    for line in _text("docs/workflow.md").splitlines():
        if found := re.match(
            r"\|(.*?)\|.*?`(\w+\.smk)`: `(\w+)`.*?\| `facekiln ([a-z -]+)` \| `([\w/]+\.py)` \|", line
        ):
            rows.append((re.findall(r"`([^`]+)`", found[1]), found[2], found[3], found[4], found[5]))
    return rows


def test_the_table_of_rules_is_that_of_the_rules() -> None:
    rules, rows = _rules(), _rows()
    for paths, file, rule, command, module in rows:
        body = rules[file, rule]
        assert re.search(rf"facekiln .*\b{command}\b", body), (rule, command)
        assert (PACKAGE / module).is_file(), module
        outputs = re.sub(r"\{(\w+),[^}]*?\}(?=[_.b/]|\")", r"{\1}", body.split("output:")[1].split("log:")[0])
        outputs = outputs.replace("{{", "{").replace("}}", "}")
        if paths:
            assert f"results/{paths[0]}" in outputs, (rule, paths)
        for ending in paths[1:]:
            assert ending in outputs, (rule, ending)
    elsewhere = {"make_sophon_environment", "refuse_unknown_target"}
    assert {rule for _, rule in rules} - {row[2] for row in rows} == elsewhere
    assert all(name in _text("docs/workflow.md") for name in elsewhere)
