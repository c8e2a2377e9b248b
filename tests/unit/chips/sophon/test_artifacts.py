"""Names of .bmodel files, and what is refused when they are asked for."""

from pathlib import Path

import pytest

from facekiln.chips.sophon.artifacts import Artifact, artifact_of, check_artifact
from facekiln.chips.sophon.settings import SophonSettings, load_settings
from facekiln.config import Config, load_config
from facekiln.errors import KilnError


@pytest.fixture(scope="module")
def config(root: Path) -> Config:
    return load_config(root / "config")


@pytest.fixture(scope="module")
def settings(root: Path) -> SophonSettings:
    return load_settings(root / "config")


@pytest.mark.parametrize(
    "artifact",
    [
        Artifact("bm1684", "retinaface", "640", "fp32", 1),
        Artifact("bm1684x", "ulfd_rfb_320", "320", "int8", 4),
        Artifact("bm1688", "retinaface_r50", "1024", "fp16", 4, cores=2),
    ],
)
def test_a_path_says_what_it_names(artifact: Artifact, config: Config, settings: SophonSettings) -> None:
    assert artifact_of(f"results/{artifact.path}", config, settings) == artifact


def test_names_are_those_of_sophons_samples() -> None:
    assert (
        Artifact("bm1688", "m", "640", "int8", 4, cores=2).path == "sophon/bm1688/m_640_int8_4b_2core.bmodel"
    )
    assert Artifact("cv186x", "m", "640", "int8", 1).path == "sophon/cv186x/m_640_int8_1b.bmodel"


@pytest.mark.parametrize(
    ("artifact", "answer"),
    [
        # BM1684 has no float16 unit: model_deploy of tpu_mlir 1.26 ends with "Not Implemented".
        (
            Artifact("bm1684", "retinaface", "640", "fp16", 1),
            r"(?s)bm1684 has no fp16: its tensor units.*limit: fp32, int8.*bm1684x, bm1688, cv186x",
        ),
        (Artifact("bm1685", "retinaface", "640", "fp32", 1), "did you mean 'bm1688'"),
        (Artifact("bm1684", "retinafac", "640", "fp32", 1), "did you mean 'retinaface'"),
        (Artifact("bm1684", "retinaface", "641", "fp32", 1), "did you mean '640'"),
        (Artifact("bm1684", "retinaface", "640", "int4", 1), "did you mean 'int8'"),
        (
            Artifact("bm1684", "retinaface", "640", "fp32", 3),
            r"(?s)for batches of 3.*ask for 4b",
        ),
        (
            Artifact("bm1684x", "retinaface", "640", "fp32", 1, cores=2),
            r"(?s)bm1684x has no 2 cores.*leave `_2core` out, or ask for one of: bm1688",
        ),
    ],
)
def test_what_there_is_not_is_refused_with_the_reason(
    artifact: Artifact, answer: str, config: Config, settings: SophonSettings
) -> None:
    with pytest.raises(KilnError, match=answer):
        check_artifact(artifact, config, settings)


@pytest.mark.parametrize(
    "name", ["retinaface_640.bmodel", "retinaface_640_fp32.bmodel", "retinaface_640_fp32_1b"]
)
def test_a_name_of_another_form_is_told_the_form(name: str, config: Config, settings: SophonSettings) -> None:
    with pytest.raises(KilnError, match=r"does not say what it is.*\{precision\}_\{batch\}b"):
        artifact_of(f"results/sophon/bm1684x/{name}", config, settings)
