"""Checkpoints: nothing in them is run, and none gets into the wrong network."""

import contextlib
import io
import logging
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facekiln.config import Config, Local, load_config
from facekiln.errors import KilnError
from facekiln.models.checkpoint import (
    META,
    check_identity,
    differences,
    load_network,
    network_from,
    parse_checkpoint,
    read_checkpoint,
    read_state,
)
from facekiln.models.registry import build_network

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def saved(value: Any, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    return load_config(root / "config")


@pytest.fixture(scope="module")
def state(config: Config) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_network(config.model("retinaface")).state_dict()


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """What is logged; the package's logger does not propagate, so caplog would miss it."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("facekiln")
    logger.addHandler(handler)
    yield told
    logger.removeHandler(handler)


# Reading


@FORMS
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: OrderedDict(state),
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
    ids=["plain", "training", "DataParallel", "training DataParallel"],
)
def test_reads_what_torch_save_writes(
    tmp_path: Path, state: dict[str, torch.Tensor], wrap: Callable[..., Any], zipped: bool
) -> None:
    path = tmp_path / "gesichtér.pth"
    path.write_bytes(saved(wrap(state), zipped))
    read, meta = read_state(path)
    assert meta is None
    assert list(read) == list(state)
    assert all(torch.equal(read[key], state[key]) for key in state)
    assert read_checkpoint(path).form == ("zip" if zipped else "legacy")


def test_a_prefix_is_stripped_from_all_keys_or_none() -> None:
    tensor = torch.zeros(1)
    assert parse_checkpoint(saved({"module.a": tensor}), "x").prefix == "module."
    mixed = parse_checkpoint(saved({"module.a": tensor, "b": tensor}), "x")
    assert (mixed.prefix, list(mixed.state)) == ("", ["module.a", "b"])


class Evil:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


def evil_zip(witness: Path) -> bytes:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(1)}))) as good,
        zipfile.ZipFile(stream, "w") as bad,
    ):
        for name in good.namelist():
            data = pickle.dumps({"a": Evil(witness)}, 2) if name.endswith("data.pkl") else good.read(name)
            bad.writestr(name, data)
    return stream.getvalue()


@pytest.mark.parametrize(
    "make",
    [
        lambda witness: pickle.dumps({"a": Evil(witness)}, 2),
        lambda witness: pickle.dumps(Evil(witness), 4),
        lambda witness: saved({"a": Evil(witness)}, True),
        lambda witness: saved({"a": Evil(witness)}, False),
        evil_zip,
    ],
    ids=["pickle 2", "pickle 4", "zip", "legacy", "zip patched"],
)
def test_a_file_that_would_run_code_is_refused_and_does_not_run(
    tmp_path: Path, make: Callable[[Path], bytes]
) -> None:
    witness = tmp_path / "it ran"
    path = tmp_path / "evil.pth"
    path.write_bytes(make(witness))
    with pytest.raises(KilnError, match=r"evil\.pth") as caught:
        read_state(path)
    assert not witness.exists()
    assert "weights_only" not in str(caught.value), "torch's own advice is to switch the protection off"
    # The witness works: an unguarded load of the same bytes does run it.
    with contextlib.suppress(RuntimeError):
        torch.load(path, weights_only=False)
    assert witness.exists()


def test_the_refused_name_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        KilnError, match=r"holds more than tensors and was not loaded: it asks for posix\.mkdir"
    ):
        parse_checkpoint(saved({"a": Evil(tmp_path / "x")}, False), "evil.pth")


@FORMS
def test_a_cut_file_is_refused_wherever_it_is_cut(state: dict[str, torch.Tensor], zipped: bool) -> None:
    data = saved({key: state[key] for key in list(state)[:12]}, zipped)
    for length in [*range(1, len(data), max(1, len(data) // 97)), len(data) - 1]:
        with pytest.raises(KilnError, match=r"no whole checkpoint|not loaded|not a checkpoint"):
            parse_checkpoint(data[:length], "cut.pth")


@FORMS
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_gives_one_kind_of_error(data: st.DataObject, zipped: bool) -> None:
    good = bytearray(
        saved({"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "bias": torch.zeros(2)}, zipped)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse_checkpoint(bytes(good), "damaged.pth")
    except KilnError as error:
        assert "damaged.pth" in str(error)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_of_any_kind_give_one_kind_of_error(noise: bytes) -> None:
    with pytest.raises(KilnError, match=r"noise\.pth"):
        parse_checkpoint(noise, "noise.pth")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><title>GitHub</title>", "is a web page"),
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (saved([torch.zeros(1)]), "holds no state dict"),
        (saved({}), "holds no state dict"),
        (saved({"a": torch.zeros(1), "epoch": 3}), "epoch: holds no state dict"),
        (saved({"state_dict": {"a": 3}}), "a: holds no state dict"),
        (saved({3: torch.zeros(1)}), "3: holds no state dict"),
        (saved({"a": torch.tensor([1.0, float("nan")])}), "a: holds infinity or NaN"),
    ],
)
def test_what_is_no_checkpoint_is_called_by_its_name(data: bytes, words: str) -> None:
    with pytest.raises(KilnError, match=words):
        parse_checkpoint(data, "x.pth")


def test_a_torchscript_archive_is_no_checkpoint() -> None:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), stream)
    with pytest.raises(KilnError, match=r"no whole checkpoint: it is of torch's TorchScript form"):
        parse_checkpoint(stream.getvalue(), "x.pt")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match=r"none\.pth: cannot be read: No such file"):
        read_state(tmp_path / "none.pth")


# Fitting


def test_what_is_missing_unexpected_or_of_another_shape_is_named(
    config: Config, state: dict[str, torch.Tensor]
) -> None:
    changed = dict(state)
    del changed["fpn.output1.0.weight"]
    changed["fc.weight"] = torch.zeros(2)
    changed["ClassHead.0.conv1x1.bias"] = torch.zeros(6)
    with pytest.raises(KilnError) as caught:
        network_from(parse_checkpoint(saved(changed), "x.pth"), config.model("retinaface"), config)
    told = str(caught.value)
    assert "1 missing (fpn.output1.0.weight)" in told
    assert "1 unexpected (fc.weight)" in told
    assert "1 of another shape (ClassHead.0.conv1x1.bias [6], not [4])" in told


def test_a_backbone_only_file_is_refused(config: Config, state: dict[str, torch.Tensor]) -> None:
    body = {f"module.{key}": value for key, value in state.items() if key.startswith("body.")}
    with pytest.raises(KilnError, match=r"does not fit .* missing \(fpn.output1.0.weight; "):
        network_from(parse_checkpoint(saved(body), "x"), config.model("retinaface"), config)


# Identity

VARIANTS = {
    "retinaface": "retinaface_mnet025.pth",
    "retinaface_1mb": "retinaface_1mb_mnet025.pth",
}
PUBLISHED = VARIANTS | {
    "slim_1mb": "retinaface_1mb_slim.pth",
    "rfb_1mb": "retinaface_1mb_rfb.pth",
    **{name: f"{name}.pth" for name in ("ulfd_slim_320", "ulfd_rfb_320", "ulfd_slim_640", "ulfd_rfb_640")},
}


@pytest.mark.published
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_loads_into_its_own_model_without_a_word(
    name: str, mirror: Callable[[str], Path], config: Config, messages: list[str]
) -> None:
    network = load_network(mirror(PUBLISHED[name]), config.model(name), config)
    assert not network.training
    assert messages == []


@pytest.mark.published
@pytest.mark.parametrize("name", ["retinaface", "retinaface_1mb", "retinaface_first"])
@pytest.mark.parametrize("owner", VARIANTS)
def test_a_published_file_loads_into_no_other_model(
    name: str, owner: str, mirror: Callable[[str], Path], config: Config
) -> None:
    path = mirror(VARIANTS[owner])
    if name == owner:
        return
    # It would load: same keys, same shapes. That is the trap.
    build_network(config.model(name)).load_state_dict(read_state(path)[0], strict=True)
    with pytest.raises(KilnError, match=rf"published checkpoint of '{owner}'.*(\n.*)build '{owner}'"):
        load_network(path, config.model(name), config)


@pytest.mark.published
def test_a_file_of_the_other_size_loads_with_a_warning(
    mirror: Callable[[str], Path], config: Config, messages: list[str]
) -> None:
    # ULFD's 320 and 640 networks and priors are the same; only the weights differ.
    load_network(mirror("ulfd_rfb_640.pth"), config.model("ulfd_rfb_320"), config)
    assert len(messages) == 1
    assert "is the published checkpoint of 'ulfd_rfb_640'; that of 'ulfd_rfb_320' is another" in messages[0]


@pytest.mark.published
@pytest.mark.parametrize("other", ["ulfd_slim_320", "slim_1mb", "rfb_1mb", "retinaface"])
def test_a_file_of_another_network_is_refused(
    mirror: Callable[[str], Path], config: Config, other: str
) -> None:
    with pytest.raises(KilnError, match=r"network: \w+, not ulfd_rfb"):
        load_network(mirror("ulfd_rfb_320.pth"), config.model(other), config)


@pytest.mark.parametrize(
    "name", ["retinaface_r50", "slim_1mb", "rfb_1mb", "ulfd_slim_320", "ulfd_rfb_640", "pfpld"]
)
def test_every_network_takes_a_training_archive_with_prefixes(config: Config, name: str) -> None:
    torch.manual_seed(0)
    state = build_network(config.model(name)).state_dict()
    wrapped = {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 80}
    network = network_from(parse_checkpoint(saved(wrapped), "x.pth.tar"), config.model(name), config)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_each_key_that_differs_is_named_with_both_values(config: Config) -> None:
    ours = config.model("retinaface_1mb").declaration()
    theirs = config.model("retinaface").declaration()
    told = differences(ours, theirs)
    assert told[0] == "options.leaky_slope: 0.0, not 0.1"
    assert told[1].startswith("priors.min_sizes: ((10, 20), ")
    assert len(told) == 2


def test_a_copied_declaration_with_the_same_sha256_but_another_mean_is_refused(
    config: Config, state: dict[str, torch.Tensor]
) -> None:
    checkpoint = parse_checkpoint(saved(state), "x.pth")
    model = config.model("retinaface")
    assert model.published
    pinned = replace(model, published=replace(model.published, sha256=checkpoint.sha256))
    copied = replace(pinned, name="mine", input=replace(model.input, mean=(127.0, 127.0, 127.0)))
    whole = replace(config, models={"retinaface": pinned, "mine": copied})
    check_identity(checkpoint, pinned, replace(whole, models={"retinaface": pinned}))
    with pytest.raises(
        KilnError, match=r"input\.mean: \[127\.0, 127\.0, 127\.0\], not \[104\.0, 117\.0, 123\.0\]"
    ):
        check_identity(checkpoint, copied, whole)


def trained(
    config: Config, state: dict[str, torch.Tensor], name: str = "retinaface", **changes: Any
) -> bytes:
    meta = {
        "format": 1,
        "model": name,
        "declaration": config.model(name).declaration(),
        "recipe": {"steps": 10},
        "metrics": {"ap": 0.5},
        **changes,
    }
    return saved({"state_dict": state, META: meta})


def test_our_own_file_loads_into_the_model_that_it_was_trained_for(
    tmp_path: Path, config: Config, state: dict[str, torch.Tensor], messages: list[str]
) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(trained(config, state))
    load_network(path, config.model("retinaface"), config)
    assert messages == []
    meta = read_state(path)[1]
    assert meta is not None
    assert (meta["model"], meta["recipe"], meta["metrics"]) == ("retinaface", {"steps": 10}, {"ap": 0.5})


def test_a_declaration_stored_as_json_compares_equal(config: Config, state: dict[str, torch.Tensor]) -> None:
    declaration = config.model("retinaface").declaration()
    as_json = {
        **declaration,
        "input": {**declaration["input"], "mean": [104.0, 117.0, 123.0]},
        "priors": {**declaration["priors"], "steps": [8.0, 16.0, 32.0]},
    }
    data = trained(config, state, declaration=as_json)
    network_from(parse_checkpoint(data, "x"), config.model("retinaface"), config)


def test_a_renamed_input_is_no_other_model(config: Config, state: dict[str, torch.Tensor]) -> None:
    model = config.model("retinaface")
    renamed = replace(model, input=replace(model.input, name="data"))
    assert renamed.declaration() == model.declaration()
    assert renamed.digest("declaration") == model.digest("declaration") != model.digest("input")
    # Files of before hold the name.
    declaration = model.declaration()
    declaration["input"] = {**declaration["input"], "name": "input"}
    network_from(parse_checkpoint(trained(config, state, declaration=declaration), "x"), renamed, config)
    # A published file, known by its hash, too.
    checkpoint = parse_checkpoint(saved(state), "x.pth")
    assert model.published
    pinned = replace(model, published=replace(model.published, sha256=checkpoint.sha256))
    check_identity(checkpoint, renamed, replace(config, models={"retinaface": pinned, "mine": renamed}))


@pytest.mark.parametrize("other", ["retinaface_1mb", "retinaface_first"])
def test_our_own_file_loads_into_no_other_model(
    config: Config, state: dict[str, torch.Tensor], other: str
) -> None:
    checkpoint = parse_checkpoint(trained(config, state), "x.pth")
    with pytest.raises(
        KilnError, match=r"was trained for 'retinaface'.*options\.leaky_slope: 0\.0, not 0\.1"
    ):
        network_from(checkpoint, config.model(other), config)


@pytest.mark.parametrize("changes", [{"format": 2}, {"declaration": None}, {"declaration": "x"}])
def test_metadata_of_another_release_is_refused(
    config: Config, state: dict[str, torch.Tensor], changes: dict[str, Any]
) -> None:
    with pytest.raises(KilnError, match="facekiln: has metadata that this release does not know"):
        parse_checkpoint(trained(config, state, **changes), "x.pth")


def test_an_unknown_file_loads_with_a_warning_and_a_pinned_local_one_without(
    config: Config, state: dict[str, torch.Tensor], messages: list[str]
) -> None:
    checkpoint = parse_checkpoint(saved(state), "mine.pth")
    model = config.model("retinaface")
    network_from(checkpoint, replace(model, local=Local("mine.pth", checkpoint.sha256)), config)
    assert messages == []
    network_from(checkpoint, model, config)
    assert len(messages) == 1
    assert "mine.pth" in messages[0]
    assert "taken on trust" in messages[0]
