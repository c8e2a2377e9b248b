"""A minimal emulated container, for the tests that read one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from facekiln.chips.nnie import container as wk
from facekiln.chips.nnie.container_write import build_emulated_wk


@pytest.fixture(scope="session")
def small_wk() -> Callable[..., bytes]:
    """Return a maker of a one-input, one-output container around a payload."""

    def make(payload: bytes = b"KILNPAY1\2\0\0\0{}", output: str = "out") -> bytes:
        report = [
            wk.ReportRecord(0x2C, 1, 8, 6, 3, 0, 16, 0, 0, -384, 288),
            wk.ReportRecord(0x2D, 4, 4, 3, 2, 288, 16, 1, 1, 0, 96),
        ]
        source = wk.Node("data", 6, 8, 3, wk.KIND_BGR, wk.FLAGS_IMAGE)
        target = wk.Node(output, 3, 4, 2, wk.KIND_MAP, wk.FLAGS_MAP)
        return build_emulated_wk([source], [target], payload, report, tmp_bytes=384, alignment=16)

    return make
