"""config/chips/nnie.yaml and its schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from facekiln.chips.nnie.legalise.limits import LIMITS
from facekiln.chips.nnie.settings import load_settings, settings_from
from facekiln.config import SCHEMAS, read_yaml
from facekiln.errors import KilnError


def test_the_committed_file_says_what_the_defaults_say(root: Path) -> None:
    assert load_settings(root / "config") == load_settings("nowhere")


def test_the_committed_file_states_every_key(root: Path) -> None:
    schema = read_yaml(SCHEMAS / "chip_nnie.yaml")["properties"]
    value = read_yaml(root / "config" / "chips" / "nnie.yaml")
    assert set(value) == set(schema)
    for key, sub in schema.items():
        assert set(value[key]) == set(sub["properties"]) if "properties" in sub else True


def test_doubtful_rules_exist() -> None:
    assert set(load_settings("nowhere").restrictions) <= set(LIMITS)


def test_the_chip_decides_the_nnie_version() -> None:
    assert load_settings("nowhere").nnie == "1.2"
    assert settings_from({"chip": "hi3559av100"}).nnie == "1.1"
    with pytest.raises(KilnError, match="did you mean 'hi3516dv300'"):
        settings_from({"chip": "hi3516dv30"})


def test_a_wrong_key_is_named() -> None:
    with pytest.raises(KilnError, match="unknown key 'mod'; did you mean 'mode'"):
        settings_from({"mapper": {"mod": "local"}})
