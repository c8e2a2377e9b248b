"""Checkpoints: read without running anything in them, and never loaded into the wrong network."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekiln.artifact import read_bytes
from facekiln.config import Config, Model
from facekiln.errors import KilnError
from facekiln.models.looks import looks_like
from facekiln.models.registry import build_network
from facekiln.progress import log

if TYPE_CHECKING:
    from torch import Tensor, nn

StateDict = dict[str, "Tensor"]

# The key under which our own checkpoints carry what their tensors do not say, and that form's number.
META = "facekiln"
META_FORMAT = 1

_PREFIX = "module."
_SHOWN = 3


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint file, read.

    Attributes:
        name: the file or address that it came from, for messages.
        sha256: of the file's bytes.
        form: "zip" (torch 1.6 and later) or "legacy".
        prefix: "module." where DataParallel had put it before every key, else "".
        state: the tensors by name, without the prefix.
        meta: of a checkpoint that facekiln trained: format, model, declaration, recipe, metrics; else None.
    """

    name: str
    sha256: str
    form: str
    prefix: str
    state: StateDict
    meta: dict[str, Any] | None


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint file (see `parse_checkpoint`).

    Raises:
        KilnError: it cannot be read, or `parse_checkpoint` refuses it.
    """
    return parse_checkpoint(read_bytes(path), path)


def read_state(path: Path | str) -> tuple[StateDict, dict[str, Any] | None]:
    """Return a checkpoint's tensors by name, and the metadata of one that facekiln trained (else None).

    Raises:
        KilnError: see `read_checkpoint`.
    """
    checkpoint = read_checkpoint(path)
    return checkpoint.state, checkpoint.meta


def parse_checkpoint(data: bytes, name: Path | str) -> Checkpoint:
    """Read a checkpoint's bytes; nothing in them is run.

    Takes what torch.save has written in either of its forms: a state dict, a training archive with one under
    `state_dict`, both also with DataParallel's prefix.

    Args:
        data: the whole file.
        name: the file or address that it came from, for messages.

    Raises:
        KilnError: cut short, no checkpoint, a pickle that would run code (it is not run), no tensors, or
            metadata that this release does not know.
    """
    other = looks_like(data[:64])
    if other:
        raise KilnError(
            f"is {other}, not a checkpoint", file=name, hint="fetch the file itself, and check its sha256"
        )
    value = _unpickle(data, name)
    tensors = value["state_dict"] if isinstance(value, Mapping) and "state_dict" in value else value
    state = _state_of(tensors, name)
    prefixed = all(key.startswith(_PREFIX) for key in state)
    return Checkpoint(
        name=str(name),
        sha256=hashlib.sha256(data).hexdigest(),
        form="zip" if data.startswith(b"PK") else "legacy",
        prefix=_PREFIX if prefixed else "",
        state={key.removeprefix(_PREFIX) if prefixed else key: tensor for key, tensor in state.items()},
        meta=_meta_of(value, name),
    )


def _unpickle(data: bytes, name: Path | str) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # Torch muses about TorchScript archives and pickle protocols; the error below says it plainly.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise unrelated types
        refused = _refused_global(error)
        if refused:
            raise KilnError(
                f"holds more than tensors and was not loaded: it asks for {refused}",
                file=name,
                hint="loading such a file can run anything; ask its author for a plain state dict",
            ) from error
        raise KilnError(
            f"is no whole checkpoint: {_reason(error)}",
            file=name,
            value=f"{len(data)} bytes",
            hint="it may be cut short or of another program: fetch it again, and check its sha256",
        ) from error


def _reason(error: BaseException) -> str:
    """Return torch's reason without its advice, which is to switch the protection off."""
    told = str(error).strip()
    for known_form in ("TorchScript", ".tar format"):
        if known_form in told:
            return f"it is of torch's {known_form} form, which is not read without running code"
    told = told.rpartition("WeightsUnpickler error:")[2].strip()
    first = (told or type(error).__name__).splitlines()[0]
    return "torch cannot unpickle it" if "weights_only" in first else first


def _refused_global(error: BaseException) -> str | None:
    """Return the name that a pickle wanted and torch's tensor-only reader refused, e.g. `posix.system`."""
    if not isinstance(error, pickle.UnpicklingError):
        return None
    words = str(error).replace("`", " ").split()
    return words[words.index("GLOBAL") + 1] if "GLOBAL" in words[:-1] else None


def _state_of(value: Any, name: Path | str) -> StateDict:
    from torch import Tensor

    limit = "a mapping from names to tensors, or one under `state_dict`"
    if not isinstance(value, Mapping) or not value:
        raise KilnError("holds no state dict", file=name, value=type(value).__name__, limit=limit)
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, Tensor):
            kind = type(item).__name__
            raise KilnError("holds no state dict", file=name, where=str(key), value=kind, limit=limit)
        if item.is_floating_point() and not bool(item.isfinite().all()):
            raise KilnError(
                "holds infinity or NaN", file=name, where=key, hint="its training has failed; take another"
            )
    return dict(value)


