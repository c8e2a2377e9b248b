"""nnie_mapper's .cfg: grammar, limits, round trip, and what models become."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekiln.chips.nnie.mapper.cfg import (
    GROUP_KEYS,
    InputGroup,
    MapperConfig,
    parse_cfg,
    read_cfg,
    write_cfg,
)
from facekiln.chips.nnie.mapper.configure import CfgPaths, cfg_for, mean_text
from facekiln.chips.nnie.settings import load_settings, settings_from
from facekiln.config import Input, Model
from facekiln.errors import KilnError

# As users write it: any order, comments, folders in names (values as in the sample of rinetd/nnie_mapper).
SAMPLE = """
# [prototxt_file] ./old.prototxt
[prototxt_file] ./data/net.prototxt
[caffemodel_file]  ./data/net.caffemodel
[batch_num] 1
[net_type] 0
[sparse_rate] 0
[compile_mode] 0
[is_simulation] 0
[log_level] 2
[instruction_name] ./data/inst_net
[RGB_order] BGR
[data_scale] 0.0039062
[internal_stride] 16
[image_list] data/list.txt
[image_type] 1
[mean_file] null
[norm_type] 3
"""


def test_a_users_file() -> None:
    config = parse_cfg(SAMPLE)
    assert config.prototxt_file == "./data/net.prototxt" and config.instruction_name == "./data/inst_net"
    assert config.inputs == (InputGroup("data/list.txt", 1, 3, "null"),)
    assert (config.data_scale, config.batch_num, config.log_level, config.notes) == (0.0039062, 1, 2, ())


def test_defaults_are_the_vendors() -> None:
    config = MapperConfig("a", "b", (InputGroup("l"),))
    # Table 3-6 of the guide: 1/256 (not 1/255), BGR, 256 images per batch, 16-byte rows, no log.
    assert (config.data_scale, config.RGB_order, config.batch_num) == (1 / 256, "BGR", 256)
    assert (config.internal_stride, config.log_level, config.recurrent_tmax) == (16, None, 1024)


def test_every_key_is_written_once() -> None:
    config = MapperConfig(
        "a", "b", (InputGroup("l"),), log_level=3, gfpq_param_file="g", roi_coordinate_file=("r",)
    )
    keys = [line.split("]")[0][1:] for line in write_cfg(config).splitlines()]
    assert sorted(keys) == sorted(
        {f.name for f in fields(MapperConfig)} - {"inputs", "notes"} | set(GROUP_KEYS)
    )


_text = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30
).filter(lambda s: s == s.strip() and len(s.splitlines()) == 1)
_groups = st.builds(
    InputGroup, _text, st.just(1), st.sampled_from([0, 2, 3, 4, 5]), _text.filter(lambda s: s != "null")
) | st.builds(InputGroup, _text, st.sampled_from([0, 1, 3, 5]), st.just(0), st.just("null"))
_configs = st.builds(
    MapperConfig,
    prototxt_file=_text,
    caffemodel_file=_text,
    inputs=st.lists(_groups, min_size=1, max_size=3).map(tuple),
    net_type=st.sampled_from([0, 1, 2]),
    data_scale=st.floats(2.5e-4, 3e38),
    RGB_order=st.sampled_from(["RGB", "BGR"]),
    batch_num=st.integers(0, 256),
    sparse_rate=st.floats(0, 1),
    compile_mode=st.sampled_from([0, 1, 2]),
    is_simulation=st.sampled_from([0, 1]),
    instruction_name=_text,
    internal_stride=st.sampled_from([16, 32]),
    log_level=st.none() | st.integers(0, 3),
    roi_coordinate_file=st.lists(_text, max_size=2).map(tuple),
    gfpq_param_file=st.none() | _text,
)


@given(_configs)
def test_round_trip(config: MapperConfig) -> None:
    assert parse_cfg(write_cfg(config)) == config


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parse_cfg(text)
        parse_cfg(SAMPLE + text)
    except KilnError:
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[batch_num] 1", "[batch_num] 257"), r"\[batch_num\] is out of range.*0..256"),
        (("[net_type] 0", "[net_type] 3"), "0 or 1 or 2"),
        (("[net_type] 0", "[net_type] 0 # CNN"), "comments on lines of their own"),
        (("[net_typ", "[nettyp"), r"unknown key 'nettype'; did you mean 'net_type'\?"),
        (("0.0039062", "0.000244140625"), r"\(1/4096, FLT_MAX\]"),
        (("0.0039062", "nan"), "out of range"),
        (("0.0039062", "four"), "is not a number"),
        (("[internal_stride] 16", "[internal_stride] 64"), "16 or 32"),
        (("[image_type] 1", "[image_type] 2"), "0 or 1 or 3 or 5"),
        (("[image_type] 1", "[image_type] 0"), r"\[norm_type\] must be 0"),
        (("[norm_type] 3", "[norm_type] 5"), r"needs a \[mean_file\]"),
        (("[mean_file] null", ""), "mean_file must exist even where nothing is subtracted"),
        (("[prototxt_file] ./data", "[RGB_order] "), r"\[RGB_order\]"),
        (("./data/inst_net", "x" * 120), "fewer than 120"),
        (("[log_level] 2", "[log_level] 2\n[log_level] 3"), "stands twice"),
        (("[log_level] 2", "[log_level]"), "has no value"),
        (("[log_level] 2", "log_level 2"), r"not `\[key\] value`"),
        (("[image_list] data/list.txt", ""), r"\[image_list\] is missing"),
    ],
)
def test_what_is_wrong_is_named(change: tuple[str, str], message: str) -> None:
    with pytest.raises(KilnError, match=message):
        parse_cfg(SAMPLE.replace(*change), "x.cfg")


def test_groups_are_paired_in_order() -> None:
    second = "[norm_type] 0\n[mean_file] m2\n[image_list] l2\n[image_type] 0\n"
    first, other = parse_cfg(SAMPLE + second).inputs
    assert (first.image_list, other) == ("data/list.txt", InputGroup("l2", 0, 0, "m2"))


def test_the_guides_spelling_is_read_with_a_note() -> None:
    config = parse_cfg(SAMPLE.replace("instruction_name", "instructions_name"))
    assert config.instruction_name == "./data/inst_net" and "guide's spelling" in config.notes[0]


def test_scale_traps_are_noted() -> None:
    (note,) = parse_cfg(SAMPLE.replace("[data_scale] 0.0039062\n", "")).notes
    assert "1/256, which is not 1/255" in note
    # nniefacelib issue 28: a scale where the network wants 0..255 finds no faces.
    (note,) = parse_cfg(SAMPLE.replace("[norm_type] 3", "[norm_type] 0")).notes
    assert "no [norm_type] uses it" in note


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.cfg").write_bytes(b"[net_type] \xff")
    with pytest.raises(KilnError, match="UTF-8"):
        read_cfg(tmp_path / "x.cfg")
    with pytest.raises(KilnError, match="No such file"):
        read_cfg(tmp_path / "none.cfg")


def test_a_value_that_needs_two_lines_is_not_written() -> None:
    with pytest.raises(KilnError, match="prototxt_file"):
        write_cfg(MapperConfig("a\nb", "c", (InputGroup("l"),)))


def model(mean: tuple[float, ...], scale: tuple[float, ...], colour: str = "bgr") -> Model:
    declared = Input("input", colour, mean, scale)  # type: ignore[arg-type]
    return Model("m", "t", "n", "l", {"64": (64, 64)}, declared, ("loc",))


@pytest.mark.parametrize(
    ("mean", "scale", "norm_type", "data_scale", "mean_file"),
    [
        ((0, 0, 0), (1, 1, 1), 0, 1 / 256, "null"),
        ((104, 117, 123), (1, 1, 1), 2, 1 / 256, "mean.txt"),
        ((0, 0, 0), (1 / 255,) * 3, 3, 1 / 255, "null"),
        ((127, 127, 127), (1 / 128,) * 3, 5, 1 / 128, "mean.txt"),
    ],
)
def test_preprocessing_becomes_a_norm_type(mean, scale, norm_type, data_scale, mean_file) -> None:
    config = cfg_for(model(mean, scale), load_settings("nowhere"), 8, CfgPaths(instruction="x"))
    (group,) = config.inputs
    assert (group.norm_type, config.data_scale, group.mean_file) == (norm_type, data_scale, mean_file)
    assert group.image_type == 1 and config.compile_mode == 0 and config.instruction_name == "x"
    assert parse_cfg(write_cfg(config)) == config


def test_the_mean_file_is_in_the_networks_channel_order() -> None:
    assert mean_text(model((104, 117, 123), (1, 1, 1)).input) == "104.0\n117.0\n123.0\n"
    assert mean_text(model((0, 0, 0), (1, 1, 1)).input) is None


def test_colour_precision_and_settings_reach_the_cfg() -> None:
    settings = settings_from({"cfg": {"internal_stride": 32, "batch_num": 4}})
    config = cfg_for(model((0, 0, 0), (1, 1, 1), "rgb"), settings, 16)
    assert (config.RGB_order, config.compile_mode) == ("RGB", 1)
    assert (config.internal_stride, config.batch_num) == (32, 4)
    forced = replace(settings, cfg=replace(settings.cfg, rgb_order="BGR"))
    assert cfg_for(model((0, 0, 0), (1, 1, 1), "rgb"), forced, 16).RGB_order == "BGR"


def test_what_a_cfg_has_no_form_for() -> None:
    with pytest.raises(KilnError, match="one data_scale"):
        cfg_for(model((0, 0, 0), (1, 0.5, 1)), load_settings("nowhere"), 8)
    with pytest.raises(KilnError, match="8 or 16"):
        cfg_for(model((0, 0, 0), (1, 1, 1)), load_settings("nowhere"), 4)
