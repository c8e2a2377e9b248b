"""Legalise a Caffe pair on disk: both files, heads, and a record of every edit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from facekiln.artifact import read_json, write_bytes, write_json, write_text
from facekiln.caffe.net import Net
from facekiln.caffe.reader import read_net
from facekiln.caffe.writer import caffemodel_bytes
from facekiln.chips.nnie.legalise.legalise import Legalised, legal_text, legalise
from facekiln.chips.nnie.legalise.proof import prove
from facekiln.chips.nnie.settings import NnieSettings
from facekiln.config import Model
from facekiln.errors import KilnError
from facekiln.provenance import tool_versions, write_record
from facekiln.vision.heads import HeadMap, heads_from_json, heads_to_json


def read_heads(path: Path) -> list[HeadMap]:
    """Read a .heads.json file.

    Raises:
        KilnError: missing, or not of that form.
    """
    try:
        return heads_from_json(read_json(path))
    except KilnError as error:
        raise KilnError(str(error), file=None if str(path) in str(error) else path) from error


def check_size(net: Net, model: Model, label: str, file: Path) -> None:
    """Refuse a network whose input is not of the model's declared size.

    Raises:
        KilnError: names both sizes.
    """
    declared = list(model.size(label))
    for name, shape in net.inputs.items():
        if shape[2:] != declared:
            raise KilnError(
                f"the input is not of size {label} of model '{model.name}'",
                file=file,
                where=f"input '{name}'",
                value=f"{shape[2:]} (H, W)",
                limit=declared,
            )


def _facts(result: Legalised) -> dict[str, Any]:
    return {
        "layers": len(result.net.layers),
        "outputs": result.net.outputs,
        "original_names": result.original_names,
        "warnings": [finding.sentence() for finding in result.warnings],
    }


def legalise_files(
    prototxt: Path,
    caffemodel: Path,
    heads: Path | None,
    prefix: Path,
    settings: NnieSettings,
    *,
    model: Model | None = None,
    size: str | None = None,
) -> Legalised:
    """Write `{prefix}.prototxt`, `.caffemodel` and, where heads are given, `.heads.json`, with their records.

    Raises:
        KilnError: the pair is damaged or cannot be made legal; nothing is written then.
    """
    net = read_net(prototxt, caffemodel)
    if model and size:
        check_size(net, model, size, prototxt)
    result = legalise(net, settings, read_heads(heads) if heads else ())
    proof = prove(net, result)
    text, weights = legal_text(result.net, settings.legalise.input_header), caffemodel_bytes(result.net)
    outputs = [Path(f"{prefix}.prototxt"), Path(f"{prefix}.caffemodel")]
    write_bytes(outputs[1], weights)
    write_text(outputs[0], text)
    if heads:
        outputs.append(Path(f"{prefix}.heads.json"))
        write_json(outputs[2], heads_to_json(result.heads))
    inputs: Iterable[Path] = [path for path in (prototxt, caffemodel, heads) if path]
    told = vars(settings.legalise)
    chosen = {key: list(value) if isinstance(value, tuple) else value for key, value in told.items()}
    write_record(
        outputs,
        verb="nnie legalise",
        inputs=inputs,
        settings={"chip": settings.chip, **chosen, "restrictions": dict(settings.restrictions)},
        tools=tool_versions("numpy", "protobuf", "opencv-python-headless"),
        edits=result.edits,
        facts={**_facts(result), "parity": proof},
    )
    return result
