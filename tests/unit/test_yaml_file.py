"""YAML that PyYAML takes and nobody means, and values at which it fails with errors of Python's own."""

from pathlib import Path

import pytest

from facekiln.errors import KilnError
from facekiln.yaml_file import read_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("day: 2024-99-99\n", "not of its kind"),
        ('n: !!int "abc"\n', "not of its kind"),
        ('n: !!float "abc"\n', "not of its kind"),
        ("n: !!bool x\n", "not of its kind"),
        ('n: !!timestamp "x"\n', "not of its kind"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "line 4: has the key 'b' twice"),
        ("a: &a\n  b: *a\n", "holds itself"),
        ("- &x [*x]\n", "holds itself"),
        (LAUGHS, "aliases of aliases"),
        ("[" * 50_000, "nested too deep"),
        ("- " * 50_000, "nested too deep"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ('!!python/object/apply:os.system ["true"]\n', "not YAML"),
    ],
)
def test_refused_by_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(KilnError, match=message) as error:
        read_yaml(path)
    assert str(path) in str(error.value)


def test_aliases_and_merges_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: [*a, *a]\n")
    both = {"x": 1, "y": 2}
    assert read_yaml(path) == {"a": both, "b": {"x": 1, "y": 3}, "c": [both, both]}
    path.write_text("# nothing\n")
    assert read_yaml(path) is None
