"""Tests that no secret of a URL appears in messages, statistics, tracebacks, files or the process list."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from command import MODEL, invoke
from hypothesis import given, settings
from hypothesis import strategies as st
from live_server import RtspServer, encode_rtp, paced

from rtseg.core.errors import OptionError, RtsegError
from rtseg.core.process_title import masked
from rtseg.core.secrets import forget, parse_url, redact, redacted_name, redacted_pipeline, redacted_url, remember
from rtseg.io.gstreamer.process import explain
from rtseg.io.inputs.safe_open import open_input
from rtseg.live.inputs import find_inputs
from rtseg.live.options import Outputs
from rtseg.live.sinks.push import PushSink
from rtseg.video.output_names import find_inputs as find_files


@pytest.fixture(autouse=True)
def forget_secrets() -> Iterator[None]:
    """Remove the registered secrets after each test."""
    yield
    forget()


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("rtsp://me:pa:ss@cam:554/live/1", "rtsp://cam:554/live/1"),
        ("rtsp://cam/?user=me&password=pass", "rtsp://cam/"),
        ("http://me@cam/ab#pass", "http://cam/ab"),
        ("udp://@:1234", "udp://:1234"),
        ("https://me:p@ss@cam/x", "https://cam/x"),
        ("rtsp://me@example.com:pw@cam/stream", "rtsp://cam/stream"),
        ("RTSP://me:pw@[fe80::1%25eth0]:554/h264/ch1/main/av_stream", "rtsp://[fe80::1%25eth0]:554/h264/ch1/main/av_stream"),
        ("rtsp://me:pa[s]s@cam/x", "rtsp://cam/x"),
        ("rtsp://me:pa\\ss |'\"@cam/x", "rtsp://cam/x"),
        ("rtsp://nvr/Streaming/Channels/1601", "rtsp://nvr/Streaming/Channels/1601"),
        ("rtsp://nvr/cam/realmonitor?channel=2&subtype=0&token=abcdef", "rtsp://nvr/cam/realmonitor?channel=2&subtype=0"),
        ("rtsp://cam/user=admin_password=xyz_channel=1_stream=0.sdp", "rtsp://cam/***"),
        ("rtsp://cam/stream;password=hunter", "rtsp://cam/***"),
        ("rtmp://live.twitch.tv/app/live_123_key", "rtmp://live.twitch.tv/app/***"),
        ("rtmp://host/live/street", "rtmp://host/live/***"),
        ("rtmp://host/app/key pubUser=me pubPasswd=x", "rtmp://host/app/***"),
        ("srt://host:9000?passphrase=secret&mode=caller", "srt://host:9000?mode=caller"),
        ("rtsp://me:pa/ss@cam/x", "rtsp://***"),
        ("rtsp://me:12/34@cam/x", "rtsp://***"),
        ("rtsp://me:pa?ss@cam/x", "rtsp://***"),
        ("rtsp://me:pa#ss@cam/x", "rtsp://***"),
        ("rtsp:///me:pass@cam/x", "rtsp://***"),
        ("me:pw@cam/x", "***"),
        ("rtsp:/me:pw@cam/x", "***"),
        ("hunter2://cam/x", "***"),
    ],
)  # fmt: skip
def test_redacted_url_has_no_secrets(url: str, redacted: str) -> None:
    assert redacted_url(url) == redacted


@pytest.mark.parametrize(
    "url", ["rtsp://me:pa/ss@cam/x", "rtsp://me:pa?ss@cam", "rtsp://me:p[#@cam/x", "rtsp://cam:x/", "http://a:99999/"]
)
def test_ambiguous_url_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(OptionError, match="%2F") as failure:
        find_inputs(urls=[url])
    assert "\n" not in str(failure.value)
    assert url.partition("://")[2] not in str(failure.value)


def test_invalid_port_is_reported_without_the_url() -> None:
    with pytest.raises(OptionError, match="ports end at 65535") as failure:
        find_inputs(urls=["rtsp://me:s3cret@cam:99999/st"])
    assert "s3cret" not in str(failure.value)


def test_percent_encoded_password_is_not_modified() -> None:
    url = parse_url("RTSP://me:p%2Fa%5Bs%40s@cam:8554/x?y=1")
    parts = (url.scheme, url.user_info, url.host, url.port, url.tail)
    assert parts == ("rtsp", "me:p%2Fa%5Bs%40s", "cam", 8554, "/x?y=1")
    assert url.text == "rtsp://me:p%2Fa%5Bs%40s@cam:8554/x?y=1"


def test_cameras_with_equal_redacted_urls_get_numbers() -> None:
    titles = [entry.title for entry in find_inputs(urls=["rtsp://nvr/abcdef", "rtsp://nvr/ghijkl", "rtsp://nvr/live"])]
    assert titles == ["rtsp://nvr/*** (url1)", "rtsp://nvr/*** (url2)", "rtsp://nvr/live"]


def test_file_names_are_not_redacted(tmp_path: Path) -> None:
    odd = tmp_path / "12:30 me@home.mp4"
    odd.touch()
    for name in ("drive.mp4", "me@home.mp4", "C:\\drive.mp4", "a=b.mp4", str(odd)):
        assert redacted_name(name) == name


@pytest.mark.parametrize("pipeline", ["://me:hunter2@cam ! x", "x location='://me:hunter2@cam'"])
def test_pipeline_with_credentials_and_no_scheme_is_hidden(pipeline: str) -> None:
    assert redacted_pipeline(pipeline) == "***"


# Fuzz

_LETTERS = "qxzjQXZJ79"
_SPECIAL = "/#?[]@:% &\\|'\";=+ü€~,!$*()<>{}^`"
_SECRETS = st.builds(
    lambda parts, nasty: "".join(a + b for a, b in zip(parts, [*nasty, ""], strict=False)),
    st.lists(st.text(_LETTERS, min_size=4, max_size=6), min_size=2, max_size=4),
    st.lists(st.text(_SPECIAL, min_size=0, max_size=2), min_size=4, max_size=4),
)
_URL_TEMPLATES = """
rtsp://me:{}@127.0.0.1:1/stream
rtsp://{}:pw@127.0.0.1:1/stream
rtsp://{}@127.0.0.1:1/
rtsp://:{}@127.0.0.1:1/stream
http://me@mail.com:{}@127.0.0.1:1/x
rtsp://me:{}@[::1]:1/live
rtsp://127.0.0.1:1/user=me_password={}_channel=1.sdp
rtmp://127.0.0.1:1/live/{}
http://127.0.0.1:1/{}/video.mjpg
http://127.0.0.1:1/x?usr=me&PWD={}
http://127.0.0.1:1/x?{}
http://127.0.0.1:1/x?X-Amz-Signature={}&channel=1
rtsp://127.0.0.1:1/live;password={}
http://127.0.0.1:1/x#{}
http://127.0.0.1:1/x?url=rtsp://me:{}@cam/x
RTSP://127.0.0.1:1/STREAM?TOKEN={}
srt://127.0.0.1:1?passphrase={}&streamid=a
rtsp:/me:{}@127.0.0.1/x
rtsp:me:{}@127.0.0.1
me:{}@127.0.0.1/stream
rtspt://me:{}@127.0.0.1/x
127.0.0.1/password={}
rtsp+tcp://me:{}@127.0.0.1/x
rtmp://127.0.0.1:1/app/ pubUser=me pubPasswd={}
rtsp:///me:{}@127.0.0.1/x
//me:{}@127.0.0.1
rtsp://me:{}@127.0.0.1:port/x
tcp://127.0.0.1:1?{}
-headers Authorization: Basic {} http://127.0.0.1:1/
""".strip().splitlines()
_ENCODINGS = (str, lambda text: quote(text, safe=""), quote, str.upper, lambda text: quote(quote(text)))
_URLS = st.tuples(_SECRETS, st.sampled_from(_URL_TEMPLATES), st.sampled_from(_ENCODINGS)).map(
    lambda drawn: (drawn[0], drawn[1].format(drawn[2](drawn[0])))
)


def pieces(secret: str) -> set[str]:
    """Return all parts of four characters with at least three rare ones, which no message contains by chance."""
    forms = {secret, secret.upper(), quote(secret), quote(secret, safe=""), unquote(secret)}
    parts = {form[begin : begin + 4] for form in forms for begin in range(len(form) - 3)}
    return {part for part in parts if sum(character in _LETTERS for character in part) >= 3}


def assert_hidden(secret: str, text: str) -> None:
    assert not [part for part in pieces(secret) if part in text], text


def result_or_error(function: object) -> str:
    """Return the result of a function as text, or its error message. Any other exception fails the test."""
    try:
        return str(function())  # type: ignore[operator]
    except RtsegError as error:
        return str(error)


@settings(max_examples=400, deadline=None)
@given(_URLS)
def test_formatters_and_errors_contain_no_secret(drawn: tuple[str, str]) -> None:
    secret, url = drawn
    messages = [
        redacted_url(url),
        redacted_name(url),
        result_or_error(lambda: repr(parse_url(url))),
        result_or_error(lambda: [(entry.name, entry.title) for entry in find_inputs(urls=[url])]),
        result_or_error(lambda: find_inputs(urls=[url], realtime=True)[0].title),
        result_or_error(lambda: find_files([url]) and "a file"),
        result_or_error(lambda: Outputs(record=url, push=(url,)).check()),
        redacted_pipeline(f"rtspsrc location='{url}' ! decodebin") if "://" in url else "",
        explain([f"ERROR: from element /a: Could not open {url}. (Generic)"], 1) if "://" in url else "",
    ]
    for text in messages:
        assert_hidden(secret, text)
    for arguments in (
        ["--url", url],
        [f"--url={url}"],
        ["--push", url],
        [f"--push={url}"],
        ["live", "--token", secret],
    ):
        masked_arguments = masked(["rtseg", *arguments, "--quiet"])
        assert_hidden(secret, " ".join(masked_arguments))
        assert [len(os.fsencode(one)) for one in masked_arguments[1:-1]] == [len(os.fsencode(one)) for one in arguments]


@settings(max_examples=60, deadline=None)
@given(_URLS)
def test_errors_of_failed_connections_contain_no_secret(drawn: tuple[str, str]) -> None:
    secret, url = drawn

    def connect() -> None:
        (entry,) = find_inputs(urls=[url], timeout_seconds=2)
        if entry.pipeline is None:
            entry.connect()

    assert_hidden(secret, result_or_error(connect))
    assert_hidden(secret, result_or_error(lambda: open_input(url)))
    with contextlib.suppress(OptionError):
        assert_hidden(secret, Outputs(push=(url,)).check() or "")
        assert_hidden(secret, "" if url.lower().startswith("srt") else PushSink(url).name)


_COMMANDS = """
{}
live {}
live --url {} --show none --dry-run
live --camera-fps {}
live --camera {}
live --camera 0 --record {}
live --camera 0 --push {}
video -v {} --model MODEL
image {} --model MODEL
""".strip().splitlines()


@settings(max_examples=40, deadline=None)
@given(_URLS, st.sampled_from(_COMMANDS))
def test_output_of_commands_contains_no_secret(drawn: tuple[str, str], command: str) -> None:
    secret, url = drawn
    result = invoke(*(word.format(url).replace("MODEL", str(MODEL)) for word in command.split()))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert_hidden(secret, result.output)


# The process


def test_traceback_contains_no_secrets(tmp_path: Path) -> None:
    script = (
        "import sys, rtseg.cli.app as cli, rtseg.live.inputs as inputs\n"
        "def broken(**given): raise KeyError(given['urls'][0] + ' and hunter%2F2zz')\n"
        "inputs.find_inputs = broken\n"
        "cli.main()\n"
    )
    url = "rtsp://me:hunter%2F2zz@cam/x"
    command = [sys.executable, "-c", script, "live", "--url", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "KeyError" in done.stderr
    assert "hunter" not in done.stderr + done.stdout


def test_redact_keeps_ordinary_words() -> None:
    remember("rtsp://user:pass/word9@host/x")
    assert redact("the user name and the host", words=False) == "the user name and the host"
    assert redact("can't read rtsp:/user:pass/word9@host/x", words=False) == "can't read ***"


class Camera(RtspServer):
    """RTSP server with a password that contains every special character of a URL."""

    USER, PASSWORD = "me", "p@ss/w?r#d[7]: x"

    @property
    def url(self) -> str:
        address = f"127.0.0.1:{self.port}/user=me_password=s3cretPath?token=s3cretQuery#s3cretEnd"
        return f"rtsp://me:{quote(self.PASSWORD, safe='')}@{address}"


SECRETS = ("p@ss", "w?r#", "p%40ss", "%2Fw", "s3cret", "[7]", "%5B7", "s3cr3tKey", "t0ken-0f-mine")


def visible_arguments(pid: int) -> list[str]:
    """Return the arguments of a process and its children, which every user can read."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    pids = [str(pid), *(child for task in tasks for child in (task / "children").read_text().split())]
    return [Path(f"/proc/{each}/cmdline").read_bytes().decode(errors="replace") for each in pids]


