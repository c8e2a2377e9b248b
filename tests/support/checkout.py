"""A private checkout with a miniature model, in which tests run Snakemake as a user would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml


@dataclass
class Checkout:
    """A copy of the workflow that tests may edit.

    Attributes:
        folder: its top folder.
    """

    folder: Path

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in it; with `check`, a failure fails the test and shows the output."""
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True
        )
        if check and done.returncode:
            pytest.fail(f"snakemake {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
        return done

    def facekiln(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one facekiln command in it."""
        command = [sys.executable, "-m", "facekiln", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment(), capture_output=True, text=True
        )

    def environment(self) -> dict[str, str]:
        """The environment in which its own copy of the package is imported."""
        bin_folder = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "workflow"),
            "XDG_CACHE_HOME": str(self.folder / ".cache"),
        }

    def planned(self, *targets: str) -> dict[str, int]:
        """Return the rules that a dry run would run, with counts."""
        output = self.snakemake("-n", "--", *targets).stdout
        jobs: dict[str, int] = {}
        table = False
        for line in output.splitlines():
            words = line.split()
            if words[:2] == ["job", "count"]:
                table = True
            elif table and len(words) == 2 and words[1].isdigit() and words[0] != "total":
                jobs[words[0]] = int(words[1])
            elif table and words and words[0] == "total":
                break
        return jobs

    def pretend(self, *targets: str) -> None:
        """Put an empty file or folder in place of each output that targets need; Snakemake notes it."""
        told = self.snakemake("-n", "--", *targets).stdout
        for line in re.findall(r"^ {4}output: (.*)$", told, re.MULTILINE):
            for name in line.split(", "):
                path = self.folder / name.removesuffix(" (temporary)")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch() if path.suffix else path.mkdir()
        self.snakemake("--touch", "--forceall", "--", *targets)

    def edit_yaml(self, name: str, **changes: Any) -> None:
        """Change top-level keys of one of its config files."""
        path = self.folder / name
        value = yaml.safe_load(path.read_text())
        value.update(changes)
        path.write_text(yaml.safe_dump(value))


def copy_checkout(root: Path, folder: Path) -> Checkout:
    """Copy what a run needs, with a miniature model `tiny` of size 64 and few small pictures."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("workflow", "config", "profiles", "envs"):
        shutil.copytree(root / name, folder / name, ignore=ignored)
    shutil.copy(root / "Snakefile", folder / "Snakefile")
    checkout = Checkout(folder)
    tiny = yaml.safe_load((root / "config/models/retinaface.yaml").read_text())
    tiny.update(title="miniature", sizes={64: [64, 64], 96: [96, 64], 72: [72, 72]}, recipe="tiny")
    (folder / "config/models/tiny.yaml").write_text(yaml.safe_dump(tiny))
    recipe = yaml.safe_load((root / "config/training/retinaface_synthetic.yaml").read_text())
    (folder / "config/training/tiny.yaml").write_text(yaml.safe_dump(miniature(recipe)))
    checkout.edit_yaml("config/config.yaml", targets=["nnie/tiny_64.wk"])
    main = yaml.safe_load((folder / "config/config.yaml").read_text())
    main["calibration"]["count"] = 2
    main["parity"]["count"] = 1
    # A network of a few steps finds no faces worth comparing; the float gates stay as they are.
    for kind in ("int16", "int8"):
        main["parity"]["gates"][kind] = {"cosine": 0.5, "faces": {"found": 0, "invented": 1, "mean_iou": 0}}
    main["gates"]["golden"] = {"scenes": 1, "warn": 0, "stop": 0}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(main))
    return checkout


def miniature(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe that trains for seconds and asks for no accuracy."""
    scenes = {"size": [96, 96], "face_size": [12, 60]}
    return {
        "title": "miniature",
        "seed": recipe["seed"],
        "threads": 2,
        "device": "cpu",
        "steps": 4,
        "train": [{"drawn": {"count": 4, **scenes}}],
        "validate": {"drawn": {"count": 2, **scenes}},
        "goal": {"metric": "ap", "least": 0},
        "detection": {"batches": [{"size": [64, 64], "pictures": 2}]},
    }
