"""Datasets as config/datasets.yaml declares them: a folder, what it should hold, what to do about faults."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from facekiln.artifact import sha256_of, sha256_of_text
from facekiln.config import DEFAULT_FOLDER, check, known, read_yaml
from facekiln.data.sample import Listing
from facekiln.errors import KilnError

FILE = "datasets.yaml"


@dataclass(frozen=True)
class Annotation:
    """An annotation file, or a folder of them, below the dataset's folder, and its hash (see `hash_of`)."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Expected:
    """Counts that must hold. `counted`: faces not ignored; `folders`: folders that pictures lie in."""

    images: int
    faces: int | None = None
    counted: int | None = None
    folders: int | None = None


@dataclass(frozen=True)
class Rules:
    """What to do about each kind of fault: keep (tell only), clip, skip (leave out) or refuse the dataset."""

    broken_annotation: str = "refuse"
    missing_image: str = "refuse"
    corrupt_image: str = "refuse"
    unlisted_image: str = "skip"
    size_mismatch: str = "refuse"
    duplicate_file: str = "skip"
    near_duplicate: str = "keep"
    empty_annotation: str = "keep"
    degenerate_box: str = "skip"
    outside_box: str = "clip"
    duplicate_box: str = "skip"


@dataclass(frozen=True)
class SmallFaces:
    """Which faces are too small to learn from.

    Attributes:
        least: pixels that both sides of a box must have.
        measure: "original": as stored, which is what the Ultra-Light detector's converter does; "input":
            after the picture was resized to `input`, its aspect lost, as that detector's training resizes.
        input: (height, width) of the network.
        treat: "paint": the face is painted over, and a picture without any other is left out (that converter
            again); "ignore": it stays and is ignored.
    """

    least: float = 10.0
    measure: str = "original"
    input: tuple[int, int] = (240, 320)
    treat: str = "paint"


@dataclass(frozen=True)
class Declared:
    """One dataset of config/datasets.yaml."""

    name: str
    kind: str
    licence: str
    expected: Expected
    folder: Path | None = None
    images: str = "."
    annotations: tuple[Annotation, ...] = ()
    source: str = ""
    rules: Rules = field(default_factory=Rules)
    small_faces: SmallFaces | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Return a hash of what the dataset is and how it is cleaned, but not of where it lies."""
        whole = {
            key: value for key, value in asdict(self).items() if key not in ("folder", "licence", "source")
        }
        return sha256_of_text(repr(sorted(whole.items())))[:16]

    def state(self) -> str:
        """Return a hash of names, sizes and times of its files: what was replaced is audited anew.

        Nothing is read, so that the workflow can ask for it; empty where the dataset is drawn or not here.
        """
        if self.folder is None or not self.is_here():
            return ""
        roots = {self.folder / self.images, *(self.folder / item.path for item in self.annotations)}
        told = sorted(
            f"{os.path.relpath(path, self.folder)} {stat.st_size} {stat.st_mtime_ns}"
            for root in roots
            for path, stat in _files_below(root)
        )
        return sha256_of_text("\n".join(told))[:16]

    def missing(self) -> list[Path]:
        """Return the annotation files and folders that are not there; drawn scenes want none."""
        paths = [(self.folder or Path()) / item.path for item in self.annotations]
        return [path for path in paths if not path.exists()]

    def is_here(self) -> bool:
        """Tell whether its annotations are there; drawn scenes always are."""
        return not self.missing()

    def files(self) -> list[Path]:
        """Return the annotation files and folders.

        Raises:
            KilnError: one is not there.
        """
        paths = [(self.folder or Path()) / item.path for item in self.annotations]
        for path in paths:
            if not path.exists():
                raise KilnError(
                    f"is not here, so dataset '{self.name}' cannot be used",
                    file=path,
                    hint=f"get the dataset ({self.source or self.licence}) and set `root` or `folder` in "
                    f"{FILE}, or FACEKILN_DATASETS",
                )
        return paths


def _files_below(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield each file below a folder, or the file itself, with its state."""
    for path in [root] if root.is_file() else root.rglob("*"):
        # A link that points nowhere is a fault for the audit to tell.
        with contextlib.suppress(OSError):
            if path.is_file():
                yield path, path.stat()


@dataclass(frozen=True)
class Kind:
    """How a layout is read: module and function, its options, the ending of its annotation files."""

    module: str
    function: str
    options: tuple[str, ...] = ()
    ending: str = ""

    def reader(self) -> Callable[..., Listing]:
        """Import the function that reads it."""
        read: Callable[..., Listing] = getattr(importlib.import_module(self.module), self.function)
        return read


