"""An audit of a dataset: what is wrong with it, what is left out by rule, and what is left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from facekiln.data.declared import Declared, Rules
from facekiln.data.faults import Examined, Fault, examine
from facekiln.data.near import groups
from facekiln.data.pictures import picture_names
from facekiln.data.sample import Dataset
from facekiln.errors import KilnError
from facekiln.progress import progress_bar

# Faults of a whole picture; the others are of one box, or of a file that is no sample.
_OF_PICTURES = (
    "broken_annotation",
    "missing_image",
    "corrupt_image",
    "size_mismatch",
    "duplicate_file",
    "near_duplicate",
    "empty_annotation",
)


@dataclass
class Audit:
    """The outcome.

    Attributes:
        declared: what was audited.
        examined: every sample, in order.
        faults: all findings, in order.
        skipped: pictures left out, and the kind of fault that decided it.
    """

    declared: Declared
    examined: list[Examined]
    faults: list[Fault] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def kept(self) -> list[Examined]:
        """Return the samples that are left; their `dropped` faces are not."""
        return [item for item in self.examined if item.sample is not None and item.source not in self.skipped]

    def count(self, kind: str) -> int:
        """Return how many faults of a kind there are."""
        return sum(fault.kind == kind for fault in self.faults)

    def refused(self) -> list[Fault]:
        """Return the faults whose rule is `refuse`."""
        return [fault for fault in self.faults if getattr(self.declared.rules, fault.kind) == "refuse"]

    def record(self) -> dict[str, Any]:
        """Return the report as JSON: counts, every fault, and every decision (see `facekiln.data.clean`)."""
        samples = [item.sample for item in self.examined if item.sample is not None]
        left = self.kept()
        return {
            "dataset": self.declared.name,
            "kind": self.declared.kind,
            "declaration": self.declared.digest(),
            "usable": not self.refused(),
            "annotations": {item.path: item.sha256 for item in self.declared.annotations},
            "images": len(self.examined),
            "faces": sum(map(len, samples)),
            "ignored": sum(int(sample.ignore.sum()) for sample in samples),
            "kept": {
                "images": len(left),
                "faces": sum(len(item.sample or ()) - len(item.dropped) for item in left),
            },
            "faults": {
                kind: {
                    "rule": getattr(self.declared.rules, kind),
                    "count": self.count(kind),
                    "items": [
                        {"source": fault.source, "detail": fault.detail}
                        | ({} if fault.face is None else {"face": fault.face})
                        for fault in self.faults
                        if fault.kind == kind
                    ],
                }
                for kind in Rules.__dataclass_fields__
            },
            "skipped": self.skipped,
            "dropped": {item.source: list(item.dropped) for item in left if item.dropped},
            "clipped": {
                item.source: {str(face): list(box) for face, box in item.clipped.items()}
                for item in left
                if item.clipped
            },
            "sizes": {item.source: list(item.size) for item in left if item.size},
            "hashes": {item.source: item.sha256 for item in left if item.sha256},
        }


def audit(declared: Declared, dataset: Dataset, *, pictures: bool = True, jobs: int = 2) -> Audit:
    """Examine every sample of an opened dataset; nothing is refused here, see `Audit.refused`.

    Args:
        declared: its rules.
        dataset: the samples.
        pictures: read, hash and compare the pictures too; without, only annotations are examined.
        jobs: pictures read at once; the outcome does not depend on it.
    """
    result = Audit(declared, _examine_all(declared, dataset, pictures, jobs))
    for item in result.examined:
        result.faults += item.faults
    if pictures:
        result.faults += _duplicates(result.examined)
        result.faults += _unlisted(dataset, result.examined)
    for fault in result.faults:
        if fault.kind in _OF_PICTURES and getattr(declared.rules, fault.kind) in ("skip", "refuse"):
            result.skipped.setdefault(fault.source, fault.kind)
    return result


def _examine_all(declared: Declared, dataset: Dataset, pictures: bool, jobs: int) -> list[Examined]:
    examined = []
    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # several pictures are read at once instead
    with (
        ThreadPoolExecutor(jobs) as threads,
        progress_bar(len(dataset), f"audit {declared.name}", "picture") as bar,
    ):
        try:
            for item in threads.map(
                lambda index: examine(dataset, index, declared.rules, pictures), range(len(dataset))
            ):
                examined.append(item)
                bar.update(1)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            cv2.setNumThreads(threads_before)
    return examined


def _duplicates(examined: list[Examined]) -> list[Fault]:
    first: dict[str, str] = {}
    faults = []
    for item in examined:
        if item.sha256 and item.sha256 in first:
            faults.append(Fault("duplicate_file", item.source, f"same bytes as {first[item.sha256]}"))
        elif item.sha256:
            first[item.sha256] = item.source
    distinct = set(first.values())
    hashes = {
        item.source: item.near for item in examined if item.source in distinct and item.near is not None
    }
    for group in groups(hashes):
        faults += [Fault("near_duplicate", name, f"looks like {group[0]}") for name in group[1:]]
    return faults


def _unlisted(dataset: Dataset, examined: list[Examined]) -> list[Fault]:
    folder = dataset.images
    if folder is None or not folder.is_dir():
        return []
    listed = {item.sample.picture for item in examined if item.sample is not None}
    return [
        Fault("unlisted_image", name, "has no annotation")
        for name in picture_names(folder)
        if folder / name not in listed
    ]


def refuse_faults(result: Audit, report: Path) -> None:
    """Stop where a fault's rule says so.

    Raises:
        KilnError: counts by kind, and the first.
    """
    refused = result.refused()
    if not refused:
        return
    kinds = sorted({fault.kind for fault in refused})
    first = refused[0]
    raise KilnError(
        f"dataset '{result.declared.name}' is refused: "
        + ", ".join(f"{result.count(kind)} {kind}" for kind in kinds)
        + f"; the first: {first.source}: {first.detail}",
        file=report,
        hint=f"mend them, or leave them out: `rules: {{{kinds[0]}: skip}}` of the dataset in datasets.yaml",
    )
