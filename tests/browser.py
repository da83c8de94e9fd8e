"""Headless Chromium, controlled through chromedriver's HTTP interface (https://www.w3.org/TR/webdriver/)."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--no-zygote",  # zygote processes once hung at exit, could not be killed, and used both cores
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]


class Browser:
    """One browser window."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1360, 800)) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={self._port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._session = ""
        flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
        options = {"binary": shutil.which("chromium"), "args": flags}
        request = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        deadline = time.monotonic() + 120
        while True:
            try:
                self._session = "/session/" + self._request("POST", "/session", request)["sessionId"]
                return
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline:
                    self._driver.kill()
                    raise
                time.sleep(0.1)

    def open(self, url: str) -> None:
        self._request("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        return self._request("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector: str) -> None:
        element = self._request("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]
        self._request("POST", f"/element/{element}/click", {})

    def wait_for(self, script: str, seconds: float = 100.0) -> Any:
        """Run a script repeatedly until its result is true, and return the result."""
        deadline = time.monotonic() + seconds
        while not (result := self.run(script)):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {script}"
            time.sleep(0.1)
        return result

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._request("GET", "/screenshot")))

    def _request(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{self._session}{path}", data, {"Content-Type": "application/json"}
        )
        request.get_method = lambda: method  # type: ignore[method-assign]
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.load(response)["value"]

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._request("DELETE", "")
        finally:
            self._driver.terminate()
            try:
                self._driver.wait(30)
            except subprocess.TimeoutExpired:
                self._driver.kill()
