"""Names of artifacts: what they are made from, and what a wrong one is told."""

import os
import re
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from facekiln.config import load_config, load_recipe
from facekiln.errors import KilnError
from facekiln.targets import PARENTS, Targets, matching, model_and_size_of, unclaimed


@pytest.fixture(scope="module")
def targets(root: Path) -> Targets:
    return Targets(load_config(root / "config"))


def test_names_are_taken_apart() -> None:
    assert matching("nnie/{model}_{size}.wk", "nnie/retinaface_1mb_640.wk") == {
        "model": "retinaface_1mb",
        "size": "640",
    }
    assert matching("nnie/{model}_{size}.wk", "nnie/retinaface_640_int16.wk") is None
    assert matching("nnie/{model}_{size}.wk", "nnie/retinaface_640_wk") is None
    assert matching("m/{model}_{size}_{batch}b.mm", "m/pfpld_112_1-8b.mm") == {
        "model": "pfpld",
        "size": "112",
        "batch": "1-8",
    }


def test_every_pattern_matches_only_itself() -> None:
    for pattern in PARENTS:
        names = {"model": "retinaface", "size": "640", "chip": "bm1688", "precision": "int8"}
        path = pattern.format(**names, batch="4", cores="2")
        assert [other for other in PARENTS if matching(other, path)] == [pattern]


def test_parent_of_an_artifact(targets: Targets) -> None:
    assert targets.parent_of("nnie/retinaface_640_int16.wk") == "results/caffe/retinaface_640.caffemodel"
    assert targets.parent_of("onnx/retinaface_640.sim.onnx") == "results/onnx/retinaface_640.onnx"


def test_artifact_without_a_parent_is_told_which_have_one(targets: Targets) -> None:
    with pytest.raises(KilnError, match=r"has no parent.*\n.*compare one of: torchscript"):
        targets.parent_of("checkpoints/retinaface.pth")


def test_unknown_model_and_size_get_suggestions(targets: Targets) -> None:
    with pytest.raises(KilnError, match="did you mean 'retinaface'"):
        targets.checkpoint("retinafac", "640")
    with pytest.raises(KilnError, match=r"unknown size of model 'retinaface' '641'; did you mean '640'\?"):
        targets.checkpoint("retinaface", "641")


def test_a_number_that_is_unlike_all_others_gets_the_nearest(targets: Targets) -> None:
    with pytest.raises(KilnError, match=r"unknown size of model 'retinaface' '980'; did you mean '1024'\?"):
        targets.checkpoint("retinaface", "980")
    with pytest.raises(KilnError, match=r"not a multiple of 32(?s:.)*did you mean '768'"):
        targets.check_size_for_chip("nnie", "retinaface", "760")


def test_artifact_without_a_parent_gets_the_nearest_that_has_one(targets: Targets) -> None:
    with pytest.raises(
        KilnError, match=r"int8(?s:.)*did you mean 'results/parity/magicmind/retinaface_640_qint8_"
    ):
        targets.parent_of("magicmind/retinaface_640_int8_4b.mm")


def test_size_that_is_no_multiple_of_32_is_refused_with_the_reason(targets: Targets) -> None:
    with pytest.raises(
        KilnError, match=r"(?s)size 600 is not a multiple of 32.*Crop layer.*known sizes.*640"
    ):
        targets.check_size_for_chip("nnie", "retinaface", "600")
    targets.check_size_for_chip("nnie", "retinaface", "640")


@pytest.mark.parametrize(("model", "size"), [("ulfd_rfb_320", "320"), ("ghostone", "112"), ("pfpld", "112")])
def test_networks_that_upsample_nothing_take_any_size(targets: Targets, model: str, size: str) -> None:
    # 240x320 and 112x112 are no multiples of 32; nothing is cropped in these networks.
    targets.check_size_for_chip("nnie", model, size)
    with pytest.raises(KilnError, match="unknown size of model"):
        targets.check_size_for_chip("nnie", model, "100")


def test_a_synthetic_model_is_not_trained_on_photographs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    config = load_config("config")
    model = replace(config.models["retinaface"], recipe="retinaface_wider")
    wildcards = Namespace(model="retinaface")
    targets = Targets(replace(config, models={**config.models, "retinaface": model}))
    with pytest.raises(KilnError, match="unknown dataset 'wider_train'"):
        targets.audits_of(wildcards)
    recipe = load_recipe("retinaface_wider") | {"train": [{"dataset": "wider_val"}]}
    monkeypatch.setattr("facekiln.targets.load_recipe", lambda _: recipe)
    with pytest.raises(KilnError, match="say `weights: trained`"):
        targets.audits_of(wildcards)
    trained = replace(model, weights="trained")
    targets = Targets(replace(config, models={**config.models, "retinaface": trained}))
    assert targets.audits_of(wildcards) == ["results/datasets/wider_val/report.json"]


