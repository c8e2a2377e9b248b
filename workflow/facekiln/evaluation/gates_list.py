"""The list of all gates: read from their files, written as JSON and as a page, failed ones too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from facekiln.artifact import read_json, write_json, write_text
from facekiln.errors import GateError, KilnError
from facekiln.evaluation.gates import Verdict, failed_name
from facekiln.evaluation.page import page_html, rich, table_html
from facekiln.progress import log
from facekiln.verdict import FAILED, ORDER, STOPPING, UNPROVEN, WARNED, worst

KEYS = ("gate", "subject", "verdict", "value", "limit", "reason")
# Below gates/, what is made from verdicts and is none.
SUMMARY, PASSED = "summary.json", "passed.json"


def read_verdicts(folder: Path) -> list[Verdict]:
    """Read every gate below a results folder: `gates/` and parity's reports in `parity/`.

    Raises:
        KilnError: neither folder is there, neither holds a verdict, or a file is no verdict.
    """
    homes = [folder / name for name in ("gates", "parity") if (folder / name).is_dir()]
    if not homes:
        raise KilnError(
            "holds no gates/ and no parity/", file=folder, hint="run a gate, or name the results folder"
        )
    found: list[Verdict] = []
    for home in homes:
        for path in sorted(home.rglob("*.json")):
            made_from_verdicts = path in (folder / "gates" / SUMMARY, folder / "gates" / PASSED)
            if not path.name.endswith(".kiln.json") and not made_from_verdicts:
                found.append(read_verdict(path))
    if not found:
        raise KilnError(
            "holds no verdict: nothing was judged",
            file=folder,
            hint=f"judge something: snakemake --cores 4 {folder}/gates/{PASSED}, or facekiln gate --help",
        )
    return found


def read_verdict(path: Path) -> Verdict:
    """Read a verdict, or a parity report as one.

    Raises:
        KilnError: it is neither.
    """
    value = read_json(path)
    if isinstance(value, dict) and {"child", "parent", "gates", "passed"} <= set(value):
        try:
            return _from_parity(value)
        except (KeyError, TypeError, ValueError) as error:
            raise KilnError(f"is no whole parity report: {error!r}", file=path, hint="remove it") from error
    if not _is_verdict(value):
        raise KilnError("is no gate's verdict", file=path, limit=", ".join(KEYS), hint="remove it")
    known = {key: value[key] for key in (*KEYS, "emulated", "details") if key in value}
    return Verdict(**known)


def _is_verdict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(KEYS) <= set(value)
        and value["verdict"] in ORDER
        and all(isinstance(value[key], str) for key in ("gate", "subject", "reason"))
        and all(value[key] is None or isinstance(value[key], int | float) for key in ("value", "limit"))
    )


def _from_parity(report: Mapping[str, Any]) -> Verdict:
    gates = report["gates"]
    verdict = worst([gate["verdict"] for gate in gates])
    told = next((gate for gate in gates if gate["verdict"] == verdict), None)
    counted = ", ".join(
        f"{count} {name}"
        for name in reversed(ORDER)
        if (count := sum(gate["verdict"] == name for gate in gates))
    )
    reason = f"against {report['parent']['path']}: {counted or 'nothing was judged'}"
    if told and verdict != "passed":
        reason += f"; {told['name']} {told['value']:.6g}, limit {told['limit']:.6g}"
    return Verdict(
        gate="parity",
        subject=report["child"]["path"],
        verdict=verdict,
        value=told["value"] if told else None,
        limit=told["limit"] if told else None,
        reason=reason,
        emulated=bool(report.get("emulated")),
    )


def summary(verdicts: Iterable[Verdict], missing: Iterable[str] = ()) -> dict[str, Any]:
    """Return the list of all gates and how many of each verdict, ready for JSON.

    Args:
        verdicts: all of them.
        missing: files of verdicts that are wanted and not there; with one of them, nothing has passed.
    """
    absent = list(missing)
    listed = sorted(verdicts, key=lambda item: (-ORDER.index(item.verdict), item.gate, item.subject))
    return {
        "counts": {name: sum(item.verdict == name for item in listed) for name in ORDER},
        "passed": bool(listed) and not absent and not any(item.verdict in STOPPING for item in listed),
        "missing": absent,
        "gates": [asdict(item) for item in listed],
    }


def require_passed(whole: Mapping[str, Any], path: Path) -> None:
    """End with exit status 3 where a gate of a `summary` failed, is unproven or was never judged.

    Raises:
        GateError: names them all.
        KilnError: the file is no summary.
    """
    if (
        not isinstance(whole, dict)
        or not {"counts", "passed", "gates"} <= set(whole)
        or not isinstance(whole["counts"], dict)
        or not isinstance(whole["gates"], list)
        or not all(map(_is_verdict, whole["gates"]))
    ):
        raise KilnError("is no list of gates", file=path, hint="facekiln gate list --output writes one")
    stopped = not whole["gates"] or any(item["verdict"] in STOPPING for item in whole["gates"])
    if whole["passed"] is True and not stopped and not whole.get("missing"):
        return
    told = []
    for verdict, words in ((FAILED, "gates failed"), (UNPROVEN, "are unproven")):
        of_it = [f"{item['gate']} {item['subject']}" for item in whole["gates"] if item["verdict"] == verdict]
        told += [f"{len(of_it)} {words}: {', '.join(of_it)}"] if of_it else []
    if missing := whole.get("missing"):
        told.append(f"{len(missing)} were never judged: {', '.join(missing)}")
    raise GateError(
        "; ".join(told) or "no gate is listed, so none passed",
        file=path,
        hint=f"the reasons are in {path} and on the page beside it",
    )


def refresh_summary(wanted: Callable[[], list[str]], path: Path, page: Path) -> None:
    """Make the summary tell the truth after a run that something stopped before its rule.

    Snakemake leaves the summary of an earlier run in place then. It is written anew from the verdicts that
    are there, those that failed under `X.failed.json` too; where it cannot be, it is removed. Where there is
    no summary yet, one is written only if a gate failed.

    Args:
        wanted: gives the files of all verdicts.
        path: the summary.
        page: its page.
    """
    try:
        files = {Path(name): _there(Path(name)) for name in wanted()}
        verdicts = [read_verdict(found) for found in files.values() if found]
        whole = summary(verdicts, [str(name) for name, found in files.items() if found is None])
        if not path.exists() and not whole["counts"][FAILED]:
            return
        if not path.exists() or read_json(path) != whole:
            write_text(page, summary_html(whole))
            write_json(path, whole)
            log.info("%s was written anew from the verdicts that are there", path)
    except KilnError as error:
        log.warning("%s is removed, as the verdicts cannot be listed: %s", path, error)
        path.unlink(missing_ok=True)
        page.unlink(missing_ok=True)


def _there(path: Path) -> Path | None:
    return next((found for found in (path, failed_name(path)) if found.is_file()), None)


def counted(whole: Mapping[str, Any]) -> str:
    """Return how many gates have each verdict, in words, the worst first."""
    counts = {
        name: whole["counts"].get(name, 0) for name in reversed(ORDER)
    }  # a written list has them sorted
    told = [f"{count} {name}" for name, count in counts.items() if count or name != UNPROVEN]
    if whole.get("missing"):
        told.insert(1, f"{len(whole['missing'])} not judged")
    return ", ".join(told)


def summary_html(whole: Mapping[str, Any]) -> str:
    """Return a `summary` as a page, the worst first."""
    header = ["verdict", "gate", "subject", "value", "limit", "reason"]
    rows = []
    for item in whole["gates"]:
        loud = item["verdict"] in (WARNED, *STOPPING)
        verdict = f"**{item['verdict'].upper()}**" if loud else item["verdict"]
        mark = " **EMULATED**" if item["emulated"] else ""
        figures = ["" if item[key] is None else f"{item[key]:.6g}" for key in ("value", "limit")]
        rows.append([verdict, item["gate"], item["subject"] + mark, *figures, item["reason"]])
    rows += [["**NOT JUDGED**", "", name, "", "", "no verdict is there"] for name in whole.get("missing", [])]
    told = rich(counted(whole))
    return page_html("Gates", [f"<p>{told}</p>", table_html(header, rows, ("value", "limit"))])
