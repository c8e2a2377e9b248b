"""Gates that run an artifact, or compare what two pipelines predicted with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekiln.artifact import sha256_of
from facekiln.config import Config, Model
from facekiln.data.procedural import Style, draw_scene, scene_seed
from facekiln.errors import KilnError
from facekiln.evaluation.gates import Verdict, skipped
from facekiln.evaluation.pipelines import judge_points, with_worst
from facekiln.evaluation.weights import weights_used
from facekiln.parity.agreement import agreement
from facekiln.parity.executors import Picture, Stage, open_stage
from facekiln.parity.gates import judge_faces
from facekiln.parity.measure import measure
from facekiln.parity.measure import worst as worst_measure
from facekiln.predictions.names import backend_for
from facekiln.predictions.store import Predictions
from facekiln.progress import log
from facekiln.targets import RESULTS
from facekiln.verdict import FAILED, at_least, at_most, worst
from facekiln.vision.detect import Faces, faces_from_outputs
from facekiln.vision.nms import best_pairs
from facekiln.vision.preprocess import fit, to_tensor

# Frontal faces of a quarter to a half of the picture: what detectors find, trained on photographs or here.
GOLDEN_STYLE = Style(
    face_size=(90.0, 260.0), most_faces=4, empty=0.0, truncated=0.0, max_yaw=0.35, max_pitch=0.2, max_roll=0.2
)
_GOLDEN_SIZE = (480, 640)
_PICTURES = {".jpg", ".jpeg", ".png", ".bmp"}


def gate_golden(path: Path, model: Model, label: str, config: Config, *, subject: str) -> Verdict:
    """Look for faces where faces are known to be, in seconds, before any long run.

    The model's own `golden:` picture is taken where its published weights are used and the mirror holds the
    picture; else scenes with large drawn faces, which networks trained on photographs find as well.

    Args:
        path: the artifact, of any kind that runs here.
        model: its model.
        label: its size's label.
        config: limits (`gates.golden`), mirror, and the kind of weights where no checkpoint here tells it.
        subject: the artifact's name in the verdict.

    Raises:
        KilnError: the artifact cannot be run.
    """
    if model.priors is None:
        return skipped("golden", subject, f"'{model.name}' is a landmark model: it finds no faces")
    stage = open_stage(path, model, config)
    picture = _golden_picture(model, config)
    if picture is not None and model.golden:
        return _on_golden(stage, picture, model, label, subject)
    return _on_scenes(stage, model, label, config.gates["golden"], subject)


def _golden_picture(model: Model, config: Config) -> Picture | None:
    if not model.golden or not config.mirror:
        return None
    if weights_used(model.name, config, Path(RESULTS)) != "published":
        return None
    from facekiln.vision.image import read_image

    for path in sorted(Path(config.mirror).rglob("*")):
        if path.suffix.lower() in _PICTURES and sha256_of(path) == model.golden.sha256:
            return read_image(path)
    log.info("the golden picture of '%s' is not in the mirror; drawn scenes are taken", model.name)
    return None


def _faces(stage: Stage, picture: Picture, model: Model, label: str) -> Faces:
    fitted, back = fit(picture, model.size(label), model.input.resize)
    return back.back(faces_from_outputs(stage.run(fitted), model, model.size(label)))


def _on_golden(stage: Stage, picture: Picture, model: Model, label: str, subject: str) -> Verdict:
    assert model.golden is not None
    least, most = model.golden.faces
    count = len(_faces(stage, picture, model, label))
    verdict = worst([at_least(count, least), at_most(count, most)])
    return Verdict(
        gate="golden",
        subject=subject,
        verdict=verdict,
        value=float(count),
        limit=float(least if count < least else most),
        reason=f"{count} faces in the model's golden picture, {least} to {most} expected",
        emulated=stage.emulated,
        details={"picture": model.golden.sha256},
    )


def _on_scenes(stage: Stage, model: Model, label: str, limits: dict[str, Any], subject: str) -> Verdict:
    drawn = found = detected = 0
    for index in range(limits["scenes"]):
        scene = draw_scene(scene_seed("golden", limits["seed"], index), _GOLDEN_SIZE, GOLDEN_STYLE)
        faces = _faces(stage, scene.image, model, label)
        drawn += len(scene.faces)
        detected += len(faces)
        found += sum(1 for _ in best_pairs(scene.boxes(), faces.boxes.astype(np.float64), 0.5))
    if not drawn:
        return skipped("golden", subject, f"{limits['scenes']} drawn scenes have no face in them")
    share = found / drawn
    return Verdict(
        gate="golden",
        subject=subject,
        verdict=at_least(share, limits["stop"], limits["warn"]),
        value=share,
        limit=float(limits["stop"]),
        reason=f"{found} of {drawn} large drawn faces found, {detected} detections",
        emulated=stage.emulated,
        details={"drawn": drawn, "found": found, "detections": detected},
    )


def gate_batch(path: Path, model: Model, label: str, config: Config, *, subject: str) -> Verdict:
    """Compare outputs of N pictures in one batch with those of the same pictures one by one.

    Args:
        path: a checkpoint (.pth), TorchScript (.pt) or ONNX file; an ONNX file that declares a batch of 1
            is skipped, and so is a chip's or Caffe's file, which always has one.
        model: its model.
        label: its size's label.
        config: `gates.batch`: how many pictures, and the most difference as a share of an output's scale.
        subject: the artifact's name in the verdict.

    Raises:
        KilnError: the artifact cannot be opened, is of no kind that runs here, or fails on one picture too.
    """
    limits = config.gates["batch"]
    run = _batch_runner(path, model, config)
    if isinstance(run, str):
        return skipped("batch", subject, run)
    size, count = model.size(label), int(limits["count"])
    pictures = [draw_scene(scene_seed("batch", 0, index), size).image for index in range(count)]
    tensors = [to_tensor(picture, model.input) for picture in pictures]

    def failed(reason: str) -> Verdict:
        limit = float(limits["max_rel"])
        return Verdict("batch", subject, FAILED, None, limit, f"batch {count}: {reason}"[:300])

    try:
        alone = [run(tensor) for tensor in tensors]
    except Exception as error:  # ONNX Runtime's and torch's own share no narrower type
        raise KilnError(f"fails on one picture: {_first_line(error)}", file=path) from error
    try:
        together = run(np.concatenate(tensors))
    except Exception as error:  # it declares no fixed batch, so whatever it cannot do with one is its fault
        return failed(_first_line(error))
    differences = []
    for output, whole in enumerate(together):
        single = np.concatenate([outputs[output] for outputs in alone])
        if whole.shape != single.shape:
            return failed(f"output {output} is {list(whole.shape)}, one by one {list(single.shape)}")
        differences.append(measure(single, whole))
    figure = worst_measure(differences).max_rel
    return Verdict(
        gate="batch",
        subject=subject,
        verdict=at_most(figure, limits["max_rel"]),
        value=figure,
        limit=float(limits["max_rel"]),
        reason=f"batch {count} against {count} times batch 1: max error {figure:.2e} of scale",
    )


def _first_line(error: Exception) -> str:
    """Return the first line that says something, behind its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _batch_runner(path: Path, model: Model, config: Config) -> Any:
    """Return a function from [N,3,H,W] to the list of outputs, or why there is none."""
    if path.suffix in (".pth", ".tar", ".pt"):
        import torch

        if path.suffix == ".pt":
            try:
                network = torch.jit.load(str(path), map_location="cpu").eval()
            except (RuntimeError, ValueError) as error:
                raise KilnError(
                    "is not a TorchScript archive", file=path, hint="rebuild it with its rule"
                ) from error
        else:
            from facekiln.models.checkpoint import load_network

            network = load_network(path, model, config)

        def run_torch(tensor: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            with torch.inference_mode():
                outputs = network(torch.from_numpy(tensor))
            return [value.numpy() for value in (outputs if isinstance(outputs, tuple) else (outputs,))]

        return run_torch
    if path.suffix == ".onnx":
        import onnxruntime

        from facekiln.graph.export import load_onnx

        try:
            session = onnxruntime.InferenceSession(
                load_onnx(path).SerializeToString(), providers=["CPUExecutionProvider"]
            )
        except KilnError:
            raise
        except Exception as error:  # ONNX Runtime's own share no narrower type
            raise KilnError(f"ONNX Runtime does not take it: {_first_line(error)}", file=path) from error
        entry = session.get_inputs()[0]
        if entry.shape[0] == 1:
            return "its batch is fixed at 1"

        def run_onnx(tensor: NDArray[np.float32]) -> list[NDArray[np.float32]]:
            return list(session.run(None, {entry.name: tensor}))

        return run_onnx
    backend_for(path)
    return f"a {path.suffix} file has a fixed batch of 1"


def gate_pipelines(host: Predictions, board: Predictions, limits: dict[str, float], score: float) -> Verdict:
    """Compare what two pipelines predicted with the same artifact, by faces.

    Args:
        host: the reference's predictions.
        board: the other's.
        limits: least `found`, most `invented`, least `mean_iou`; of landmark models most `points`.
        score: the score from which a face counts.

    Raises:
        KilnError: they are of two artifacts, datasets or sets of pictures, or by other thresholds.
    """
    same = (
        "artifact_sha256",
        "dataset_digest",
        "resize",
        "interpolation",
        "size",
        "score_threshold",
        "nms_iou",
        "nms_epsilon",
        "extent",
        "top_k",
        "keep",
    )
    for key in same:
        if host.meta.get(key) != board.meta.get(key):
            raise KilnError(
                f"the two predictions differ in '{key}', so their pipelines cannot be compared",
                value=board.meta.get(key),
                limit=host.meta.get(key),
                hint="predict both with the same artifact, dataset and settings",
            )
    if host.images != board.images:
        raise KilnError("the two predictions are of other pictures", value=len(board), limit=len(host))
    subject = f"{board.meta['artifact']} ({board.meta['backend']} against {host.meta['backend']})"
    emulated = bool(board.meta["emulated"])
    if host.meta["resize"] == "crop":
        return judge_points(host, board, limits, subject=subject, emulated=emulated)
    pairs = [(_as_faces(host.of(index)), _as_faces(board.of(index))) for index in range(len(host))]
    verdict = judge_pairs(pairs, limits, score, gate="pipelines", subject=subject, emulated=emulated)
    return with_worst(verdict, host, board, pairs, score)


def judge_pairs(
    pairs: list[tuple[Faces, Faces]],
    limits: dict[str, float],
    score: float,
    *,
    gate: str,
    subject: str,
    emulated: bool,
) -> Verdict:
    """Judge whether two pipelines find the same faces in every picture; skipped if the first finds none."""
    figures = agreement(pairs, score)
    gates = judge_faces(figures, limits, gate)
    verdict = worst([item.verdict for item in gates])
    told = next(item for item in gates if item.verdict == verdict)
    if not figures.parent and verdict != FAILED:
        nothing = f"the reference finds no face in {len(pairs)} pictures, so there is nothing to compare"
        return skipped(gate, subject, nothing, emulated=emulated)
    found = f"{100 * figures.found:.2f} % of them found" if figures.parent else "none to be found"
    return Verdict(
        gate=gate,
        subject=subject,
        verdict=verdict,
        value=told.value,
        limit=told.limit,
        reason=f"{figures.parent} faces, {found}; {figures.child} there, "
        f"{100 * figures.invented:.2f} % invented; mean IoU {figures.mean_iou:.4f}; {len(pairs)} pictures",
        emulated=emulated,
        details=figures.as_dict(),
    )


def _as_faces(own: Predictions) -> Faces:
    none = np.zeros((len(own.scores), 0, 2), np.float32)
    return Faces(own.boxes, own.scores, none if own.points is None else own.points)
