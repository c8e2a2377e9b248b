"""The pictures that quantisation is calibrated on: chosen by rule, at the network's size, named, hashed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekiln.artifact import (
    atomic_folder,
    read_json,
    read_text,
    sha256_of,
    sha256_of_text,
    write_json,
    write_text,
)
from facekiln.config import DEFAULT_FOLDER, Model
from facekiln.data.calibration_exclude import Held, hold_out, overlap
from facekiln.data.calibration_pool import (
    Looked,
    Source,
    fit_sample,
    is_missing,
    look,
    open_source,
    samples_in_order,
)
from facekiln.data.calibration_strata import View, even_draw, stratum_of, tally, usable_factors
from facekiln.errors import KilnError
from facekiln.progress import log, progress_bar
from facekiln.vision.image import write_image

LIST = "list.txt"
FACTS = "calibration.json"
# Pictures looked at per picture wanted: enough that rare strata turn up, few enough for a large folder.
# Drawing costs more than reading, and drawn scenes vary by design.
_LOOK, _DRAW = 16, 2


@dataclass(frozen=True)
class Pool:
    """What a set is drawn from, looked at once.

    Attributes:
        source: where it is from.
        looked: the pictures that may be chosen, in a seeded order.
        strata: the stratum of each.
        factors: that the strata are made of.
        missing: listed pictures that are not here.
        excluded: why pictures were refused: "same" or "near" a picture of an evaluation set, or "repeat" of
            a picture that came before.
        held: the evaluation sets.
    """

    source: Source
    looked: list[Looked]
    strata: list[str]
    factors: list[str]
    missing: int
    excluded: dict[str, int]
    held: list[Held]

    def draw(self, count: int, seed: int) -> list[int]:
        """Return the indices of a draw (see `even_draw`)."""
        return even_draw(self.strata, count, seed)

    def record(self) -> dict[str, Any]:
        """Return what was looked at and refused, as JSON."""
        return {
            "looked_at": len(self.looked) + sum(self.excluded.values()),
            "missing": self.missing,
            "excluded": {**self.excluded, "against": [one.record() for one in self.held]},
        }


def gather(
    model: Model,
    label: str,
    *,
    source: str,
    count: int,
    seed: int,
    strata: Sequence[str] = (),
    exclude: Sequence[str] = (),
    config: Path | str = DEFAULT_FOLDER,
) -> Pool:
    """Look at the pictures that a set of `count` can be drawn from; see `make_calibration` for the arguments.

    Raises:
        KilnError: an unknown source, stratum or evaluation set, an unreadable picture, or nothing is left.
    """
    opened = open_source(source, config)
    factors = usable_factors(strata, opened.annotated)
    if len(factors) < len(strata):
        unknown = ", ".join(name for name in strata if name not in factors)
        log.info("calibration: %s has no annotation, so not drawn evenly over: %s", source, unknown)
    held = hold_out(exclude, config)
    view = View(model.size(label), model.input.resize, model.crop is not None)
    per_wanted = (_DRAW if strata or exclude else 1) if opened.samples is None else _LOOK
    most = count * per_wanted
    missing, excluded = 0, {"same": 0, "near": 0, "repeat": 0}
    looked: list[Looked] = []
    seen: set[str] = set()
    total = most if opened.samples is None else min(most, len(opened.samples))
    with progress_bar(total, f"looking at {opened.name}", "picture") as bar:
        for sample in samples_in_order(opened, seed, view.size, model.crop, most):
            if len(looked) >= most:
                break
            if is_missing(sample):
                missing += 1
                continue
            found = look(sample, model.crop)
            clash = overlap(found.sha256, found.near, held)
            if clash or found.sha256 in seen:
                excluded[clash.kind if clash else "repeat"] += 1
            else:
                seen.add(found.sha256)
                looked.append(found)
            bar.update(1)
    pool = Pool(
        opened, looked, [stratum_of(one, factors, view) for one in looked], factors, missing, excluded, held
    )
    _refuse_empty(pool)
    return pool


def _refuse_empty(pool: Pool) -> None:
    if pool.looked:
        return
    against = ", ".join(one.name for one in pool.held) or "nothing"
    raise KilnError(
        "no picture is left to calibrate on",
        file=pool.source.name,
        where="calibration.source",
        value=f"{pool.excluded['same'] + pool.excluded['near']} are of an evaluation set, "
        f"{pool.excluded['repeat']} repeat another, {pool.missing} are missing",
        limit=f"none of: {against}",
        hint="calibrate on pictures that you do not evaluate on, or correct `calibration.exclude`",
    )


def make_calibration(
    folder: Path,
    model: Model,
    label: str,
    *,
    source: str,
    count: int,
    seed: int,
    strata: Sequence[str] = (),
    exclude: Sequence[str] = (),
    config: Path | str = DEFAULT_FOLDER,
) -> dict[str, Any]:
    """Write `images/*.png` (uint8 BGR, [H, W, 3]), `list.txt` and `calibration.json` into a folder.

    The pictures are already at the network's size, because the filter with which vendor tools resize is not
    documented; those of a landmark model are the crops that it declares. The facts hold the sha256 of each
    picture and of the whole set, each one's stratum, and what was refused.

    Args:
        folder: replaced whole on success, untouched on failure.
        model: whose input size is meant, and how a picture is brought to it.
        label: the size's label.
        source: "procedural", `dataset:NAME` or a folder of pictures.
        count: how many pictures; fewer where the source has not so many (told in the log).
        seed: decides which.
        strata: factors that the draw is even over: "face_size", "pose", "light".
        exclude: evaluation sets (dataset names or folders); no picture that equals or resembles one of theirs
            is chosen.
        config: the folder that datasets.yaml is in.

    Returns:
        The facts, as written to `calibration.json`.

    Raises:
        KilnError: see `gather`; or the disk is full.
    """
    pool = gather(
        model, label, source=source, count=count, seed=seed, strata=strata, exclude=exclude, config=config
    )
    chosen = pool.draw(count, seed)
    with atomic_folder(folder) as part:
        listed = write_pictures(part, pool, chosen, model, label)
        facts: dict[str, Any] = {
            "name": f"{pool.source.name}-{len(chosen)}-s{seed}",
            "model": model.name,
            "size": list(model.size(label)),
            "source": source,
            "seed": seed,
            "policy": "crop" if model.crop else model.input.resize,
            "asked": count,
            "count": len(listed),
            "strata": pool.factors,
            "bins": tally(pool.strata, chosen),
            **pool.record(),
            "pictures": listed,
            "set_sha256": set_digest(listed),
        }
        write_text(part / LIST, "".join(f"{item['path']}\n" for item in listed))
        write_json(part / FACTS, facts)
    if len(listed) < count:
        log.warning("calibration: %s gave %d pictures, %d were asked for", source, len(listed), count)
    return facts


def write_pictures(
    folder: Path, pool: Pool, chosen: Sequence[int], model: Model, label: str
) -> list[dict[str, Any]]:
    """Write chosen pictures as `images/NNNN.png` and return their entries for `calibration.json`.

    Raises:
        KilnError: a picture cannot be read any more, or the disk is full.
    """
    listed = []
    (folder / "images").mkdir()
    with progress_bar(len(chosen), f"calibration {model.name}_{label}", "picture") as bar:
        for number, index in enumerate(chosen):
            looked, relative = pool.looked[index], f"images/{number:04d}.png"
            sample = looked.sample
            fitted = fit_sample(sample, sample.load(), model.size(label), model.input.resize, model.crop)
            write_image(folder / relative, fitted)
            listed.append(
                {
                    "path": relative,
                    "from": sample.source,
                    "sha256": sha256_of(folder / relative),
                    "source_sha256": looked.sha256,
                    "near": None if looked.near is None else f"{looked.near:016x}",
                    "stratum": pool.strata[index],
                }
            )
            bar.update(1)
    return listed


def set_digest(pictures: Sequence[dict[str, Any]]) -> str:
    """Return the sha256 of a set: of its pictures' sha256, in order."""
    return sha256_of_text("".join(item["sha256"] for item in pictures))


