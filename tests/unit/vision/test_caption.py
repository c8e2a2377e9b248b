"""Words on pictures: cut to their room, and plain."""

import numpy as np

from facekiln.vision.caption import write_line


def _inked(text: str, room: int) -> np.ndarray:
    sheet = np.full((40, 400, 3), 255, np.uint8)
    write_line(sheet, text, (10, 25), room=room)
    return sheet


def test_a_line_is_cut_to_its_room() -> None:
    columns = np.flatnonzero((_inked("m" * 200, 150) != 255).any(axis=(0, 2)))
    assert columns[0] >= 9
    # The last letter ends less than a letter before the room does; smoothing may add a pixel.
    assert 10 + 150 - 12 < columns[-1] <= 10 + 150 + 1
    assert np.array_equal(_inked("short", 150), _inked("short", 300))
    assert (_inked("short", 0) == 255).all()


def test_what_is_not_ascii_is_a_question_mark() -> None:
    assert np.array_equal(_inked("é", 100), _inked("?", 100))
