"""Messages: every part of one, and none too long to read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from facekiln.errors import KilnError, shortened


def test_message_names_every_part() -> None:
    error = KilnError("is wrong", file="a.yaml", where="key", value=3, limit="at most 2", hint="lower it")
    assert str(error) == "a.yaml: key: is wrong (value: 3; limit: at most 2)\n  next step: lower it"


def test_long_value_keeps_its_beginning_and_the_rest_of_the_message() -> None:
    error = KilnError(
        "is wrong", file="a", value="begin" + "x" * 100_000, limit="y" * 100_000, hint="mend it"
    )
    assert str(error).startswith("a: is wrong (value: beginxxx")
    assert "x…; limit: yyy" in str(error)
    assert str(error).endswith("y…)\n  next step: mend it")
    assert len(str(error)) < 1500
    assert len(KilnError("z" * 100_000, where="w" * 100_000, hint="h" * 100_000).what) <= 4000


@given(st.text(), st.integers(1, 50))
def test_shortened_text_is_a_beginning(text: str, most: int) -> None:
    short = shortened(text, most)
    assert len(short) <= most
    assert short == text if len(text) <= most else text.startswith(short.removesuffix("…"))
