"""Throughput of files to and from a board, against OpenSSH's own sftp on the same link.

    python benchmarks/bench_boards.py [--megabytes 200] [--turns 5] [--folder /dev/shm]

Starts an SSH server on loopback with keys of its own (tests/support/sshd.py). In each turn every way moves
the same file, one after the other, so that whatever else the machine does meets all of them; the ratio is
the median over the turns. `store` and `fetch` are ours and include both hashes (sha256 here and on the board)
and the question what is there already; `sftp put` and `sftp get` verify nothing, so beside them stands `sftp
put` with `sha256sum` on both sides, which is what one would do by hand. Connecting is in none of ours and in
all of sftp's; the second ratio takes it (`sftp, nothing`) off.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from facekiln.boards import upload
from facekiln.boards.script import BoardScript
from facekiln.boards.session import Session
from support.sshd import running_sshd


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where files lie; by default the temporary folder")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as name,
        running_sshd(Path(name) / "sshd") as server,
        Session(server.board(Path(name))) as session,
    ):
        folder, script = Path(name), BoardScript(session)
        source = folder / "source"
        source.write_bytes(os.urandom(options.megabytes << 20))
        known = folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
        address = script.board.address
        assert address is not None
        common = ["-q", "-i", str(server.key), "-o", f"UserKnownHostsFile={known}"]
        there = f"{address.user}@127.0.0.1"

        def sftp(line: str) -> None:
            command = ["sftp", *common, "-P", str(server.port), "-b", "-", there]
            subprocess.run(command, input=line.encode(), stdout=subprocess.DEVNULL, check=True)

        def by_hand() -> None:
            sftp(f"put {source} {folder}/hand")
            subprocess.run(["sha256sum", source], stdout=subprocess.DEVNULL, check=True)
            remote = ["ssh", *common, "-p", str(server.port), there, f"sha256sum {folder}/hand"]
            subprocess.run(remote, stdout=subprocess.DEVNULL, check=True)

        def store() -> None:
            upload.store(script, [source])

        def forget() -> None:
            for blob in Path(script.board.work, "blobs").glob("*"):
                blob.unlink()

        store()
        (blob,) = Path(script.board.work, "blobs").iterdir()
        remote = folder / "remote"
        blob.rename(remote)
        ways: dict[str, Callable[[], object]] = {
            "store": store,
            "sftp put": lambda: sftp(f"put {source} {folder}/put"),
            "sftp put, sha256sum twice": by_hand,
            "fetch": lambda: upload.fetch(script, str(remote), folder / "home"),
            "sftp get": lambda: sftp(f"get {remote} {folder}/get"),
            "sftp, nothing": lambda: sftp("pwd"),
            "store, there already": store,
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.turns):
            for way, move in ways.items():
                if way == "store":
                    forget()
                begun = time.perf_counter()
                move()
                seconds[way].append(time.perf_counter() - begun)
    for way, times in seconds.items():
        middle = statistics.median(times)
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"{way:28} {middle:6.2f} s  ({spread} s)  {options.megabytes / middle:7.1f} MB/s")
    for ours, theirs in (
        ("store", "sftp put"),
        ("store", "sftp put, sha256sum twice"),
        ("fetch", "sftp get"),
    ):
        ratios = [b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
        print(f"{ours} has {statistics.median(ratios):.2f} of the throughput of {theirs}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
