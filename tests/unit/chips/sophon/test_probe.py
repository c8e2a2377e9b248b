"""Option names are asked of the tool, once."""

from pathlib import Path

import pytest

from facekiln.chips.sophon.probe import flag, help_of, release_of
from facekiln.errors import KilnError
from support.sophon_stand_in import environment

# argparse's forms of 1.26 (both names) and of a release that dropped one.
BOTH = "  --chip {bm1684,bm1684x}, --processor {bm1684,bm1684x}\n  --quantize_table TABLE"
NEW = "  --chip {bm1684,bm1684x}\n  --processor_mode MODE"


def deploy(help_text: str) -> str:
    return (
        "from pathlib import Path\ncount = Path(__file__ + '.count')\n"
        "count.write_text(str(int(count.read_text() if count.exists() else 0) + 1))\n"
        f"print('2026/11/21 10:00:00 - INFO : TPU-MLIR v1.26-20251229')\nprint({help_text!r})\n"
    )


def test_the_first_known_name_is_taken_and_the_tool_asked_once(tmp_path: Path) -> None:
    made = environment(tmp_path, {"model_deploy": deploy(BOTH)})
    assert flag(made, "model_deploy", ["--processor", "--chip"]) == "--processor"
    assert flag(made, "model_deploy", ["--chip"]) == "--chip"
    assert release_of(made) == "v1.26-20251229"
    assert (made.folder / "bin" / "model_deploy.count").read_text() == "1"
    assert (made.stamp.parent / f"own-{made.lock}.help" / "model_deploy.txt").read_text() == help_of(
        made, "model_deploy"
    )


def test_a_dropped_name_is_not_taken_for_a_longer_one(tmp_path: Path) -> None:
    made = environment(tmp_path, {"model_deploy": deploy(NEW)})
    assert flag(made, "model_deploy", ["--processor", "--chip"]) == "--chip"
    with pytest.raises(KilnError, match=r"has none of --processor .*it knows --chip --processor_mode"):
        flag(made, "model_deploy", ["--processor"])


def test_a_tool_that_is_another_is_refused(tmp_path: Path) -> None:
    made = environment(tmp_path, {"model_deploy": "print('usage: something else')"})
    with pytest.raises(KilnError, match="does not say its release"):
        release_of(made)
