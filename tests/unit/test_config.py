"""The config loader: every wrong key and value is refused by file and key, with a suggestion."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from facekiln import config as module
from facekiln.config import Config, load_config, load_recipe
from facekiln.errors import KilnError

Edit = Callable[[str, Callable[[dict[str, Any]], object]], Path]


@pytest.fixture
def edit(tmp_path: Path, root: Path) -> Edit:
    """Return a function that copies the shipped config and edits one file of it."""
    folder = tmp_path / "config"
    shutil.copytree(root / "config", folder)

    def change(name: str, how: Callable[[dict[str, Any]], object]) -> Path:
        value = yaml.safe_load((folder / name).read_text())
        how(value)
        (folder / name).write_text(yaml.safe_dump(value))
        return folder

    return change


@pytest.fixture(scope="session")
def config(root: Path) -> Config:
    return load_config(root / "config")


def test_shipped_config_loads_and_declares_the_nnie_sizes(config: Config) -> None:
    model = config.model("retinaface")
    assert set(model.sizes) == {"512", "640", "768", "1024"}
    assert model.size("640") == (640, 640)
    assert model.input.mean == (104, 117, 123)


def test_unknown_model_gets_a_suggestion(config: Config) -> None:
    with pytest.raises(KilnError, match=r"unknown model 'retinafac'; did you mean 'retinaface'\? \(known: "):
        config.model("retinafac")


def test_unknown_key_is_refused_with_file_and_suggestion(edit: Edit) -> None:
    folder = edit("config.yaml", lambda c: c.update(weigths="synthetic"))
    with pytest.raises(KilnError, match=r"config\.yaml: unknown key 'weigths'; did you mean 'weights'\?"):
        load_config(folder)


def test_unknown_nested_key_names_its_place(edit: Edit) -> None:
    folder = edit("models/retinaface.yaml", lambda c: c["input"].update(colour_order="bgr"))
    with pytest.raises(KilnError, match=r"retinaface\.yaml: input: unknown key 'colour_order'"):
        load_config(folder)


def test_wrong_value_names_the_key(edit: Edit) -> None:
    folder = edit("models/retinaface.yaml", lambda c: c["input"].update(colour="grb"))
    with pytest.raises(KilnError, match=r"retinaface\.yaml: input\.colour: 'grb' is not one of"):
        load_config(folder)


def test_not_yaml_names_the_line(edit: Edit) -> None:
    folder = edit("config.yaml", lambda _: None)
    (folder / "config.yaml").write_text("weights: [synthetic\n")
    with pytest.raises(KilnError, match=r"config\.yaml: is not YAML: .*\n.*line \d"):
        load_config(folder)


def test_weights_that_a_model_cannot_have_are_refused(edit: Edit) -> None:
    folder = edit("models/retinaface.yaml", lambda c: c.pop("published"))
    with pytest.raises(KilnError, match="weights are 'published' but the model has no 'published'"):
        load_config(folder, {"weights": "published"}).weights_of("retinaface")


def test_override_wins_and_is_checked(root: Path) -> None:
    assert load_config(root / "config", {"weights": "published"}).weights == "published"
    with pytest.raises(KilnError, match="'publishd' is not one of"):
        load_config(root / "config", {"weights": "publishd"})


def test_mirror_comes_from_the_environment_where_the_file_has_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEKILN_MIRROR", "/somewhere")
    assert load_config(root / "config").mirror == "/somewhere"
    assert load_config(root / "config", {"mirror": "/else"}).mirror == "/else"


def test_opset_is_what_every_chip_reads(config: Config) -> None:
    chips = {"a": {"opset": {"min": 9, "max": 13}}, "b": {"opset": {"min": 11, "max": 17}}}
    assert _with_chips(config, chips).opset() == 13
    chips["c"] = {"opset": {"min": 14, "max": 18}}
    with pytest.raises(KilnError, match=r"no opset suits both 'c' \(from 14\) and 'a' \(up to 13\)"):
        _with_chips(config, chips).opset()


def _with_chips(config: Config, chips: dict[str, Any]) -> Config:
    from dataclasses import replace

    return replace(config, chips=chips)


def test_unknown_recipe_gets_a_suggestion(root: Path) -> None:
    with pytest.raises(KilnError, match="unknown training recipe 'retinaface_sythetic'; did you mean"):
        load_recipe("retinaface_sythetic", root / "config")


def test_defaults_are_filled_in_at_every_depth_and_are_nobodys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = {"type": "object", "properties": {"deep": {"default": 3}, "list": {"default": []}}}
    schema = {
        "type": "object",
        "properties": {
            "absent": {"default": {}, **inner},
            "given": inner,
            "rows": {"type": "array", "items": inner},
        },
    }
    monkeypatch.setattr(module, "_schema", lambda _: schema)
    full = {"deep": 3, "list": []}
    first = module.check({"given": {"deep": 4}, "rows": [{}, {"list": [1]}]}, "any", "file")
    assert first == {
        "given": {"deep": 4, "list": []},
        "rows": [full, {"deep": 3, "list": [1]}],
        "absent": full,
    }
    first["absent"]["list"].append("mine")
    first["absent"]["more"] = "mine"
    assert module.check({}, "any", "file") == {"absent": full}


def test_digest_changes_with_the_named_fields_only(config: Config) -> None:
    from dataclasses import replace

    model = config.model("retinaface")
    assert replace(model, title="x").digest("input", "priors") == model.digest("input", "priors")
    assert replace(model, outputs=("a",)).digest("outputs") != model.digest("outputs")


@pytest.mark.parametrize("text", ["- 1\n", "42\n", "- &x [*x]\n"])
def test_a_file_that_is_no_mapping_is_refused(edit: Edit, text: str) -> None:
    folder = edit("config.yaml", dict)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(KilnError, match=r"config\.yaml"):
        load_config(folder)


def test_nan_passes_no_limit(edit: Edit) -> None:
    folder = edit("models/ulfd_rfb_320.yaml", lambda value: value["decode"].update(nms_iou=float("nan")))
    with pytest.raises(KilnError, match=r"ulfd_rfb_320\.yaml: decode\.nms_iou: is not a number"):
        load_config(folder)
