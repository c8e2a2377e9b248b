"""What makes SOPHON's artifacts again and what does not: files are pretended, and noted as made."""

from pathlib import Path

import pytest
import yaml

from facekiln.chips.sophon.environment import lock_of
from support.checkout import Checkout, copy_checkout

QTABLES = (
    "results/sophon/calibration/bm1684x/tiny_64_1b.qtable",
    "results/sophon/calibration/bm1684/tiny_64_1b.qtable",
    "results/sophon/calibration/bm1684x/tiny_96_1b.qtable",
    "results/sophon/calibration/bm1684x/small_64_1b.qtable",
)
WANTED = (
    "results/sophon/bm1684x/tiny_64_int8_1b.twin/final.mlir",
    "results/parity/sophon/bm1684x/tiny_64_int8_1b.bmodel.json",
    "results/predictions/sophon-twin/sophon/bm1684x/tiny_64_int8_1b.bmodel/procedural",
)


def made_at(folder: Path) -> Path:
    """A folder of toolchains in which the environment is made, as far as Snakemake looks."""
    folder.mkdir()
    (folder / f"sophon-{lock_of()}.ready").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = copy_checkout(root, tmp_path_factory.mktemp("reruns"))
    models = checkout.folder / "config/models"
    (models / "small.yaml").write_text((models / "tiny.yaml").read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEKILN_TOOLCHAINS", str(made_at(checkout.folder / "first")))
        checkout.pretend(*WANTED, *QTABLES)
        done = checkout.snakemake("-n", "--", *WANTED, *QTABLES)
        assert "missing provenance" not in done.stdout + done.stderr
    return checkout


def test_a_moved_folder_of_toolchains_makes_nothing_again(
    built: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEKILN_TOOLCHAINS", str(made_at(tmp_path / "second")))
    assert built.planned(*WANTED) == {}
    # Nor does one where the tools are still to be made: they are when a job wants them.
    monkeypatch.setenv("FACEKILN_TOOLCHAINS", str(tmp_path / "third"))
    assert built.planned(*WANTED) == {}


def test_another_lock_makes_everything_of_the_tools_again(
    built: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEKILN_TOOLCHAINS", str(built.folder / "first"))
    assert built.planned(*WANTED) == {}
    requirements = built.folder / "envs/sophon.txt"
    before = requirements.read_text()
    requirements.write_text(before + "# another lock\n")
    try:
        jobs = built.planned(*WANTED)
    finally:
        requirements.write_text(before)
    assert {"make_sophon_environment", "transform_sophon", "calibrate_sophon"} <= jobs.keys()
    assert {"compile_sophon", "twin_sophon", "compare_stages", "predict_shard"} <= jobs.keys()
    assert not {"simplify_onnx", "make_calibration"} & jobs.keys()


def test_tools_are_made_for_a_plan_of_theirs_and_not_for_ours(
    built: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the search reads is there, but nothing on this machine has needed the tools yet."""
    monkeypatch.setenv("FACEKILN_TOOLCHAINS", str(tmp_path / "none"))
    plan = QTABLES[0]
    settings = built.folder / "config/chips/sophon.yaml"
    before = settings.read_text()
    try:
        built.edit_yaml("config/chips/sophon.yaml", mixed={"most_layers": 0, "keep_float": {}})
        assert built.planned(plan) == {"plan_sophon": 1}
        built.edit_yaml("config/chips/sophon.yaml", mixed={"by": "tool:fast_search"})
        jobs = built.planned(plan)
        assert jobs["plan_sophon"] == jobs["make_sophon_environment"] == 1
    finally:
        settings.write_text(before)


def test_a_list_of_one_model_makes_its_files_of_that_chip_again(
    built: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEKILN_TOOLCHAINS", str(built.folder / "first"))
    settings = built.folder / "config/chips/sophon.yaml"
    before = settings.read_text()
    mixed = yaml.safe_load(before)["mixed"]
    try:
        own = {"small": {"keep_float": {"bm1684x": ["heads"]}}}
        built.edit_yaml("config/chips/sophon.yaml", mixed={**mixed, "models": own})
        assert built.planned(*QTABLES) == {"plan_sophon": 1}
        assert built.planned(*WANTED, *QTABLES[:3]) == {}
        built.edit_yaml("config/chips/sophon.yaml", mixed={**mixed, "models": {"smal": own["small"]}})
        done = built.snakemake("-n", "--", QTABLES[0], check=False)
        assert "mixed.models: unknown model 'smal'; did you mean 'small'?" in done.stdout + done.stderr
    finally:
        settings.write_text(before)
