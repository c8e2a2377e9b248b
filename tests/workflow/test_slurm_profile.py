"""The Slurm profile before a stand-in of sbatch: what a job asks for, a GPU only where the user says so."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from support.checkout import Checkout, copy_checkout

# It keeps its options and prints the job's number; squeue's tells that the job failed, which is the end.
SBATCH = """#!/bin/sh
echo "$*" >> "$SBATCH_LOG"
echo 7
"""


@pytest.fixture
def cluster(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """A checkout whose cluster is this machine."""
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, text in (
        ("sbatch", SBATCH),
        ("squeue", "#!/bin/sh\necho FAILED\n"),
        ("scancel", "#!/bin/sh\n"),
    ):
        path = bin_folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SBATCH_LOG", str(tmp_path / "sbatch.log"))
    return copy_checkout(root, tmp_path)


def _submitted(cluster: Checkout) -> str:
    """Train on the cluster; return what the job was submitted with."""
    cluster.snakemake("--profile", "profiles/slurm", "--", "results/checkpoints/tiny.pth", check=False)
    (options,) = Path(os.environ["SBATCH_LOG"]).read_text().splitlines()
    return options.split("--output")[0]


@pytest.mark.slow
def test_no_job_asks_for_a_gpu_by_default(cluster: Checkout) -> None:
    options = _submitted(cluster)
    assert options.split() == ["--parsable", "--cpus-per-task=2", "--mem=4000", "--time=1440"]


@pytest.mark.slow
def test_training_asks_for_a_gpu_where_the_profile_says_so(cluster: Checkout) -> None:
    profile = cluster.folder / "profiles/slurm/profile.yaml"
    text = profile.read_text()
    # What its comment says, without the signs that make it one.
    asked = text[text.index("# set-resources:") :].split("\njobs:")[0].replace("# ", "")
    profile.write_text(f"{text}{asked}\n")
    assert _submitted(cluster).split()[-2:] == ["--time=1440", "--gres=gpu:1"]