# Modules have their whole names here: `facekiln.fingerprint` knows by them that a change of a reader makes
# anew whatever opens a dataset. They are imported when a dataset of theirs is opened.
KINDS: dict[str, Kind] = {
    "wider_text": Kind("facekiln.data.wider", "read_wider_text"),
    "wider_label": Kind("facekiln.data.wider", "read_wider_label"),
    "wider_mat": Kind("facekiln.data.wider_mat", "read_wider_mat"),
    "voc": Kind("facekiln.data.voc", "read_voc", ("label", "origin"), ".xml"),
    "wflw": Kind("facekiln.data.wflw", "read_wflw"),
    "lapa": Kind("facekiln.data.lapa", "read_lapa", (), ".txt"),
    "300w_lp": Kind("facekiln.data.aflw_300w_lp", "read_300w_lp", ("points",), ".mat"),
    "pfld_list": Kind("facekiln.data.pfld_list", "read_pfld_list", ("side",)),
    "procedural": Kind("facekiln.data.procedural_set", "procedural_set", ("purpose", "seed", "size")),
}


def load_datasets(folder: Path | str = DEFAULT_FOLDER) -> dict[str, Declared]:
    """Load datasets.yaml of a config folder; no dataset is opened.

    Relative folders lie below `root`, or below $FACEKILN_DATASETS where that is null, or below datasets/.

    Raises:
        KilnError: it is missing, not YAML, breaks workflow/schemas/datasets.yaml, or gives a kind options
            that it does not have.
    """
    file = Path(folder) / FILE
    value = check(read_yaml(file), "datasets", file)
    root = Path(value["root"] or os.environ.get("FACEKILN_DATASETS") or "datasets")
    return {name: _declared(name, item, root, file) for name, item in value["datasets"].items()}


def declared_set(name: str, folder: Path | str = DEFAULT_FOLDER) -> Declared:
    """Return one dataset of a config folder's datasets.yaml; it is not opened.

    Raises:
        KilnError: no dataset of that name, the nearest is suggested; or see `load_datasets`.
    """
    datasets = load_datasets(folder)
    return datasets[known(name, datasets, "dataset")]


def _declared(name: str, item: dict[str, Any], root: Path, file: Path) -> Declared:
    value = dict(item)
    for option in value.get("options", {}):
        try:
            known(option, KINDS[value["kind"]].options, f"option of a '{value['kind']}' dataset")
        except KilnError as error:
            raise KilnError(error.what, file=file, where=f"datasets.{name}.options") from None
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in value.pop("options", {}).items()}
    small = value.pop("small_faces", None)
    if small and "input" in small:
        small = {**small, "input": tuple(small["input"])}
    return Declared(
        name=name,
        folder=root / value.pop("folder") if "folder" in value else None,
        expected=Expected(**value.pop("expected")),
        annotations=tuple(Annotation(**entry) for entry in value.pop("annotations", [])),
        rules=Rules(**value.pop("rules", {})),
        small_faces=SmallFaces(**small) if small else None,
        options=options,
        **value,
    )


def hash_of(path: Path, ending: str = "") -> str:
    """Return the sha256 of a file; of a folder, that of its sorted lines `sha256  relative/path`.

    Args:
        path: the file or folder.
        ending: in a folder, only files with this ending count, e.g. ".xml".

    Raises:
        KilnError: a file cannot be read.
    """
    if not path.is_dir():
        return sha256_of(path)
    names = sorted(
        PurePosixPath(item.relative_to(path)).as_posix()
        for item in path.rglob(f"*{ending}")
        if item.is_file()
    )
    return sha256_of_text("".join(f"{sha256_of(path / name)}  {name}\n" for name in names))


def open_dataset(declared: Declared) -> Listing:
    """Open a dataset as it is declared; pictures are not read.

    Raises:
        KilnError: its annotation is not there, does not parse, or has other hashes or counts than declared;
            the message names all that were expected and found.
    """
    files, kind = declared.files(), KINDS[declared.kind]
    wrong = [
        f"sha256 of {entry.path}: expected {entry.sha256}, found {found}"
        for entry, path in zip(declared.annotations, files, strict=True)
        if (found := hash_of(path, kind.ending)) != entry.sha256
    ]
    if wrong:
        raise _mismatch(declared, wrong, "fetch the annotation again, or declare the file that you have")
    read = kind.reader()
    if declared.folder is None:
        return read(declared.name, declared.expected.images, **declared.options)
    dataset = read(declared.name, declared.folder / declared.images, *files, **declared.options)
    _check_counts(declared, dataset)
    return dataset


def _check_counts(declared: Declared, dataset: Listing) -> None:
    expected = declared.expected
    found = {"images": len(dataset), "folders": len({PurePosixPath(name).parent for name in dataset.sources})}
    found |= {"faces": 0, "counted": 0}
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
        except KilnError:
            if declared.rules.broken_annotation == "refuse":
                raise
            continue
        found["faces"] += len(sample)
        found["counted"] += int((~sample.ignore).sum())
    wrong = [
        f"{key}: expected {wanted}, found {found[key]}"
        for key in (item.name for item in fields(Expected))
        if (wanted := getattr(expected, key)) not in (None, found[key])
    ]
    if wrong:
        raise _mismatch(declared, wrong, f"is this the whole set? If so, correct `expected` in {FILE}")


def _mismatch(declared: Declared, wrong: list[str], hint: str) -> KilnError:
    return KilnError(
        f"dataset '{declared.name}' is not what was declared: " + "; ".join(wrong),
        file=declared.folder,
        hint=hint,
    )
