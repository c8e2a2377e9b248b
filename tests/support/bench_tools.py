"""Stand-ins of vendors' benchmark programs: they print the form, the figures mean nothing."""

from __future__ import annotations

from pathlib import Path

# bmrt_test's lines (libsophon) for as many loops as asked; the first launch is slow.
BMRT = """\
#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --loopnum ] && loops=$2; shift; done
echo "[BMRT][deal_with_options:1378] INFO:Loop num: $loops"
echo "[BMRT][show_net_info:1359] INFO: NetName: slim, Index=0"
echo "[BMRT][show_net_info:1361] INFO: ---- stage 0 ----"
echo "[BMRT][show_net_info:1369] INFO:   Input 0) 'input' shape=[ 4 3 240 320 ] dtype=INT8"
us=9000 loop=0
while [ $loop -lt $loops ]; do
  echo "[BMRT][bmrt_test:770] INFO:==> running network #0, name: slim, loop: $loop"
  echo "[BMRT][bmrt_test:1014] INFO:net[slim] stage[0], launch total time is $us us"
  echo "[BMRT][bmrt_test:1058] INFO:load input time(s): 0.001000"
  echo "[BMRT][bmrt_test:1059] INFO:calculate  time(s): 0.00$us"
  echo "[BMRT][bmrt_test:1060] INFO:get output time(s): 0.000300"
  echo "[BMRT][bmrt_test:1061] INFO:compare    time(s): 0.000100"
  loop=$((loop + 1)) us=$((2000 + loop % 3))
done
"""


def write_tool(path: Path, text: str) -> Path:
    """Write an executable script."""
    path.write_text(text)
    path.chmod(0o755)
    return path
