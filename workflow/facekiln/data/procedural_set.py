"""Drawn scenes as a dataset like any other."""

from __future__ import annotations

import numpy as np

from facekiln.data.procedural import Scene, Style, draw_scene, scene_seed
from facekiln.data.sample import Listing, Sample, landmarks_of, sample_of


def scene_sample(source: str, scene: Scene) -> Sample:
    """Return a drawn scene as a sample: 98 landmarks, exact poses, blur, occlusion and visible share."""
    faces = scene.faces
    return sample_of(
        source,
        lambda: scene.image,
        scene.boxes(),
        landmarks=landmarks_of("98", [face.landmarks98 for face in faces]),
        pose=np.array([face.pose for face in faces], np.float64).reshape(-1, 3),
        attributes={
            name: np.array([getattr(face, name) for face in faces], np.float64)
            for name in ("blur", "occlusion", "visible")
        },
        size=(scene.image.shape[0], scene.image.shape[1]),
    )


def procedural_set(
    name: str,
    count: int,
    *,
    purpose: str = "dataset",
    seed: int = 0,
    size: tuple[int, int] = (480, 640),
    style: Style | None = None,
) -> Listing:
    """List `count` scenes, each drawn when its sample is asked for.

    Args:
        name: the dataset's.
        count: how many scenes.
        purpose: sets of two purposes share no scene ("train" and "held-out" are the trainer's).
        seed: decides which.
        size: (height, width) in pixels.
        style: what to draw.
    """
    sources = [f"{purpose}_{seed}_{index:05d}" for index in range(count)]

    def read(index: int) -> Sample:
        return scene_sample(sources[index], draw_scene(scene_seed(purpose, seed, index), size, style))

    return Listing(name, sources, read)
