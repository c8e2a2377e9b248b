"""Runs in tpu_mlir's own Python: run_calibration with searches that its release 1.26 has, but cannot do.

    search_child.py ARGUMENTS OF run_calibration            (by `tool.script_command`)

`--search search_threshold` is in the help, and a class does it, but it is called only where no search is
asked for: the program ends well and leaves no table. Here it is called where the program makes ready to
search. `search_qtable` draws a picture of the network when all its work is done, and fails there where
Graphviz's `dot` is not installed; here nothing is drawn. Standard library only, besides the tool.
"""

from __future__ import annotations

import os
import runpy
from importlib import import_module
from pathlib import Path
from typing import Any


def searching(qtable_search: Any, threshold_search: Any) -> Any:
    """Return what takes the place of the class of searches for a qtable: it does the other search itself."""

    def prepare(options: Any, *rest: Any) -> Any:
        if options.search == "search_threshold":
            threshold_search(options, *rest).run_search_calitable()
        return qtable_search(options, *rest)

    return prepare


def main(program: Path) -> None:
    """Run the tool's program with its own arguments."""
    module = import_module("calibration.search_qtable")
    search = import_module("calibration.search_threshold").SearchThreshold
    module.SearchQtable = searching(module.SearchQtable, search)  # type: ignore[attr-defined]
    import_module("tpu_mlir.python.utils.net_dot_log").net_dot_log.gen_dot_graph = lambda *_, **__: None
    runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main(Path(os.environ["TPUC_ROOT"]) / "python" / "tools" / "run_calibration.py")