def test_audits_are_named_without_looking_at_the_datasets_files(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake asks for every rule that it looks at; a set of photographs has tens of thousands of files."""
    monkeypatch.chdir(root)
    monkeypatch.setenv("FACEKILN_DATASETS", str(tmp_path))
    annotation = tmp_path / "wider/ground_truth/wider_face_val.mat"
    picture = tmp_path / "wider/images/0--Parade/one.jpg"
    for path in (annotation, picture):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    looked: list[str] = []
    stat = os.stat

    def watched(path: Any, **options: Any) -> os.stat_result:
        looked.append(str(path))
        return stat(path, **options)

    config = load_config("config")
    model = replace(config.models["retinaface"], recipe="retinaface_wider", weights="trained")
    targets = Targets(replace(config, models={**config.models, "retinaface": model}))
    recipe = load_recipe("retinaface_wider") | {"train": [{"dataset": "wider_val"}]}
    monkeypatch.setattr("facekiln.targets.load_recipe", lambda _: recipe)
    monkeypatch.setattr(os, "stat", watched)
    audits = targets.audits_of(Namespace(model="retinaface"))
    seen_for_audits = [path for path in looked if path.startswith(str(tmp_path))]
    targets.dataset_digest("wider_val")
    monkeypatch.undo()
    assert audits == ["results/datasets/wider_val/report.json"] and seen_for_audits == []
    assert {str(annotation), str(picture)} <= set(looked), "the watch sees what a digest looks at"


def test_models_with_no_weights_of_a_kind_match_nothing(targets: Targets) -> None:
    assert not re.fullmatch(targets.models_with("local"), "retinaface")
    assert re.fullmatch(targets.models_with("synthetic"), "retinaface")


OUTPUTS = [r"results/nnie/{model,\w+}_{size,\d+}{precision,|_int16}.wk", r"results/checkpoints/{model}.pth"]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (
            "nnei/retinaface_640.wk",
            "unknown folder in results/, 'nnei'; did you mean 'nnie'?",
        ),
        ("nnie/retinaface.wk", "names in results/nnie/ are: nnie/{model}_{size}{precision}.wk;"),
        ("nnie/retinaface_640_in16.wk", "did you mean 'results/nnie/retinaface_640_int16.wk'? names in"),
        ("checkpoints/retinafac.pth", "unknown model 'retinafac'; did you mean 'retinaface'?"),
    ],
)
def test_target_that_no_rule_makes_gets_the_nearest(targets: Targets, path: str, answer: str) -> None:
    with pytest.raises(KilnError) as refused:
        targets.refuse_unknown(path, OUTPUTS)
    assert answer in str(refused.value)


def test_an_unknown_evaluator_is_told_which_there_are(targets: Targets) -> None:
    outputs = [
        "results/eval/{evaluator,port|matlab}/{backend}/{artifact}/{dataset}.json",
        "results/eval/{evaluator,voc}/{backend}/{artifact}/{dataset}.json",
        "results/eval/nme/{backend}/{artifact}/{dataset}.json",
    ]
    with pytest.raises(KilnError) as error:
        targets.refuse_unknown("eval/wider/onnxruntime/onnx/retinaface_640.onnx/procedural.json", outputs)
    message = str(error.value)
    assert "did you mean" not in message
    assert "eval/{port|matlab}/{backend}" in message
    assert "eval/voc/{backend}" in message


def test_unclaimed_is_what_no_output_matches() -> None:
    free = re.compile(
        unclaimed([r"results/nnie/(?P<model>\w+)_(?P<size>\d+)\.wk$", r"results/onnx/(?P<m>\w+)$"])
    )
    assert not free.fullmatch("nnie/a_1.wk")
    assert not free.fullmatch("onnx/a")
    assert free.fullmatch("nnie/a.wk")
    assert free.fullmatch("nnie/a_1.wk.more")


def test_model_born_as_onnx_has_no_checkpoint_and_its_onnx_no_parent(targets: Targets) -> None:
    assert re.fullmatch(targets.models_born_as("onnx"), "ghostone")
    assert not re.fullmatch(targets.models_born_as("checkpoint"), "ghostone")
    with pytest.raises(KilnError, match=r"born: is born as onnx: it has no checkpoint"):
        targets.checkpoint("ghostone")
    with pytest.raises(KilnError, match="it has no checkpoint"):
        targets.parent_of("onnx/ghostone_112.onnx")
    assert targets.parent_of("onnx/ghostone_112.sim.onnx") == "results/onnx/ghostone_112.onnx"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("results/sophon/bm1684x/ulfd_slim_320_320_int8_1b.bmodel", ("ulfd_slim_320", "320")),
        ("results/sophon/bm1688/retinaface_640_fp32_4b_2core.bmodel", ("retinaface", "640")),
        ("retinaface_640.sim.onnx", ("retinaface", "640")),
        ("results/tengine/ulfd_rfb_640_640_uint8.tmfile", ("ulfd_rfb_640", "640")),
    ],
)
def test_model_and_size_are_told_by_the_name(root: Path, path: str, expected: tuple[str, str]) -> None:
    assert model_and_size_of(path, load_config(root / "config")) == expected


def test_parent_of_a_bmodel_is_the_simplified_graph(targets: Targets) -> None:
    for name in ("bm1684/retinaface_640_int8_4b", "bm1688/retinaface_640_fp16_1b_2core"):
        assert targets.parent_of(f"sophon/{name}.bmodel") == "results/onnx/retinaface_640.sim.onnx"


def test_a_wrong_bmodel_name_gets_the_nearest_model(targets: Targets) -> None:
    outputs = [
        r"results/sophon/{chip,\w+}/{model}_{size}_{precision,\w+}_{batch,\d+}b{cores,|_\d+core}.bmodel"
    ]
    with pytest.raises(KilnError, match="names in results/sophon/ are: sophon/"):
        targets.refuse_unknown("sophon/bm1684/retinaface_640_fp32.bmodel", outputs)
