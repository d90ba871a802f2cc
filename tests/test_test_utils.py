"""`download` and comparisons."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmod import test_utils as tools
from dmod.base import InvalidArgument, MXNetError
from dmod.ndarray import array


class Handler(BaseHTTPRequestHandler):
    """Serves one file, fails on every other request to /flaky, knows nothing else."""

    seen: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append(self.path)
        flaky = self.path == "/flaky.data" and self.seen.count(self.path) % 2
        self.send_response(500 if flaky else 200 if self.path.endswith(".data") else 404)
        self.end_headers()
        if not flaky and self.path.endswith(".data"):
            self.wfile.write(b"content")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Any:
    Handler.seen = []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join(5)


def test_a_local_path_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "letters 1.data"
    path.write_text("x")
    assert tools.download(str(path)) == str(path)
    assert tools.download(path.as_uri()) == str(path)


def test_a_local_file_is_copied_to_a_given_place(tmp_path: Path) -> None:
    (tmp_path / "a.data").write_text("x")
    copied = tools.download(str(tmp_path / "a.data"), dirname=str(tmp_path / "new" / "place"))
    assert Path(copied) == tmp_path / "new" / "place" / "a.data" and Path(copied).read_text() == "x"
    assert tools.download((tmp_path / "a.data").as_uri(), fname=str(tmp_path / "b")) == str(tmp_path / "b")
    assert tools.download(str(tmp_path / "a.data"), dirname=str(tmp_path), overwrite=True)


def test_a_file_is_fetched_once(server: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert tools.download(f"{server}/some/a.data?x=1".replace("?x=1", "")) == "a.data"
    assert (tmp_path / "a.data").read_text() == "content"
    tools.download(f"{server}/some/a.data")
    assert len(Handler.seen) == 1
    tools.download(f"{server}/some/a.data", overwrite=True)
    assert len(Handler.seen) == 2 and [p.name for p in tmp_path.iterdir()] == ["a.data"]


def test_a_server_error_is_tried_again_and_a_missing_file_is_not(server: str, tmp_path: Path) -> None:
    assert Path(tools.download(f"{server}/flaky.data", dirname=str(tmp_path))).read_text() == "content"
    with pytest.raises(MXNetError, match="Not Found"):
        tools.download(f"{server}/missing", dirname=str(tmp_path))
    assert Handler.seen == ["/flaky.data", "/flaky.data", "/missing"]
    assert [p.name for p in tmp_path.iterdir()] == ["flaky.data"]


def test_without_a_network_the_error_says_how_to_go_on(tmp_path: Path) -> None:
    target = tmp_path / "a.data"
    with pytest.raises(MXNetError, match=rf"put it at '{target}', or pass its local path"):
        tools.download("http://127.0.0.1:9/a.data", dirname=str(tmp_path), retries=2)
    assert not list(tmp_path.iterdir())


def test_what_names_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="pass fname"):
        tools.download("http://127.0.0.1:9/")
    with pytest.raises(MXNetError, match="no such file"):
        tools.download(str(tmp_path / "missing"))
    with pytest.raises(MXNetError, match="no such file"):
        tools.download("ftp2://somewhere/a.data")


def test_arrays_are_compared_within_the_narrower_dtypes_tolerance() -> None:
    tools.assert_almost_equal(array([1.0]), np.array([1.00005]))
    tools.assert_almost_equal(np.array([1.0], np.float16), np.array([1.005]))
    with pytest.raises(AssertionError, match="left and right differ"):
        tools.assert_almost_equal(np.array([1.0]), np.array([1.001]), names=("left", "right"))
    with pytest.raises(AssertionError):
        tools.assert_almost_equal(array([1.0]), array([1.1]))
    with pytest.raises(AssertionError):
        tools.assert_almost_equal(array([np.nan]), array([np.nan]))
    tools.assert_almost_equal(array([np.nan]), array([np.nan]), equal_nan=True)
    assert tools.almost_equal([1, 2], [1, 2]) and not tools.almost_equal([1, 2], [1, 3])
    assert tools.same(array([1]), [1]) and not tools.same(array([1]), [1.0001])
