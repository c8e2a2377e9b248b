"""Running mappers: judged by more than their exit status, ended with all their children."""

from __future__ import annotations

import os
import re
import shlex
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from facekiln.chips.nnie.mapper.cfg import read_cfg
from facekiln.chips.nnie.mapper.compile import Mapped, command_for, map_job
from facekiln.chips.nnie.mapper.job import write_job
from facekiln.chips.nnie.settings import NnieSettings, settings_from
from facekiln.errors import KilnError
from support.sshd import wait_until

EMULATE = f"{shlex.quote(sys.executable)} -m facekiln.chips.nnie.mapper"
LAST = "echo 'end quant files writing'"


@pytest.fixture
def settings() -> NnieSettings:
    return settings_from({"mapper": {"mode": "local", "timeout_minutes": 1}})


@pytest.fixture
def run(job: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Mapped]:
    """Map the tiny network with a mapper that is a shell script."""

    def go(script: str, settings: NnieSettings, **keys: object) -> Mapped:
        program = tmp_path / "nnie_mapper_12"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        if not (tmp_path / "src").exists():
            job("src", **keys)
        monkeypatch.chdir(tmp_path / "src")
        folder = tmp_path / "private"
        folder.mkdir()
        config = write_job(folder, read_cfg("x.cfg"))
        settings = replace(settings, mapper=replace(settings.mapper, command=(str(program),)))
        return map_job(folder, config, settings, tmp_path / "raw.log")

    return go


def test_a_mapper_that_succeeds(run, settings, tmp_path: Path) -> None:
    mapped = run(f'{EMULATE} "$@"', settings)
    # The truth is in the header: what the emulator made is emulated, whatever the mode says.
    assert mapped.container.emulated and "begin net parsing...." in mapped.log
    assert (tmp_path / "raw.log").read_bytes().decode() == mapped.log
    assert not list((tmp_path / "src").glob("*.wk")), "side files leaked out of the private folder"


