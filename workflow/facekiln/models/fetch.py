"""Fetch a published checkpoint: from a mirror folder by its hash, else from its address; always pinned."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

from facekiln.artifact import write_bytes
from facekiln.config import Published
from facekiln.errors import KilnError
from facekiln.models.looks import looks_like
from facekiln.progress import log, progress_bar

TIMEOUT_SECONDS = 30.0
DEADLINE_SECONDS = 900.0
RETRY_AFTER_SECONDS = 2.0
_CHUNK = 1 << 16
# Answers that may be different a moment later: too early, too many, the server's own trouble.
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class Response(Protocol):
    """What `Opener` gives: a stream that knows nothing of size or type."""

    def read1(self, count: int, /) -> bytes:
        """Return up to `count` bytes as soon as there are some; none at the end."""

    def close(self) -> None:
        """End the connection."""


Opener = Callable[[str, float], Response]


class _Transient(Exception):
    """A failure that one more attempt may mend."""


def fetch(
    published: Published,
    destination: Path | str,
    mirror: Path | str | None,
    *,
    accept: Callable[[bytes, str], object] = lambda _data, _name: None,
    opener: Opener | None = None,
) -> str:
    """Write a published file, once its size and sha256 are proved.

    Args:
        published: address, size and sha256.
        destination: written atomically, and only on success.
        mirror: a folder (with subfolders) searched by size and sha256 before the address is.
        accept: called with the bytes and where they came from before anything is written; refuses by raising.
        opener: (address, timeout in seconds) -> stream; for tests. By default https only, redirects too.

    Returns:
        Where it came from: a path in the mirror, or the address.

    Raises:
        KilnError: not reachable, cut short, too long, a web page, or of another hash; names the address, what
            was expected and found, and what to do.
    """
    found = find_in_mirror(published, mirror) if mirror else None
    if mirror and not found:
        log.info("%s: not in the mirror %s", published.url, mirror)
    name, data = found or (published.url, _download(published, opener or open_https))
    accept(data, name)
    write_bytes(destination, data)
    log.info("%s: %d bytes from %s, sha256 %s", destination, len(data), name, published.sha256[:12])
    return name


def find_in_mirror(published: Published, mirror: Path | str) -> tuple[str, bytes] | None:
    """Return path and bytes of the file below a folder that has the pinned sha256, or None.

    Only files of the pinned size are read.

    Raises:
        KilnError: the mirror is no folder.
    """
    folder = Path(mirror)
    if not folder.is_dir():
        raise KilnError(
            "the mirror is not a folder", file=folder, hint="correct `mirror:`, --mirror or $FACEKILN_MIRROR"
        )
    for path in sorted(folder.rglob("*")):
        try:
            data = path.read_bytes() if path.is_file() and path.stat().st_size == published.bytes else b""
        except OSError as error:
            log.warning("%s: passed over in the mirror: %s", path, error.strerror)
            continue
        if hashlib.sha256(data).hexdigest() == published.sha256:
            return str(path), data
    return None


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects to https only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _check_https(newurl, f"{req.full_url} redirects there")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_https(url: str, why: str = "the address") -> None:
    if not url.lower().startswith("https://"):
        raise KilnError("not an https address, and no other is read", file=url, where=why)


def open_https(url: str, timeout: float) -> Response:
    """Open an https address; proxies are taken from the environment.

    Raises:
        KilnError: the address, or one that it redirects to, is not https.
        urllib.error.URLError: not reachable.
    """
    _check_https(url)
    request = urllib.request.Request(url, headers={"User-Agent": "facekiln"})
    stream: Response = urllib.request.build_opener(_HttpsOnly).open(request, timeout=timeout)
    return stream


def _download(published: Published, opener: Opener) -> bytes:
    try:
        return _attempt(published, opener)
    except _Transient as failure:
        log.warning("%s: %s; one more attempt", published.url, failure)
    time.sleep(RETRY_AFTER_SECONDS)
    try:
        return _attempt(published, opener)
    except _Transient as failure:
        raise _failed(published, str(failure)) from failure


def _attempt(published: Published, opener: Opener) -> bytes:
    try:
        response = opener(published.url, TIMEOUT_SECONDS)
        try:
            data = _read(published, response)
        finally:
            response.close()
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"the server answers {error.code} {error.reason}"
        if error.code in _TRANSIENT:
            raise _Transient(answer) from error
        raise _failed(published, answer) from error
    except urllib.error.URLError as error:
        raise _Transient(f"cannot be reached: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Transient(f"the connection broke: {str(error) or type(error).__name__}") from error
    if len(data) < published.bytes:
        raise _Transient(f"ended after {len(data)} of {published.bytes} bytes")
    digest = hashlib.sha256(data).hexdigest()
    if digest != published.sha256:
        raise _failed(published, "is another file than the pinned one", value=f"sha256 {digest}")
    return data


def _read(published: Published, response: Response) -> bytes:
    data = bytearray()
    deadline = time.monotonic() + DEADLINE_SECONDS
    with progress_bar(published.bytes, "fetch", "B") as bar:
        while chunk := response.read1(_CHUNK):
            data += chunk
            bar.update(len(chunk))
            if len(data) > published.bytes:
                _refuse_other(published, data)
                raise _failed(
                    published, "is longer than the pinned file", value=f"more than {published.bytes} bytes"
                )
            if time.monotonic() > deadline:
                raise _failed(published, f"is not complete after {DEADLINE_SECONDS:.0f} seconds")
    if data:
        _refuse_other(published, data)
    return bytes(data)


def _refuse_other(published: Published, data: bytearray) -> None:
    other = looks_like(bytes(data[:64]))
    if other:
        raise _failed(published, f"gives {other}, not a model")


def _failed(published: Published, what: str, value: str | None = None) -> KilnError:
    return KilnError(
        what,
        file=published.url,
        value=value,
        limit=f"{published.bytes} bytes, sha256 {published.sha256}",
        hint="put that file, under any name, into a folder and name the folder: --mirror DIR, `mirror:` in "
        "config/config.yaml, or $FACEKILN_MIRROR",
    )
