"""Which chips an artifact was made for, and whether a board has one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from facekiln.boards.faults import WrongArchitecture
from facekiln.boards.settings import Board
from facekiln.config import DEFAULT_FOLDER, check, read_yaml
from facekiln.provenance import read_record

_NNIE_FILE, _NNIE_SCHEMA = Path("chips") / "nnie.yaml", "chip_nnie"


def chip_of(artifact: Path | str) -> str | None:
    """Return the chip that an artifact is for by its path, `sophon/{chip}/...`, or None for any."""
    found = re.search(r"(?:^|/)sophon/([a-z0-9]+)/[^/]+\.bmodel$", str(artifact))
    return found[1] if found else None


def chips_of(artifact: Path | str, folder: Path | str = DEFAULT_FOLDER) -> list[str]:
    """Return the chips that an artifact was made for; none where any will do, or nothing tells.

    Its provenance record tells (`chip` of SOPHON and NNIE files, `cards` of MagicMind's), else its path. A
    `.wk` suits every chip of the same NNIE version, by `nnie_versions` of config/chips/nnie.yaml. Files of
    processors (ONNX, ncnn, Tengine) are for none.

    Raises:
        KilnError: the record is none of ours, or the chip's settings break their schema.
    """
    record = read_record(artifact)
    settings = record.settings if record else {}
    if Path(artifact).suffix == ".wk" and settings.get("chip"):
        return _of_one_nnie(str(settings["chip"]), folder)
    if settings.get("chip"):
        return [str(settings["chip"])]
    if settings.get("cards"):
        return [str(card) for card in settings["cards"]]
    chip = chip_of(artifact)
    return [chip] if chip else []


def planned_chips(artifact: str, folder: Path | str = DEFAULT_FOLDER) -> list[str]:
    """Return the chips that an artifact below `results/` will be made for, before it is there.

    Raises:
        KilnError: the chip's settings break their schema.
    """
    if artifact.startswith("nnie/"):
        from facekiln.chips.nnie.settings import load_settings as nnie

        return _of_one_nnie(nnie(folder).chip, folder)
    if artifact.startswith("magicmind/"):
        from facekiln.chips.magicmind.settings import load_settings as magicmind

        return list(magicmind(folder).cards)
    chip = chip_of(artifact)
    return [chip] if chip else []


def _of_one_nnie(chip: str, folder: Path | str) -> list[str]:
    path = Path(folder) / _NNIE_FILE
    versions = check((read_yaml(path) or {}) if path.is_file() else {}, _NNIE_SCHEMA, path)["nnie_versions"]
    same = [name for name, version in versions.items() if version == versions.get(chip)]
    return sorted({chip, *same})


def _plain(chip: str) -> str:
    return chip.lower().replace("_", "-")


def suits(chips: Iterable[str], chip: str | None) -> bool:
    """Return whether a board's chip is one of those that an artifact is for (none: any).

    Names are compared without regard to case, `-` and `_`. A board may tell a family of NNIE chips or MLU
    cards, "hi3516", "mlu370"; SOPHON's names are no such families (bm1684, bm1684x). One without a chip takes
    any.
    """
    wanted = [_plain(name) for name in chips]
    if not wanted or chip is None:
        return True
    here = _plain(chip)
    return here in wanted or any(
        name.startswith(here) for name in wanted if name.startswith(("hi", "mlu")) and len(here) > len("mlu")
    )


def refuse_other_chip(board: Board, artifact: Path | str, folder: Path | str = DEFAULT_FOLDER) -> None:
    """Refuse a board of another chip than an artifact's, before anything is connected.

    Raises:
        WrongArchitecture: it is another one.
    """
    chips = chips_of(artifact, folder)
    if not suits(chips, board.chip):
        raise WrongArchitecture(
            f"the artifact is for {', '.join(chips)}, the board has {board.chip}",
            file=board.name,
            where=str(artifact),
            hint="build the artifact for this chip, or choose another board: `facekiln board list`",
        )
