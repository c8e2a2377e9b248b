"""Fetching: a mirror by hash, an address with limits, and what servers give instead."""

import hashlib
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from facekiln.config import Published
from facekiln.errors import KilnError
from facekiln.models import fetch as module
from facekiln.models.fetch import fetch, find_in_mirror, open_https

WEIGHTS = bytes(range(1, 251)) * 400
PUBLISHED = Published(
    url="https://weights.example/face.pth",
    sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    bytes=len(WEIGHTS),
    source="example/weights",
)


def good(handler: BaseHTTPRequestHandler) -> None:
    answer(handler, WEIGHTS)


def answer(handler: BaseHTTPRequestHandler, body: bytes, length: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


class Server:
    """A local server whose answers are a list of functions, the last of them for ever."""

    def __init__(self) -> None:
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = [good]
        self.asked = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                step = server.answers[min(server.asked, len(server.answers) - 1)]
                server.asked += 1
                step(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/face.pth"

    def open(self, url: str, timeout: float) -> module.Response:
        """Stand in for the https opener, with its redirect rule."""
        assert url == PUBLISHED.url
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), module._HttpsOnly)
        stream: module.Response = opener.open(self.url, timeout=timeout)
        return stream


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "RETRY_AFTER_SECONDS", 0.01)
    running = Server()
    thread = threading.Thread(target=running.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield running
    running.http.shutdown()
    running.http.server_close()
    thread.join()


def refused(server: Server, folder: Path) -> str:
    """Fetch, expect a refusal that leaves nothing behind, and return its message."""
    with pytest.raises(KilnError) as caught:
        fetch(PUBLISHED, folder / "out.pth", None, opener=server.open)
    assert list(folder.iterdir()) == []
    return str(caught.value)


# The mirror


def no_network(url: str, timeout: float) -> module.Response:
    raise AssertionError("the address was asked although the mirror has the file")


def test_the_mirror_is_searched_first_by_hash_and_not_by_name(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror" / "deep" / "er"
    mirror.mkdir(parents=True)
    (mirror / "face.pth").write_bytes(WEIGHTS[::-1])
    (mirror / "x y.bin").write_bytes(WEIGHTS)
    source = fetch(PUBLISHED, tmp_path / "out" / "r.pth", tmp_path / "mirror", opener=no_network)
    assert source == str(mirror / "x y.bin")
    assert (tmp_path / "out" / "r.pth").read_bytes() == WEIGHTS


def test_only_files_of_the_pinned_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large").write_bytes(WEIGHTS + b"x")
    (tmp_path / "small").write_bytes(WEIGHTS[1:])
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    assert find_in_mirror(PUBLISHED, tmp_path) is None


def test_a_mirror_that_is_no_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(KilnError, match="the mirror is not a folder"):
        fetch(PUBLISHED, tmp_path / "out.pth", tmp_path / "none", opener=no_network)


def test_the_address_is_asked_where_the_mirror_has_nothing(tmp_path: Path, server: Server) -> None:
    (tmp_path / "mirror").mkdir()
    assert fetch(PUBLISHED, tmp_path / "o.pth", tmp_path / "mirror", opener=server.open) == PUBLISHED.url
    assert (tmp_path / "o.pth").read_bytes() == WEIGHTS


@pytest.mark.published
def test_the_three_published_files_of_one_size_are_told_apart(mirror: Callable[[str], Path]) -> None:
    for name in ("retinaface_mnet025.pth", "retinaface_1mb_mnet025.pth"):
        path = mirror(name)
        pinned = Published(
            "https://x", hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size, "x"
        )
        found = find_in_mirror(pinned, path.parent)
        assert found is not None
        assert Path(found[0]).name == name


# The address


def test_a_refusal_by_the_caller_writes_nothing(tmp_path: Path, server: Server) -> None:
    seen = []

    def accept(data: bytes, name: str) -> None:
        seen.append((len(data), name))
        raise KilnError("wrong variant", file=name)

    with pytest.raises(KilnError, match="wrong variant"):
        fetch(PUBLISHED, tmp_path / "out.pth", None, accept=accept, opener=server.open)
    assert seen == [(len(WEIGHTS), PUBLISHED.url)]
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_hash_is_refused_with_both_hashes(tmp_path: Path, server: Server) -> None:
    other = WEIGHTS[::-1]
    server.answers = [lambda handler: answer(handler, other)]
    told = refused(server, tmp_path)
    assert "another file than the pinned one" in told
    assert hashlib.sha256(other).hexdigest() in told
    assert PUBLISHED.sha256 in told
    assert PUBLISHED.url in told
    assert "--mirror" in told
    assert server.asked == 1


def test_an_existing_output_survives_a_failure(tmp_path: Path, server: Server) -> None:
    (tmp_path / "out.pth").write_bytes(b"before")
    server.answers = [lambda handler: answer(handler, b"other")]
    with pytest.raises(KilnError):
        fetch(PUBLISHED, tmp_path / "out.pth", None, opener=server.open)
    assert (tmp_path / "out.pth").read_bytes() == b"before"


@pytest.mark.parametrize("repeat", [1, 10_000], ids=["short", "longer than the file"])
def test_a_web_page_is_called_one(tmp_path: Path, server: Server, repeat: int) -> None:
    server.answers = [lambda handler: answer(handler, b"<!DOCTYPE html><p>Sign in to the network" * repeat)]
    assert "gives a web page or XML, not a model" in refused(server, tmp_path)
    assert server.asked == 1


def test_a_short_answer_is_tried_once_more(tmp_path: Path, server: Server) -> None:
    server.answers = [lambda handler: answer(handler, WEIGHTS[:777], len(WEIGHTS)), good]
    fetch(PUBLISHED, tmp_path / "out.pth", None, opener=server.open)
    assert server.asked == 2


def test_two_short_answers_are_refused(tmp_path: Path, server: Server) -> None:
    server.answers = [lambda handler: answer(handler, WEIGHTS[:777])]
    assert f"ended after 777 of {len(WEIGHTS)} bytes" in refused(server, tmp_path)
    assert server.asked == 2


def test_an_endless_answer_is_ended_at_the_pinned_size(tmp_path: Path, server: Server) -> None:
    sent = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while len(sent) < 4000:
                handler.wfile.write(b"x" * 65536)
                sent.append(65536)
        except OSError:
            return

    server.answers = [endless]
    assert "is longer than the pinned file" in refused(server, tmp_path)
    time.sleep(0.1)
    assert len(sent) < 1000, "what was sent fits the sockets' buffers"


@pytest.mark.parametrize(("code", "times"), [(404, 1), (403, 1), (503, 2), (429, 2)])
def test_a_refusing_server_is_named_and_asked_again_only_where_that_may_help(
    tmp_path: Path, server: Server, code: int, times: int
) -> None:
    server.answers = [lambda handler: handler.send_error(code)]
    assert f"the server answers {code} " in refused(server, tmp_path)
    assert server.asked == times


def test_a_silent_server_is_given_up(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.1)
    server.answers = [lambda _handler: time.sleep(0.3)]
    assert "timed out" in refused(server, tmp_path)
    for _ in range(600):  # its threads may come to it later than we give up
        if server.asked == 2:
            break
        time.sleep(0.05)
    assert server.asked == 2


def test_a_trickling_server_is_given_up(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEADLINE_SECONDS", 0.1)

    sent = []

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(3000):
                sent.append(1)
                handler.wfile.write(b"y")
                time.sleep(0.02)
        except OSError:
            return

    server.answers = [trickle]
    assert "is not complete after" in refused(server, tmp_path)
    assert 0 < len(sent) < 3000


def test_no_network_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_AFTER_SECONDS", 0.01)

    def unreachable(url: str, timeout: float) -> module.Response:
        raise urllib.error.URLError(OSError("Name or service not known"))

    with pytest.raises(KilnError, match=r"(?s)cannot be reached: Name or service not known.*--mirror DIR"):
        fetch(PUBLISHED, tmp_path / "out.pth", None, opener=unreachable)


def test_a_redirect_to_http_is_refused(tmp_path: Path, server: Server) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", server.url)
        handler.end_headers()

    server.answers = [redirect, good]
    told = refused(server, tmp_path)
    assert "not an https address" in told
    assert server.asked == 1


@pytest.mark.parametrize("url", ["http://weights.example/x", "file:///etc/passwd", "ftp://x/y"])
def test_only_https_is_opened(url: str) -> None:
    with pytest.raises(KilnError, match="not an https address"):
        open_https(url, 1.0)