def read_calibration(folder: Path, needs: Iterable[str] = ()) -> dict[str, Any]:
    """Read a set's facts; `needs` are keys that the caller will ask for, beside `pictures` and `set_sha256`.

    Raises:
        KilnError: missing, not JSON, no facts of a calibration set, or a key is missing.
    """
    facts = read_json(folder / FACTS)
    if (
        not isinstance(facts, dict)
        or not isinstance(facts.get("pictures"), list)
        or not isinstance(facts.get("set_sha256"), str)
    ):
        raise KilnError("is no record of a calibration set", file=folder / FACTS, hint="make the set again")
    for number, item in enumerate(facts["pictures"]):
        if not isinstance(item, dict) or not isinstance(item.get("path"), str):
            where = f"pictures.{number}"
            raise KilnError("names no picture", file=folder / FACTS, where=where, hint="make the set again")
    missing = [key for key in needs if key not in facts]
    if missing:
        raise KilnError(
            "is no whole record of a calibration set",
            file=folder / FACTS,
            value=f"no {', '.join(missing)}",
            hint="make the set again: facekiln calibration make --help",
        )
    return facts


def check_calibration(
    folder: Path, exclude: Sequence[str] | None = None, config: Path | str = DEFAULT_FOLDER
) -> list[str]:
    """Verify a set: its hashes, its list, and that it touches no evaluation set.

    Args:
        folder: of the set.
        exclude: evaluation sets; those that the set was made against where None.
        config: the folder that datasets.yaml is in.

    Returns:
        What is wrong, a sentence each; empty where nothing is.

    Raises:
        KilnError: there is no set, or an evaluation set is not here.
    """
    facts = read_calibration(folder)
    pictures = facts["pictures"]
    faults = []
    for item in pictures:
        path = folder / item["path"]
        if not path.is_file():
            faults.append(f"{item['path']} is missing")
        elif sha256_of(path) != item.get("sha256"):
            faults.append(f"{item['path']} has other bytes than when it was chosen")
    if set_digest(pictures) != facts["set_sha256"]:
        faults.append("set_sha256 is not that of the listed pictures")
    listed = read_text(folder / LIST).split("\n") if (folder / LIST).is_file() else []
    if [line for line in listed if line] != [item["path"] for item in pictures]:
        faults.append(f"{LIST} does not list the pictures of {FACTS}, in order")
    against = facts.get("excluded", {}).get("against", [])
    names = [one["set"] for one in against] if exclude is None else list(exclude)
    held = hold_out(names, config)
    for item in pictures:
        near = item.get("near")
        clash = overlap(item.get("source_sha256", ""), int(near, 16) if near else None, held)
        if clash:
            what = "is the same file as" if clash.kind == "same" else "resembles"
            faults.append(f"{item['path']} ({item.get('from')}) {what} {clash.picture} of {clash.set}")
    return faults
