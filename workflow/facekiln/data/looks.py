"""What a made-up person looks like: skin, hair, eyes, clothes, glasses, masks and light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Bgr = tuple[float, float, float]

# Sampled by eye from dark to light, BGR.
_SKINS = ((45, 62, 92), (62, 90, 135), (85, 120, 172), (110, 150, 200), (140, 175, 220), (170, 195, 232))
_HAIRS = (
    (18, 18, 20),
    (25, 35, 48),
    (35, 58, 90),
    (60, 105, 160),
    (110, 160, 200),
    (150, 150, 155),
    (215, 215, 215),
)
_IRISES = ((25, 40, 60), (40, 65, 95), (130, 105, 75), (95, 115, 85), (60, 60, 60))


@dataclass(frozen=True)
class Looks:
    """One person and the light on them. Colours are BGR 0..255."""

    skin: Bgr
    hair: Bgr
    iris: Bgr
    clothes: Bgr
    hair_style: str  # bald, short, long, fringe, hat, scarf
    beard: float  # strength 0..1
    make_up: float
    light: tuple[float, float, float]  # unit vector toward the lamp; y down, z toward the camera
    ambient: float
    contrast: float
    glasses: str  # "", clear, dark
    mask: bool
    mask_colour: Bgr
    hat_colour: Bgr
    body: bool
    ears: bool


def _mix(palette: tuple[Bgr, ...], rng: np.random.Generator, spread: float) -> Bgr:
    """A colour between two neighbours of a palette, moved a little."""
    at = rng.uniform(0, len(palette) - 1)
    low = min(int(at), len(palette) - 2)
    part = at - low
    colour = np.array(palette[low]) * (1 - part) + np.array(palette[low + 1]) * part
    moved = np.clip(colour + rng.normal(0, spread, 3), 5, 250)
    return float(moved[0]), float(moved[1]), float(moved[2])


def any_colour(rng: np.random.Generator, low: float = 10, high: float = 245) -> Bgr:
    """Any colour, more often a quiet one."""
    colour = rng.uniform(low, high, 3)
    grey = float(colour.mean())
    b, g, r = (grey + (colour - grey) * rng.uniform(0.1, 1.0) ** 1.5).tolist()
    return b, g, r


def skin_colour(rng: np.random.Generator) -> Bgr:
    """A skin colour; scenery uses it too, so that colour alone does not tell a face."""
    return _mix(_SKINS, rng, 7)


def hair_colour(rng: np.random.Generator) -> Bgr:
    """A hair colour."""
    return _mix(_HAIRS, rng, 6)


def _light(rng: np.random.Generator) -> tuple[float, float, float]:
    side, up = rng.uniform(-1.1, 1.1), rng.uniform(-0.9, 0.5)
    x, y, z = np.sin(side) * np.cos(up), np.sin(up), np.cos(side) * np.cos(up)
    return float(x), float(y), float(z)


def random_looks(rng: np.random.Generator) -> Looks:
    """Draw a person."""
    styles = ("bald", "short", "long", "fringe", "hat", "scarf")
    style = styles[int(rng.choice(6, p=(0.08, 0.36, 0.24, 0.16, 0.1, 0.06)))]
    glasses = ("", "clear", "dark")[int(rng.choice(3, p=(0.74, 0.18, 0.08)))]
    pale = rng.uniform(150, 245)
    mask_colour = any_colour(rng) if rng.random() < 0.4 else (pale, pale - 15, pale - 45)
    return Looks(
        skin=skin_colour(rng),
        hair=hair_colour(rng),
        iris=_IRISES[int(rng.integers(len(_IRISES)))],
        clothes=any_colour(rng),
        hair_style=style,
        beard=float(rng.uniform(0.25, 0.9)) if style != "long" and rng.random() < 0.22 else 0.0,
        make_up=float(rng.uniform(0, 1)) if rng.random() < 0.4 else 0.0,
        light=_light(rng),
        ambient=float(rng.uniform(0.45, 0.85)),
        contrast=float(rng.uniform(0.35, 0.75)),
        glasses=glasses,
        mask=bool(rng.random() < 0.08),
        mask_colour=mask_colour,
        hat_colour=any_colour(rng),
        body=bool(rng.random() < 0.85),
        ears=style in ("bald", "short", "hat") or bool(rng.random() < 0.3),
    )