@pytest.mark.timeout(150)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux allows a process to change its title")
def test_live_run_with_a_password_leaks_no_secret(tmp_path: Path) -> None:
    out, lines, stats = tmp_path / "out.mp4", tmp_path / "lines.jsonl", tmp_path / "s.json"
    chunks = encode_rtp(40)
    with Camera(lambda _: paced(chunks * 30)) as camera:
        options = (
            f"--model {MODEL} --size 96x64 --show web --address 127.0.0.1:0 --token t0ken-0f-mine --record {out} --jsonl {lines} "
            f"--stats {stats} --push rtmp://127.0.0.1:1/live/s3cr3tKey --reconnect-max 1"
        )
        command = [sys.executable, "-m", "rtseg", "live", "--url", camera.url, *options.split()]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            outputs = []
            deadline = time.monotonic() + 90
            while not lines.exists() or len(lines.read_text().splitlines()) < 15:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline, "no frame was processed"
                time.sleep(0.1)
            outputs += visible_arguments(process.pid)
            port = next(port for port in ports_of(process.pid) if port)
            token = {"Authorization": "Bearer t0ken-0f-mine"}
            for path in ("/", "/stats", "/metrics", "/about", "/controls"):
                request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=token)
                outputs.append(urllib.request.urlopen(request, timeout=20).read().decode())
            camera.stop()  # the disconnect is reported too
            time.sleep(2)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                messages = process.communicate(timeout=40)
            finally:
                process.kill()
    outputs += [*messages, lines.read_text(), stats.read_text(), out.read_bytes().decode("latin-1")]
    assert f"@127.0.0.1:{camera.port}/" in outputs[0]
    assert f"--stats\0{stats}\0" in outputs[0]
    assert json.loads(stats.read_text())["input"] == f"rtsp://127.0.0.1:{camera.port}/***"
    assert f"rtsp://127.0.0.1:{camera.port}/***: " in messages[1]
    assert "Traceback" not in messages[1]
    for secret in SECRETS:
        leaks = [text[:300] for text in outputs if secret in text]
        assert not leaks, f"{secret} in {leaks}"


def ports_of(pid: int) -> list[int]:
    """Return the TCP ports on which a process listens (proc_pid_net(5))."""
    sockets = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
