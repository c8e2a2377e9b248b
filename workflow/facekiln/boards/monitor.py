"""Clocks, governor, temperature and load of a board, read before and after a run.

The probe is one POSIX shell command of built-ins, so that it costs next to nothing and runs under busybox;
what a board does not have is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from facekiln.errors import printable

_SCRIPT = r"""
say() { { read -r value < "$2"; } 2>/dev/null && echo "$1=$value"; }
say uptime /proc/uptime
say load /proc/loadavg
say boot /proc/sys/kernel/random/boot_id
while read -r name value rest; do
  case "$name" in MemTotal:|MemAvailable:) echo "memory.${name%:}=$value";; esac
done < /proc/meminfo 2>/dev/null
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
  say "governor.${cpu##*/}" "$cpu/cpufreq/scaling_governor"
  say "khz.${cpu##*/}" "$cpu/cpufreq/scaling_cur_freq"
done
for zone in /sys/class/thermal/thermal_zone[0-9]*; do
  name=${zone##*/}
  { read -r kind < "$zone/type"; } 2>/dev/null && name=$kind
  say "millidegrees.$name" "$zone/temp"
done
for node in /sys/class/devfreq/*; do
  say "hz.${node##*/}" "$node/cur_freq"
done
say npu /sys/class/bm-tpu/bm-tpu0/device/npu_usage
say npu /sys/kernel/debug/rknpu/load
echo facekiln=end
"""
COMMAND = ["sh", "-c", _SCRIPT]
_PAIR = re.compile(r"([a-z]+)(?:\.([^=]+))?=(.*)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# Beyond these the reading of a sensor is taken for a fault of it.
_CELSIUS = (-60.0, 200.0)


@dataclass(frozen=True)
class Reading:
    """One look at a board; whatever it does not tell is None or absent.

    Attributes:
        uptime_s: seconds since boot.
        load_1min: runnable processes, mean of a minute.
        boot: id of this boot; another one means that the board was restarted.
        memory_available_mib, memory_total_mib: as the kernel says.
        governors: by processor.
        mhz: clock by processor, and of other devices by their name.
        celsius: temperature by zone.
        npu: the chip's own line of usage.
        whole: whether the probe ran to its end.
    """

    uptime_s: float | None = None
    load_1min: float | None = None
    boot: str | None = None
    memory_available_mib: float | None = None
    memory_total_mib: float | None = None
    governors: Mapping[str, str] = field(default_factory=dict)
    mhz: Mapping[str, float] = field(default_factory=dict)
    celsius: Mapping[str, float] = field(default_factory=dict)
    npu: str | None = None
    whole: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return what is known."""
        values = {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("whole", "boot")
        }
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in values.items()
            if value not in (None, {})
        }


def parse(text: str) -> Reading:
    """Return what the probe printed; a value of another form counts as missing."""
    scalars: dict[str, str] = {}
    tables: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        match = _PAIR.fullmatch(line.strip())
        if match is None:
            continue
        kind, name, value = match[1], match[2] and printable(match[2]), printable(match[3].strip())
        if name is None:
            scalars.setdefault(kind, value)
        else:
            tables.setdefault(kind, {})[name] = value

    def first(name: str) -> float | None:
        return _number(scalars.get(name, "").partition(" ")[0])

    def table(kind: str, factor: float) -> dict[str, float]:
        found = {name: _number(value) for name, value in tables.get(kind, {}).items()}
        return {name: value * factor for name, value in found.items() if value is not None}

    memory = table("memory", 1 / 1024)
    celsius = {
        name: value
        for name, value in table("millidegrees", 0.001).items()
        if _CELSIUS[0] < value < _CELSIUS[1]
    }
    return Reading(
        uptime_s=first("uptime"),
        load_1min=first("load"),
        boot=scalars.get("boot"),
        memory_available_mib=memory.get("MemAvailable"),
        memory_total_mib=memory.get("MemTotal"),
        governors=tables.get("governor", {}),
        mhz={**table("khz", 1e-3), **table("hz", 1e-6)},
        celsius=celsius,
        npu=scalars.get("npu"),
        whole=scalars.get("facekiln") == "end",
    )


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def faults(before: Reading, after: Reading) -> list[str]:
    """Return what makes the run between two readings worthless: a restart, a governor that changed."""
    found = []
    if before.boot and after.boot and before.boot != after.boot:
        found.append("the board restarted during the run")
    changed = [
        f"{name} {kind} -> {after.governors[name]}"
        for name, kind in before.governors.items()
        if name in after.governors and after.governors[name] != kind
    ]
    if changed:
        found.append(f"the governor changed: {', '.join(changed)}")
    return found


def remarks(before: Reading, after: Reading) -> list[str]:
    """Return what a reader of the figures should know: free clocks, heat, other load before the run."""
    found = []
    loose = sorted({kind for kind in before.governors.values() if kind != "performance"})
    if loose:
        found.append(f"clocks are not fixed (governor {', '.join(loose)})")
    if before.load_1min is not None and before.load_1min > 0.5:
        found.append(f"other work ran: load {before.load_1min:.2f} before the run")
    for name, value in before.celsius.items():
        if name in after.celsius and after.celsius[name] - value >= 5:
            found.append(f"{name} warmed from {value:.0f} to {after.celsius[name]:.0f} degrees Celsius")
    if not before.governors and not before.celsius:
        found.append("the board tells neither clocks nor temperature")
    return found