def test_a_real_file_is_real(run, settings, mirror) -> None:
    wk = shlex.quote(str(mirror("mnet_640_inst.wk")))
    mapped = run(f"cp {wk} inst.wk; {LAST}", settings, compile_mode=1)
    assert not mapped.container.emulated and mapped.container.version == (1, 2, 1, 0)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 0", r"no inst.wk was written \(exit status 0\)"),
        (f"echo x > inst.wk; {LAST}", "inst.wk is damaged: inst.wk: offset 0x0, header"),
        (f'{EMULATE} "$@" | grep -v "^end binary"', "does not reach its last stage"),
        (
            f'{EMULATE} "$@"; echo "ERROR: file: f  line: 1"; echo "the very cause"',
            "ERROR: file: f  line: 1\n  the very",
        ),
        (f'{EMULATE} "$@"; printf "\\0" >> /dev/null; exit 3', "exit status 3"),
        (
            f'{EMULATE} "$@"; printf x | dd of=inst.wk bs=1 seek=700 conv=notrunc 2>/dev/null',
            "the CRC at 0x00",
        ),
        (f'{EMULATE} "$@"; truncate -s -48 inst.wk', "reaches past the end"),
        ("echo 'error while loading shared libraries: libprotobuf.so.14'; exit 127", "libprotobuf.so.14"),
        ("kill -SEGV $$", "exit status -11"),
    ],
)
def test_mappers_that_lie_or_fail(run, settings, tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(KilnError, match="the mapping failed: ") as caught:
        run(script, settings)
    assert re.search(message.replace("\n  ", r"\s+"), str(caught.value)), str(caught.value)
    assert (tmp_path / "raw.log").is_file()


def test_an_exit_status_may_be_ignored(run, settings) -> None:
    ignoring = replace(settings, mapper=replace(settings.mapper, exit_status="ignore"))
    assert run(f'{EMULATE} "$@"; exit 3', ignoring).container.emulated


def test_the_wrong_precision_is_refused(run, settings) -> None:
    with pytest.raises(KilnError, match="is of 8 bit, 16 bit was asked for"):
        run(
            f'sed -i "s/compile_mode\\] 1/compile_mode] 0/" mapper.cfg; {EMULATE} "$@"',
            settings,
            compile_mode=1,
        )


def test_a_mapper_for_another_chip_is_refused(run, mirror) -> None:
    settings = settings_from({"chip": "hi3559av100", "mapper": {"mode": "local"}})
    wk = shlex.quote(str(mirror("mnet_640_inst.wk")))
    with pytest.raises(KilnError, match=r"NNIE 1\.2, but hi3559av100 has NNIE 1\.1"):
        run(f"cp {wk} inst.wk; {LAST}", settings, compile_mode=1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_mapper_that_hangs_is_ended_with_its_children(run, settings, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"echo begin net parsing....; sleep 300 & echo $! > {pids}; echo $$ >> {pids}; wait"
    for minutes in (0.02, 0.5):  # a slow machine has not even started it within the first
        pids.unlink(missing_ok=True)
        short = replace(settings, mapper=replace(settings.mapper, timeout_minutes=minutes))
        with pytest.raises(KilnError, match="took too long") as caught:
            run(script, short)
        if pids.exists() and len(pids.read_text().split()) == 2:
            break
    assert "begin net parsing" in str(caught.value) and "timeout_minutes" in str(caught.value)
    wait_until(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))


def test_the_mapper_gets_the_libraries_and_only_the_cfg(run, tmp_path: Path) -> None:
    settings = settings_from({"mapper": {"mode": "local", "library_path": ["libs"]}})
    script = f'echo "$# $1 $LD_LIBRARY_PATH $(pwd)" > {tmp_path}/seen; {EMULATE} "$@"'
    run(script, settings)
    count, cfg, libraries, folder = (tmp_path / "seen").read_text().split()
    assert (count, cfg) == ("1", "mapper.cfg")
    assert libraries.split(":")[0] == str(tmp_path / "src/libs") and folder == str(tmp_path / "private")


def test_the_emulators_own_mode_takes_the_projects_settings(run, job, tmp_path: Path) -> None:
    folder = job("src", size=(8, 8))
    (folder / "config/chips").mkdir(parents=True)
    (folder / "config/chips/nnie.yaml").write_text("emulator: {resize: area}\n")
    settings = replace(settings_from({}), folder=str(folder / "config"))
    mapped = run("exit 9", settings)
    assert mapped.container.emulated and "were resized (area)" in mapped.log


def test_docker_is_told_what_to_mount(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    fake = bin_folder / "docker"
    # Stands in for `docker run ... --volume HOST:/job --workdir /job ... IMAGE COMMAND mapper.cfg`.
    fake.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tmp_path}/asked\n'
        'while [ $# -gt 1 ]; do [ "$1" = --volume ] && host="${2%:/job}"; shift; done\n'
        f'cd "$host" && exec {EMULATE} "$1"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    settings = settings_from({"mapper": {"mode": "docker", "docker": {"image": "nnie:1.2"}}})
    assert run("exit 9", settings).container.emulated
    asked = (tmp_path / "asked").read_text().split()
    assert asked[0] == "run" and asked[asked.index("--network") + 1] == "none" and "--rm" in asked
    assert asked[asked.index("--volume") + 1] == f"{tmp_path / 'private'}:/job"
    assert asked[-3] == "nnie:1.2" and asked[-1] == "mapper.cfg"


def test_a_docker_container_that_hangs_is_removed(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "docker"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$1" = run ] && sleep 300\nexit 0\n')
    fake.chmod(0o755)
    docker = {"image": "nnie:1.2", "program": str(fake)}
    asked = tmp_path / "asked"
    for minutes in (0.01, 0.5):  # a slow machine has not even started it within the first
        asked.unlink(missing_ok=True)
        mapper = {"mode": "docker", "timeout_minutes": minutes, "docker": docker}
        with pytest.raises(KilnError, match="took too long"):
            run("exit 9", settings_from({"mapper": mapper}))
        if asked.exists() and asked.read_text().startswith("run "):
            break
    first, second = asked.read_text().splitlines()
    assert second.split() == ["rm", "--force", first.split()[first.split().index("--name") + 1]]


@pytest.mark.parametrize(
    ("mapper", "message"),
    [
        ({"mode": "local", "command": ["no_such_mapper"]}, "'no_such_mapper' is not here"),
        ({"mode": "docker"}, "no image is named"),
        ({"mode": "ssh"}, "on a build host by ssh is not possible yet"),
    ],
)
def test_what_is_not_there_is_said_at_once(tmp_path: Path, mapper: dict[str, object], message: str) -> None:
    with pytest.raises(KilnError, match=message) as caught:
        command_for(settings_from({"mapper": mapper}).mapper, tmp_path, "n")
    if mapper["mode"] == "ssh":
        assert "facekiln nnie cfg --job" in str(caught.value)
