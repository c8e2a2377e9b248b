"""Which settings decide what a rule makes."""

from pathlib import Path

import pytest

from facekiln.chips.deciding import deciding
from facekiln.config import load_config


def test_times_threads_and_ways_are_left_out_at_any_depth(root: Path) -> None:
    chips = load_config(root / "config").chips
    mapper = deciding(chips["nnie"], "mapper", "emulator")
    assert mapper["emulator"] == {"resize": "linear"}
    assert mapper["mapper"].keys() == {"mode", "command", "library_path", "docker", "ssh", "exit_status"}
    assert mapper["mapper"]["docker"] == {"image": None}
    assert not {"timeout_minutes", "device", "remote"} & deciding(chips["magicmind"], "sdk")["sdk"].keys()


def test_a_place_stays_where_it_may_be_another_release() -> None:
    settings = {"tools": {"command": ["/opt/a/tool"], "ssh": {"host": "a", "program": ["ssh"]}}, "chip": "x"}
    assert deciding(settings, "tools") == {"tools": {"command": ["/opt/a/tool"], "ssh": {"host": "a"}}}


def test_only_named_sections_are_told_in_an_order_of_their_own() -> None:
    settings = {"quantise": {"style": "tool", "method": "mse"}, "gate": {}}
    assert repr(deciding(settings, "quantise")) == "{'quantise': {'method': 'mse', 'style': 'tool'}}"
    with pytest.raises(KeyError):
        deciding({}, "quantise")
