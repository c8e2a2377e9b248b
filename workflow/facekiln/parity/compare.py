"""Run an artifact beside its parent on the same pictures, measure, judge, and say where they part."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from facekiln.artifact import sha256_of
from facekiln.config import Config, Model
from facekiln.parity.agreement import agreement_of_outputs
from facekiln.parity.divergence import first_divergence
from facekiln.parity.executors import Arrays, Picture, Stage, open_stage, run_each
from facekiln.parity.gates import Gate, judge_differences, judge_faces, judge_outputs, stops
from facekiln.parity.measure import Measure, measure, worst
from facekiln.parity.pictures import choose_pictures
from facekiln.parity.sight import cosine_of_differences
from facekiln.progress import log, progress_bar


def _limits(precision: str, reader: str, gates: Mapping[str, Any]) -> dict[str, Any]:
    return dict(gates["second_reader" if reader.endswith("mnn") else precision])


def _readers(child: Path) -> list[str]:
    """OpenCV always; MNN too, where it is installed, since it shares no code with OpenCV.

    A tmfile is simulated always, and run in the real library too, where `TENGINE_LIB` names one; a bmodel
    runs in the C model always, and as its twin where that is made.
    """
    if child.suffix == ".tmfile":
        return ["simulation", *(["runtime"] if os.environ.get("TENGINE_LIB") else [])]
    if child.suffix == ".bmodel":
        return ["cmodel", *(["twin"] if child.with_suffix(".twin").is_dir() else [])]
    if child.suffix != ".caffemodel":
        return ["opencv"]
    return ["opencv", "mnn"] if importlib.util.find_spec("MNN") else ["opencv"]


def compare(
    parent_path: Path,
    child_path: Path,
    model: Model,
    label: str,
    config: Config,
    *,
    source: str,
    count: int,
    seed: int,
) -> dict[str, Any]:
    """Compare an artifact with the one that it was made from.

    Args:
        parent_path: the reference artifact.
        child_path: the artifact in question.
        model: the model of both.
        label: the size's label.
        config: `config.parity["gates"]` are the limits.
        source: "procedural" or a folder of pictures.
        count: how many pictures.
        seed: decides which.

    Returns:
        The report, ready for JSON: both files with hashes, pictures, per reader and output the worst figures,
        agreement of faces (of landmark models: of what differs between pictures), gates with verdicts, the
        first divergence where a gate failed, `passed`.

    Raises:
        KilnError: an artifact cannot be run, or the two have different outputs.
    """
    gates_of = config.parity["gates"]
    parent = open_stage(parent_path, model, config)
    chosen = choose_pictures(source, count, seed, model.size(label), model.input.resize, model.crop)
    readers = _readers(child_path)
    report: dict[str, Any] = {
        "parent": {"path": str(parent_path), "sha256": sha256_of(parent_path), "runs_in": parent.name},
        "child": {"path": str(child_path), "sha256": sha256_of(child_path), "runs_in": []},
        "pictures": {"source": source, "seed": seed, "names": [name for name, _ in chosen]},
        "outputs": {},
        "faces": {},
        "differences": {},
        "gates": [],
        "diverges_at": {},
        "emulated": False,
    }
    images = [picture for _, picture in chosen]
    found: dict[str, list[Arrays]] = {}
    with progress_bar(len(chosen) * (1 + len(readers)), f"parity {child_path.name}", "run") as bar:

        def run(stage: Stage) -> list[Arrays]:
            outputs = []
            for one in run_each(stage, images):
                outputs.append(one)
                bar.update(1)
            return outputs

        references = run(parent)
        for reader in readers:
            child = open_stage(child_path, model, config, reader=reader)
            found[child.name] = run(child)
            _add_reader(report, parent, child, images, references, found[child.name], model, label, gates_of)
    if child_path.suffix == ".bmodel":
        from facekiln.parity.sophon_proofs import add_proofs

        add_proofs(report, child_path, model, label, config, images, found)
    report["passed"] = all(gate["verdict"] != "failed" for gate in report["gates"])
    return report


def _add_reader(
    report: dict[str, Any],
    parent: Stage,
    child: Stage,
    chosen: list[Picture],
    references: list[Arrays],
    outputs: list[Arrays],
    model: Model,
    label: str,
    gates_of: Mapping[str, Any],
) -> None:
    limits = _limits(child.precision, child.name, gates_of)
    figures = {
        name: worst([_measure(name, a, b) for a, b in zip(references, outputs, strict=True)])
        for name in model.outputs
    }
    report["child"]["runs_in"].append(child.name)
    if version := getattr(child, "version", None):
        report["child"].setdefault("versions", {})[child.name] = version
    report["emulated"] = report["emulated"] or child.emulated
    report["outputs"][child.name] = {name: value.as_dict() for name, value in figures.items()}
    gates: list[Gate] = judge_outputs(figures, limits, child.name)
    if model.priors:
        faces = agreement_of_outputs(references, outputs, model, model.size(label))
        report["faces"][child.name] = faces.as_dict()
        gates += judge_faces(faces, limits["faces"], child.name, alone=not stops(limits))
    else:
        answers = list(zip(references, outputs, strict=True))
        differences = (
            {name: cosine_of_differences([(a[name], b[name]) for a, b in answers]) for name in model.outputs}
            if len(answers) > 1
            else {}
        )
        report["differences"][child.name] = differences
        gates += judge_differences(differences, limits, child.name)
    report["gates"] += [asdict(gate) for gate in gates]
    if any(gate.verdict == "failed" for gate in gates):
        divergence = first_divergence(parent, child, chosen[0], limits)
        report["diverges_at"][child.name] = (
            str(divergence) if divergence else "no single tensor is outside the limits"
        )
        log.error("%s: %s", child.name, report["diverges_at"][child.name])


def _measure(name: str, a: Arrays, b: Arrays) -> Measure:
    from facekiln.errors import KilnError

    if name not in a or name not in b or a[name].shape != b[name].shape:
        raise KilnError(
            "the two stages have different outputs",
            where=name,
            value={key: list(value.shape) for key, value in b.items()},
            limit={key: list(value.shape) for key, value in a.items()},
            hint="rebuild both from the same checkpoint and size",
        )
    return measure(a[name], b[name])
