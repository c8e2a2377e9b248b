"""The pictures that quantisation is calibrated on: chosen by rule, at the network's size, named, hashed."""

from __future__ import annotations

from pathlib import Path

from facekiln.artifact import atomic_folder, sha256_of, sha256_of_text, write_json, write_text
from facekiln.config import Model
from facekiln.data.pictures import pictures
from facekiln.progress import log, progress_bar
from facekiln.vision.image import write_image
from facekiln.vision.preprocess import fit

LIST = "list.txt"
FACTS = "calibration.json"


def make_calibration(
    folder: Path, model: Model, label: str, *, source: str, count: int, seed: int
) -> dict[str, object]:
    """Write `images/*.png` (uint8 BGR, [H, W, 3]), `list.txt` and `calibration.json` into a folder.

    The pictures are already at the network's size, because the filter with which vendor tools resize is not
    documented. The facts hold the sha256 of each picture and of the whole set.

    Args:
        folder: replaced whole on success, untouched on failure.
        model: whose input size is meant, and how a picture is brought to it.
        label: the size's label.
        source: "procedural" or a folder of pictures.
        count: how many pictures; all where the folder holds fewer (told in the log).
        seed: decides which.

    Returns:
        The facts, as written to `calibration.json`.

    Raises:
        KilnError: a picture cannot be read, the folder is empty, or the disk is full.
    """
    size, policy = model.size(label), model.input.resize
    listed: list[dict[str, str]] = []
    with (
        atomic_folder(folder) as part,
        progress_bar(count, f"calibration {model.name}_{label}", "picture") as bar,
    ):
        (part / "images").mkdir()
        for index, (name, image) in enumerate(pictures(source, count, seed, size)):
            relative = f"images/{index:04d}.png"
            fitted, _ = fit(image, size, policy)
            write_image(part / relative, fitted)
            listed.append({"path": relative, "from": name, "sha256": sha256_of(part / relative)})
            bar.update(1)
        if len(listed) < count:
            log.warning("calibration: %s holds %d pictures, %d were asked for", source, len(listed), count)
        facts: dict[str, object] = {
            "model": model.name,
            "size": list(size),
            "source": source,
            "seed": seed,
            "policy": policy,
            "count": len(listed),
            "pictures": listed,
            "set_sha256": sha256_of_text("".join(item["sha256"] for item in listed)),
        }
        write_text(part / LIST, "".join(f"{item['path']}\n" for item in listed))
        write_json(part / FACTS, facts)
    return facts