def _meta_of(value: Any, name: Path | str) -> dict[str, Any] | None:
    meta = value.get(META) if isinstance(value, Mapping) else None
    if meta is None:
        return None
    if (
        not isinstance(meta, Mapping)
        or meta.get("format") != META_FORMAT
        or not isinstance(meta.get("declaration"), Mapping)
    ):
        raise KilnError(
            "has metadata that this release does not know",
            file=name,
            where=META,
            value=meta.get("format") if isinstance(meta, Mapping) else type(meta).__name__,
            limit=f"format {META_FORMAT} with a declaration",
            hint="train it again: remove it and run its rule",
        )
    return dict(meta)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the leaves in which two declarations differ, each as `key: our value, not their value`."""
    found: list[str] = []
    for key in sorted({*ours, *theirs}):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a}, not {b}")
    return found


def _plain(declaration: Mapping[str, Any]) -> dict[str, Any]:
    """Bring a declaration to the form in which a stored one compares equal.

    Tuples and integers become what JSON has. The input's name, which earlier files hold, decides nothing.
    """
    plain: dict[str, Any] = json.loads(json.dumps(declaration), parse_int=float)
    if isinstance(plain.get("input"), dict):
        plain["input"].pop("name", None)
    return plain


def owners_of(sha256: str, config: Config) -> list[Model]:
    """Return the models whose published checkpoint has that hash."""
    return [model for model in config.models.values() if model.published and model.published.sha256 == sha256]


def check_identity(checkpoint: Checkpoint, model: Model, config: Config) -> None:
    """Refuse a checkpoint that is known to be of another declaration than the model's.

    The published mobilenet0.25 files have the same keys and shapes: each loads strictly into the others'
    network, and detects wrongly there without an error. So the sha256, or our own metadata, decides.

    Raises:
        KilnError: names each key that differs with both values, and the model to build instead.
    """
    ours = _plain(model.declaration())
    owners = owners_of(checkpoint.sha256, config)
    for owner in owners:
        wrong = differences(ours, _plain(owner.declaration()))
        if wrong:
            raise KilnError(
                f"is the published checkpoint of '{owner.name}', and '{model.name}' declares otherwise: "
                + "; ".join(wrong),
                file=checkpoint.name,
                hint=f"build '{owner.name}', or give '{model.name}' the file that it declares",
            )
    if checkpoint.meta is not None:
        wrong = differences(ours, _plain(checkpoint.meta["declaration"]))
        if wrong:
            raise KilnError(
                f"was trained for '{checkpoint.meta.get('model')}', and '{model.name}' declares otherwise: "
                + "; ".join(wrong),
                file=checkpoint.name,
                hint="train it again (remove it and run its rule), or set the declaration back",
            )
    if owners and model.published and checkpoint.sha256 != model.published.sha256:
        log.warning(
            "%s: is the published checkpoint of '%s'; that of '%s' is another, for the same declaration",
            checkpoint.name,
            owners[0].name,
            model.name,
        )
    pinned = model.local is not None and model.local.sha256 == checkpoint.sha256
    if not owners and checkpoint.meta is None and not pinned:
        log.warning(
            "%s: sha256 %s is of no model here: slope, priors, colour and mean of '%s' are taken on trust",
            checkpoint.name,
            checkpoint.sha256[:12],
            model.name,
        )


def load_network(path: Path | str, model: Model, config: Config) -> nn.Module:
    """Load a checkpoint file strictly into its model's network.

    Returns:
        The network in eval mode.

    Raises:
        KilnError: see `read_checkpoint` and `network_from`.
    """
    return network_from(read_checkpoint(path), model, config)


def network_from(checkpoint: Checkpoint, model: Model, config: Config) -> nn.Module:
    """Load a checkpoint strictly into its model's network.

    Returns:
        The network in eval mode.

    Raises:
        KilnError: it is known to be of another declaration (see `check_identity`), or keys or shapes differ.
    """
    check_identity(checkpoint, model, config)
    network = build_network(model)
    problems = misfits(checkpoint.state, network)
    if problems:
        raise KilnError(
            f"does not fit network '{model.network}': {', '.join(problems)}",
            file=checkpoint.name,
            value=f"{len(checkpoint.state)} keys",
            limit=f"{len(network.state_dict())} keys",
            hint=f"is it of model '{model.name}'? see: facekiln checkpoint inspect FILE",
        )
    network.load_state_dict(checkpoint.state, strict=True)
    return network.eval()


def misfits(state: Mapping[str, Tensor], network: nn.Module) -> list[str]:
    """Return why a state dict does not load into a network, one sentence per kind; empty where it does."""
    wanted = network.state_dict()
    kinds = {
        "missing": [key for key in wanted if key not in state],
        "unexpected": [key for key in state if key not in wanted],
        "of another shape": [
            f"{key} {list(state[key].shape)}, not {list(tensor.shape)}"
            for key, tensor in wanted.items()
            if key in state and state[key].shape != tensor.shape
        ],
    }
    return [
        f"{len(keys)} {kind} ({'; '.join(keys[:_SHOWN])}{' ...' if len(keys) > _SHOWN else ''})"
        for kind, keys in kinds.items()
        if keys
    ]
