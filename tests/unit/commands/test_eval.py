"""`facekiln eval wider` and `voc` as a user runs them: 183 WIDER FACE pictures, and drawn scenes."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from facekiln.cli import main
from facekiln.config import load_config
from facekiln.data.declared import load_datasets, open_dataset
from facekiln.errors import KilnError
from facekiln.evaluation.rule_inputs import PrecisionTargets
from facekiln.evaluation.stamp import read_evaluation
from facekiln.evaluation.tables import one_protocol
from facekiln.evaluation.wider_truth import Truth, read_truth
from facekiln.predictions.store import Predictions, read_predictions, write_predictions

SUBSET = "wider/subset183/ground_truth"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def result_files(truth: Truth, folder: Path) -> Path:
    """Every box of the ground truth, scores falling within a picture."""
    for at, name in enumerate(truth.images):
        boxes = truth.boxes[:, truth.starts[at] : truth.starts[at + 1]].T
        rows = [" ".join(map(str, [*map(int, box), 0.9 - n / 1024])) for n, box in enumerate(boxes.tolist())]
        path = folder / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([path.stem, str(len(rows)), *rows]) + "\n")
    return folder


def test_the_block_the_protocol_and_the_figures(
    data: Callable[[str], Path], tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_truth(data(SUBSET), cache)
    folder = result_files(truth, tmp_path / "found")
    options = ["--truth", str(data(SUBSET)), "--cache", str(cache), "--json", str(tmp_path / "ap.json")]
    arguments = ["eval", "wider", str(folder), *options, "--curves", str(tmp_path / "ap.npz")]
    assert main([*arguments, "--per-event", "--protocol", "matlab"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:2] == ["event", "detections"] and printed[1].startswith("0--Parade ")
    assert len(printed) == 1 + 61 + 6
    assert printed[62] == "==================== Results ====================" and printed[66] == "=" * 49
    assert [line.split(":")[0] for line in printed[63:66]] == [
        "Easy   Val AP",
        "Medium Val AP",
        "Hard   Val AP",
    ]
    assert printed[67].startswith("protocol: matlab; 1679 detections, 183 pictures, easy 392,")
    written = json.loads((tmp_path / "ap.json").read_text())
    assert written["protocol"] == "matlab" and written["faces"] == {"easy": 392, "medium": 726, "hard": 1427}
    assert float(printed[63].split(": ")[1]) == written["ap"]["easy"] > 0.9
    with np.load(tmp_path / "ap.npz") as curves:
        assert curves["settings"].tolist() == ["easy", "medium", "hard"]
        assert curves["recall"].shape == curves["precision"].shape == curves["found"].shape == (3, 1000)
        assert curves["recall"][2, -1] == written["found"]["hard"] / 1427
    assert main(arguments) == 0
    assert "protocol: port;" in capsys.readouterr().out


def test_nothing_heavy_is_imported(data: Callable[[str], Path], tmp_path: Path, cache: Path) -> None:
    folder = result_files(read_truth(data(SUBSET), cache), tmp_path / "found")
    code = (
        "import sys; from facekiln.cli import main; "
        f"status = main(['eval', 'wider', {str(folder)!r}, '--truth', {str(data(SUBSET))!r}, "
        f"'--cache', {str(cache)!r}]); "
        "heavy = {'torch', 'cv2', 'jsonschema', 'matplotlib', 'scipy', 'yaml', 'tqdm', 'pyarrow', 'onnx'}; "
        "print(status, sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{found}"], "the ground truth is not named"),
        (["{found}", "--truth", "{found}"], "wider_face_val.mat: is not here"),
        (["{found}/none", "--truth", "{truth}"], "is not here"),
        (["{found}", "--truth", "{truth}", "--output", "x.json"], "--dataset NAME"),
        (["{found}", "--dataset", "procedual"], "did you mean 'procedural'"),
        (["{found}", "--dataset", "procedural"], "is no WIDER FACE validation set"),
    ],
)
def test_wrong_arguments(
    data: Callable[[str], Path],
    root: Path,
    tmp_path: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "found").mkdir()
    filled = [word.format(found=tmp_path / "found", truth=data(SUBSET)) for word in arguments]
    assert main(["eval", "wider", *filled, "--cache", str(cache), "--config", str(root / "config")]) == 1
    assert message in capsys.readouterr().err


# ---- predictions of ours


def described(dataset: str, digest: str, images: int) -> dict[str, Any]:
    return {
        "model": "retinaface",
        "artifact": "onnx/retinaface_640.sim.onnx",
        "artifact_sha256": "0" * 64,
        "precision": "float",
        "backend": "onnxruntime",
        "backend_version": "1",
        "emulated": False,
        "dataset": dataset,
        "dataset_digest": digest,
        "images": images,
        "resize": "letterbox",
        "interpolation": "auto",
        "size": [640, 640],
        "score_threshold": 0.02,
        "nms_iou": 0.4,
        "top_k": 5000,
        "keep": 750,
        "extent": 1,
        "nms_epsilon": 0.0,
    }


def predict_truth(config: Path, name: str, folder: Path) -> Path:
    """Write predictions that find every annotated face of a declared dataset, by falling score."""
    declared = load_datasets(config)[name]
    dataset = open_dataset(declared)
    boxes = [sample.boxes for sample in dataset]
    counts = np.array([len(rows) for rows in boxes], np.int64)
    scores = np.concatenate([np.linspace(0.9, 0.5, n) for n in counts])
    predictions = Predictions(
        tuple(dataset.sources),
        counts,
        np.concatenate(boxes).astype(np.float32),
        scores.astype(np.float32),
        None,
        None,
        described(name, declared.digest(), len(dataset)),
    )
    write_predictions(folder, predictions)
    return folder


@pytest.fixture
def subset(root: Path, data: Callable[[str], Path], tmp_path: Path) -> Path:
    """The shipped config, whose datasets.yaml declares the sample of 183 pictures, and few drawn scenes."""
    face = data(SUBSET) / "wider_face_val.mat"
    entry = {
        "kind": "wider_mat",
        "licence": "research only",
        "folder": str(data("wider")),
        "images": "images",
        "annotations": [
            {
                "path": "subset183/ground_truth/wider_face_val.mat",
                "sha256": hashlib.sha256(face.read_bytes()).hexdigest(),
            }
        ],
        "expected": {"images": 183, "faces": 1679, "folders": 61},
    }
    drawn = {
        "kind": "procedural",
        "licence": "drawn",
        "expected": {"images": 3},
        "options": {"purpose": "dataset", "seed": 1, "size": [120, 160]},
    }
    folder = tmp_path / "config"
    shutil.copytree(root / "config", folder)
    (folder / "datasets.yaml").write_text(
        yaml.safe_dump({"root": None, "datasets": {"subset183": entry, "drawn": drawn}})
    )
    return folder


def test_a_record_of_predictions(
    subset: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = predict_truth(subset, "subset183", tmp_path / "subset183")
    output = tmp_path / "port.json"
    arguments = ["eval", "wider", str(folder), "--config", str(subset), "--cache", str(cache)]
    assert main([*arguments, "--output", str(output), "--boxes", "truncate"]) == 0
    record = read_evaluation(output)
    assert record.stamp.evaluator == "port" and record.stamp.boxes == "truncate"
    assert record.stamp.dataset == "subset183" and record.stamp.images == 183
    assert set(record.results) == {"easy", "medium", "hard"} and record.results["easy"] > 0.9
    assert record.details["faces"] == {"easy": 392, "medium": 726, "hard": 1427}
    assert main([*arguments, "--output", str(output), "--protocol", "octave"]) == 0
    assert read_evaluation(output).stamp.id() != record.stamp.id()
    # The dataset is declared anew: figures of before are no figures of now.
    datasets = subset / "datasets.yaml"
    datasets.write_text(datasets.read_text().replace("faces: 1679", "faces: 1678"))
    assert main([*arguments, "--output", str(output)]) == 1
    assert "as it was declared then" in capsys.readouterr().err
    assert (
        main(["eval", "wider", str(tmp_path), "--dataset", "subset183", *arguments[3:], "--output", "x"]) == 1
    )
    assert "no folder of predictions of ours" in capsys.readouterr().err


def test_another_ground_truth_than_declared(
    subset: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = subset / "datasets.yaml"
    text = datasets.read_text()
    start = text.index("sha256: ") + 8
    datasets.write_text(text[:start] + "'" + "0" * 64 + "'" + text[start + 64 :])
    arguments = ["eval", "wider", str(tmp_path), "--dataset", "subset183", "--config", str(subset)]
    assert main([*arguments, "--cache", str(cache)]) == 1
    assert "is not what dataset 'subset183' declares" in capsys.readouterr().err


def test_voc_on_drawn_scenes(subset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = predict_truth(subset, "drawn", tmp_path / "drawn")
    output, curves = tmp_path / "voc.json", tmp_path / "voc.curves.npz"
    arguments = ["eval", "voc", str(folder), "--config", str(subset)]
    assert main([*arguments, "--output", str(output), "--curves", str(curves)]) == 0
    assert capsys.readouterr().out.startswith("AP at IoU 0.5: 1.000000 (")
    record = read_evaluation(output)
    assert record.results == {"ap": 1.0} and record.stamp.settings == "IoU 0.5"
    with np.load(curves) as stored:
        assert stored["recall"][-1] == 1 and (stored["precision"] == 1).all()
        assert (np.diff(stored["scores"]) <= 0).all()
    assert main([*arguments, "--iou", "1.5"]) == 1
    assert "above 0, at most 1" in capsys.readouterr().err


def test_voc_wants_all_pictures(subset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declared = load_datasets(subset)["drawn"]
    meta = described("drawn", declared.digest(), 1)
    none = np.zeros(0, np.float32)
    first = open_dataset(declared).sources[:1]
    write_predictions(
        tmp_path / "part",
        Predictions(tuple(first), np.zeros(1, np.int64), none.reshape(0, 4), none, None, None, meta),
    )
    assert main(["eval", "voc", str(tmp_path / "part"), "--config", str(subset)]) == 1
    assert "predictions of 1 pictures, and none of 2 of dataset 'drawn'" in capsys.readouterr().err


def change(folder: Path, **arrays: Any) -> None:
    """Write predictions anew with other arrays or, as `meta`, more to say about them."""
    stored = read_predictions(folder)
    meta = stored.meta | arrays.pop("meta", {})
    write_predictions(folder, replace(stored, **arrays, meta=meta))


def test_all_four_files_are_in_the_stamp(
    subset: Path, data: Callable[[str], Path], tmp_path: Path, cache: Path
) -> None:
    """Only wider_face_val.mat is declared; the other three say which faces count."""
    mine = tmp_path / "wider" / "subset183" / "ground_truth"
    shutil.copytree(data(SUBSET), mine)
    datasets = subset / "datasets.yaml"
    datasets.write_text(datasets.read_text().replace(str(data("wider")), str(tmp_path / "wider")))
    folder = predict_truth(subset, "subset183", tmp_path / "found")
    arguments = ["eval", "wider", str(folder), "--config", str(subset), "--cache", str(cache)]
    targets = PrecisionTargets(load_config(subset), subset)
    asked = SimpleNamespace(evaluator="port", backend="onnxruntime", artifact="x.onnx", dataset="subset183")
    triggers = []
    for name in ("first", "second"):
        assert main([*arguments, "--output", str(tmp_path / f"{name}.json")]) == 0
        triggers.append(targets.truth(asked))
        (mine / "wider_hard_val.mat").chmod(0o644)
        shutil.copyfile(mine / "wider_easy_val.mat", mine / "wider_hard_val.mat")
    first, second = (read_evaluation(tmp_path / f"{name}.json") for name in ("first", "second"))
    assert [record.details["faces"]["hard"] for record in (first, second)] == [1427, 392]
    assert set(first.stamp.differences(second.stamp)) == {"truth"}
    assert [first.stamp.truth, second.stamp.truth] == triggers
    with pytest.raises(KilnError, match=r"two protocols.*truth"):
        one_protocol([first, second])
    (mine / "wider_easy_val.mat").unlink()
    assert targets.truth(asked) == ""
    assert targets.truth(SimpleNamespace(**vars(asked) | {"dataset": "drawn"})) == ""


@pytest.mark.parametrize("verb", ["wider", "voc"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("array", ["scores", "boxes"])
def test_what_is_no_number_is_refused_with_its_picture(
    subset: Path,
    tmp_path: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    value: float,
    array: str,
) -> None:
    folder = predict_truth(subset, "subset183", tmp_path / "found")
    stored = read_predictions(folder)
    picture = int(np.flatnonzero(stored.counts > 1)[3])
    values = getattr(stored, array).copy()
    values[stored.starts[picture] + 1] = value
    change(folder, **{array: values})
    arguments = ["eval", verb, str(folder), "--config", str(subset), "--output", str(tmp_path / "x.json")]
    assert main([*arguments, *(["--cache", str(cache)] if verb == "wider" else [])]) == 1
    told = capsys.readouterr().err
    column = "score" if array == "scores" else "x"
    assert f"{stored.images[picture]}: detection 2, {column}: is no finite number" in told
    assert "next step" in told and not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    ("entry", "rule"), [("ulfd", "floor_ceil"), ("1mb_640", "truncate"), ("default", "float")]
)
def test_boxes_are_written_as_the_rule_writes_them(
    subset: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str], entry: str, rule: str
) -> None:
    """By hand as in the workflow: by the inference entry that made the predictions."""
    for verb, dataset in (("wider", "subset183"), ("voc", "drawn")):
        folder, output = predict_truth(subset, dataset, tmp_path / dataset), tmp_path / "record.json"
        change(folder, meta={"inference": entry})
        arguments = ["eval", verb, str(folder), "--config", str(subset), "--output", str(output)]
        arguments += ["--cache", str(cache)] if verb == "wider" else []
        assert main(arguments) == 0
        assert f"boxes: {rule}, config.yaml's for inference entry '{entry}'" in capsys.readouterr().out
        assert read_evaluation(output).stamp.boxes == rule
        assert main([*arguments, "--boxes", "truncate"]) == 0
        assert "boxes: truncate, as told" in capsys.readouterr().out
        assert read_evaluation(output).stamp.boxes == "truncate"
        change(folder, meta={"inference": "ulfdd"})
        assert main(arguments) == 1
        told = capsys.readouterr().err
        assert "did you mean 'ulfd'" in told and "--boxes float|truncate|floor_ceil" in told


@pytest.mark.parametrize("verb", ["wider", "voc", "landmarks"])
@pytest.mark.parametrize("kind", ["none", "empty", "other", "unknown dataset", "no dataset"])
def test_every_refusal_has_a_file_and_a_next_step(
    subset: Path,
    data: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    kind: str,
) -> None:
    folder, more = tmp_path / "found", ["--dataset", "subset183"]
    wanted = [str(folder), "next step: "]
    if kind == "none":
        wanted.append("is not here")
    elif kind == "empty":
        folder.mkdir()
        wanted.append("is an empty folder")
    elif kind == "other":
        folder.mkdir()
        (folder / "readme.txt").write_text("hello")
        wanted.append("is no folder of")
    elif kind == "unknown dataset":
        predict_truth(subset, "drawn", folder)
        more = ["--dataset", "drawing"]
        wanted = [
            str(subset / "datasets.yaml"),
            "did you mean 'drawn'?",
            "facekiln dataset declare",
            "next step: ",
        ]
    else:
        predict_truth(subset, "drawn", folder)
        (folder / "predictions.json").write_text("{}")
        more = []
        wanted += ["predictions.json", "is no description of predictions", "predict again"]
    more += ["--no-cache"] if verb == "wider" else []
    assert main(["eval", verb, str(folder), "--config", str(subset), *more]) == 1
    told = capsys.readouterr().err
    assert all(word in told for word in wanted), told


# ---- what the rules ask


def test_rules_ask_for_predictions_and_box_rules(root: Path) -> None:
    targets = PrecisionTargets(load_config(root / "config"), root / "config")

    def wildcards(dataset: str, evaluator: str = "port") -> Any:
        artifact = "onnx/slim_320.onnx"
        return SimpleNamespace(evaluator=evaluator, backend="onnxruntime", artifact=artifact, dataset=dataset)

    folder = "results/predictions/onnxruntime/onnx/slim_320.onnx"
    assert targets.wider(wildcards("wider_val@1mb_640")) == f"{folder}/wider_val@1mb_640"
    assert targets.voc(wildcards("procedural", "voc")) == f"{folder}/procedural"
    rules = [
        targets.box_rule(wildcards(name)) for name in ("wider_val", "wider_val@1mb_640", "wider_val@ulfd")
    ]
    assert rules == ["float", "truncate", "floor_ceil"]
    with pytest.raises(KilnError, match=r"(?s)'procedural' is not.*results/eval/voc/onnxruntime"):
        targets.wider(wildcards("procedural"))
    with pytest.raises(KilnError, match="did you mean 'wider_val'"):
        targets.wider(wildcards("wider_vall"))
    assert targets.digest(wildcards("wider_val")) == targets.digest(wildcards("wider_val@ulfd"))
