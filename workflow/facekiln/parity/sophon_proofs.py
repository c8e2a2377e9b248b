"""What a parity report says of a `.bmodel` besides its parent: its twin, and a batch beside single pictures.

Average precision over a dataset is the twin's; so each report proves on its own pictures that the twin gives
what the chip's C model gives. And a file for four pictures has to give what the file for one gives, in every
place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from facekiln.chips.sophon.artifacts import artifact_of
from facekiln.chips.sophon.settings import settings_from
from facekiln.config import Config, Model
from facekiln.errors import KilnError
from facekiln.parity.agreement import agreement_of_outputs
from facekiln.parity.executors import Arrays, Picture
from facekiln.parity.gates import Gate
from facekiln.parity.measure import Measure, measure, worst
from facekiln.parity.sophon_stage import SophonStage
from facekiln.progress import log, progress_bar
from facekiln.provenance import Record, read_record
from facekiln.verdict import at_least, at_most


def single_of(path: Path, config: Config) -> Path | None:
    """Return the file for one picture beside one for several; None for one that is for one picture."""
    artifact = artifact_of(path, config, settings_from(config.chips["sophon"]))
    if artifact.batch == 1:
        return None
    return path.with_name(f"{replace(artifact, batch=1).stem}.bmodel")


def add_proofs(
    report: dict[str, Any],
    path: Path,
    model: Model,
    label: str,
    config: Config,
    pictures: Sequence[Picture],
    found: Mapping[str, Sequence[Arrays]],
) -> None:
    """Add the sections `tool`, `twin` and `batch` to a report, with their gates.

    Args:
        report: of `facekiln.parity.compare.compare`; gates are added to it.
        path: the .bmodel.
        model: that it is of.
        label: the size's label.
        config: `run` of the chip's settings has the limits.
        pictures: that were run, uint8 BGR at the network's size.
        found: by the stage's name the outputs of every picture.

    Raises:
        KilnError: the file for one picture, which a batch is compared with, is missing.
    """
    record = read_record(path)
    report["tool"] = {
        "versions": record.tools if record else {},
        # What the compiler's own comparisons said.
        **({name: record.facts[name] for name in _TOLD if name in record.facts} if record else {}),
    }
    settings = settings_from(config.chips["sophon"])
    precision, limits = artifact_of(path, config, settings).precision, settings.run
    if record and is_mixed(record):
        precision = "mixed"
    simulated = found["sophon-cmodel"]
    if "sophon-twin" in found:
        figures = differences(simulated, found["sophon-twin"])
        report["twin"] = _section(figures, simulated, found["sophon-twin"], model, label)
        what = "twin against the C model"
        report["gates"] += _gates(what, figures, limits.twin[precision])
        report["gates"] += _gates_of_faces(what, report["twin"])
    else:
        log.warning("%s: its twin is not made, so nothing is proved of it", path)
    single = single_of(path, config)
    if single is not None:
        if not single.is_file():
            raise KilnError(
                "does not exist, so the batch cannot be compared with single pictures",
                file=single,
                hint=f"make it: snakemake --cores 4 {single}",
            )
        _add_batch(report, path, single, model, label, config, pictures, limits.batch[precision])


def is_mixed(record: Record) -> bool:
    """Return whether a .bmodel was compiled with a qtable, by its record: int8 with operators in float."""
    return any(str(one).startswith("--quantize_table") for one in record.settings.get("arguments", ()))


_TOLD = ("quantised_against_float", "simulated_against_quantised")


def differences(first: Sequence[Arrays], second: Sequence[Arrays]) -> dict[str, Measure]:
    """Return per output the worst difference of two runs over the same pictures."""
    return {
        name: worst([measure(a[name], b[name]) for a, b in zip(first, second, strict=True)])
        for name in first[0]
    }


def _section(
    figures: Mapping[str, Measure],
    first: Sequence[Arrays],
    second: Sequence[Arrays],
    model: Model,
    label: str,
) -> dict[str, Any]:
    section: dict[str, Any] = {
        "pictures": len(first),
        "outputs": {name: value.as_dict() for name, value in figures.items()},
        "identical": sorted(name for name, value in figures.items() if value.max_abs == 0.0),
    }
    if model.priors:
        section["faces"] = agreement_of_outputs(first, second, model, model.size(label)).as_dict()
    return section


def _gates(what: str, figures: Mapping[str, Measure], limit: float) -> list[dict[str, Any]]:
    return [
        asdict(Gate(f"{what}: {name}", value.max_rel, limit, at_most(value.max_rel, limit)))
        for name, value in figures.items()
    ]


def _gates_of_faces(what: str, section: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Two ways to run one file must find the same faces, however far apart single figures may be."""
    faces = section.get("faces")
    if not faces:
        return []
    gates = [
        Gate(f"{what}: faces found", faces["found"], 1.0, at_least(faces["found"], 1.0)),
        Gate(f"{what}: faces invented", faces["invented"], 0.0, at_most(faces["invented"], 0.0)),
    ]
    return [asdict(gate) for gate in gates]


def _add_batch(
    report: dict[str, Any],
    path: Path,
    single: Path,
    model: Model,
    label: str,
    config: Config,
    pictures: Sequence[Picture],
    limit: float,
) -> None:
    """Run one full batch, each place with a picture, and each of its pictures in the file for one."""
    several = SophonStage(path, model, config, twin=False)
    chosen = [pictures[place % len(pictures)] for place in range(several.batch)]
    with progress_bar(several.batch + 1, f"batch {path.name}", "run") as bar:
        together = several.run_batch(chosen)
        several.close()
        bar.update(1)
        one = SophonStage(single, model, config, twin=False)
        apart: dict[int, Arrays] = {}
        for place in range(len(chosen)):
            if place < len(pictures):
                apart[place] = one.run(chosen[place])
            bar.update(1)
        one.close()
    singles = [apart[place % len(pictures)] for place in range(len(chosen))]
    figures = differences(singles, together)
    report["batch"] = {"of": several.batch, "single": str(single)}
    report["batch"] |= _section(figures, singles, together, model, label)
    what = f"batch of {several.batch} against single pictures"
    report["gates"] += _gates(what, figures, limit)
    report["gates"] += _gates_of_faces(what, report["batch"])
