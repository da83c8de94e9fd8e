"""Live sources: disconnects, stalls, reconnects, format changes, clock jumps, file playback, passwords."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from av.container import InputContainer
from live_server import RtspServer, TcpServer, UdpSender, encode_rtp, encode_ts, free_port, paced
from media import number_of, write_video

from rtseg.core.errors import Disconnected, OptionError, SourceError
from rtseg.core.frame import Color, Frame, StreamInfo
from rtseg.io.inputs import Source, open_source
from rtseg.io.inputs.connection import Connection
from rtseg.io.inputs.live_clock import TIME_BASE
from rtseg.io.inputs.network import open_stream
from rtseg.io.inputs.packets import DemuxedPackets
from rtseg.live.file_playback import FilePlayback
from rtseg.live.inputs import find_inputs
from rtseg.live.reconnect import ReconnectingSource

TIMEOUT = 6.0


def take(source: Source, count: int) -> list[Frame]:
    """Return the first frames of a source, and close it."""
    frames = [item for item in itertools.islice(source, count) if isinstance(item, Frame)]
    source.close()
    assert len(frames) == count
    return frames


def read_until_disconnected(source: Source) -> tuple[list[Frame], str]:
    """Return all frames of a source and the message of its disconnect, and close it."""
    frames: list[Frame] = []
    try:
        frames.extend(item for item in source if isinstance(item, Frame))
    except Disconnected as error:
        return frames, str(error)
    finally:
        source.close()
    pytest.fail("a live source must end with Disconnected")


def read_stream(chunks: list[bytes]) -> tuple[list[Frame], str, Source]:
    """Return all frames of a TCP stream, the message of its disconnect, and the closed source."""
    with TcpServer(lambda _: paced(chunks, 4)) as server:
        source = open_stream(server.url, timeout_seconds=TIMEOUT)
        return *read_until_disconnected(source), source


def rising(frames: list[Frame]) -> bool:
    return all(before.pts < after.pts for before, after in itertools.pairwise(frames))


def reconnecting(server: TcpServer, log: list[str], **options: float) -> ReconnectingSource:
    return ReconnectingSource(
        "door", lambda: open_stream(server.url, timeout_seconds=TIMEOUT), log=log.append, **options
    )  # type: ignore[arg-type]


def take_during_restart(source: ReconnectingSource, server: TcpServer, stopped_seconds: float) -> list[Frame]:
    """Return 50 frames of a source, and close it; the server stops for a while after 20 frames."""
    frames = []
    for frame in itertools.islice(source, 50):
        frames.append(frame)
        if len(frames) == 20:
            server.stop()
            threading.Timer(stopped_seconds, server.start).start()
    source.close()
    return frames


# Connections


def test_tcp_stream_yields_all_frames_with_timestamps() -> None:
    frames, message, source = read_stream(encode_ts(40))
    assert [number_of(frame) for frame in frames] == list(range(40))
    assert (source.info.width, source.info.height, source.info.codec) == (96, 64, "h264")
    assert frames[-1].pts_seconds - frames[0].pts_seconds == pytest.approx(39 / 30, abs=0.001)
    assert all(before.captured_ns < after.captured_ns for before, after in itertools.pairwise(frames))
    assert "ended" in message
    assert source.corrupt == 0
    assert source.info.frame_rate == 30
    assert source.info.name.startswith("tcp://127.0.0.1:")


def test_udp_stream_yields_frames_and_ends_after_silence() -> None:
    chunks = encode_ts(60)
    with UdpSender(paced(chunks * 2, 2)) as sender:
        frames, message = read_until_disconnected(open_stream(sender.url, timeout_seconds=TIMEOUT))
    numbers = [number_of(frame) for frame in frames]
    assert len(numbers) >= 20
    assert numbers[0] % 10 == 0, "frames before the first key frame are skipped"
    assert numbers[:20] == [(numbers[0] + index) % 60 for index in range(20)]
    assert "127.0.0.1" in message


def test_reconnects_after_rtsp_server_restart() -> None:
    chunks = encode_rtp(40, size=(320, 192))
    log: list[str] = []
    with RtspServer(lambda _: paced(chunks, 2)) as server:
        source = reconnecting(server, log)
        frames = take_during_restart(source, server, 0.3)
        wrong = server.url.replace("s3cret", "guess")
        with pytest.raises(Disconnected, match=rf"can't open rtsp://127.0.0.1:{server.port}/cam: .*401") as caught:
            open_stream(wrong, timeout_seconds=TIMEOUT)
    assert [number_of(frame) for frame in frames[:20]] == list(range(20))
    assert rising(frames)
    assert source.disconnects.count >= 1
    assert "s3cret" not in "".join(log) + str(caught.value)


@pytest.mark.parametrize("good", [0, 40])
def test_undecodable_stream_is_reported_with_reason(monkeypatch: pytest.MonkeyPatch, good: int) -> None:
    monkeypatch.setattr("rtseg.io.inputs.connection.UNDECODABLE_SECONDS", 0.0)
    bad = encode_rtp(80, without=(7, 8))
    if good:  # good frames first, then slices that refer to missing parameter sets (31)
        bad = encode_rtp(good) + [chunk[:17] + b"\x88\x04\0" + chunk[20:] for chunk in bad[1:]]
    log: list[str] = []
    with RtspServer(lambda number: paced(encode_rtp(10) if number else bad, 4)) as server:
        frames = take(reconnecting(server, log), good + 10)
    assert [number_of(frame) for frame in frames] == [*range(good), *range(10)]
    (line,) = [line for line in log if "decoded" in line]
    assert "frames arrive, but none of the last" in line
    assert ("the stream has no parameter sets (SPS and PPS)" in line) == (not good)
    assert "s3cret" not in line


def test_damaged_packets_lose_only_affected_frames() -> None:
    chunks = encode_ts(60)
    broken = [
        chunk if index not in (23, 24) else chunk[:188] + b"\x47\x1f\xff\x10" * 47 for index, chunk in enumerate(chunks)
    ]
    numbers = [number_of(frame) for frame in read_stream(broken)[0]]
    assert set(numbers) >= {*range(23), *range(30, 60)}
    assert 60 - len(numbers) >= 1


def test_undecodable_frame_counts_as_corrupt() -> None:
    chunks = encode_ts(60)
    chunks[14] = chunks[14][:120] + bytes(len(chunks[14]) - 120)
    frames, _, source = read_stream(chunks)
    assert source.corrupt == 1
    assert {number_of(frame) for frame in frames} >= {*range(14), *range(20, 60)}
    assert len(frames) + source.corrupt == 60


@pytest.mark.parametrize(("size", "pix_fmt"), [((128, 96), "yuv420p"), ((96, 64), "yuv444p")])
def test_format_change_within_stream_changes_frames(size: tuple[int, int], pix_fmt: str) -> None:
    second = encode_ts(10, size=size, first=10, start_seconds=1 / 3, pix_fmt=pix_fmt)
    frames, _, source = read_stream([*encode_ts(10), *second])
    formats = [(frame.width, frame.height, frame.pixel_format) for frame in frames]
    assert formats == [(96, 64, "yuv420p")] * 10 + [(*size, pix_fmt)] * 10
    assert [number_of(frame) for frame in frames] == list(range(20))
    assert (source.info.width, source.info.height) == size


def test_close_from_another_thread_ends_iteration() -> None:
    chunks = encode_ts(30)
    with TcpServer(lambda _: paced(chunks * 100)) as server:
        source = open_stream(server.url, timeout_seconds=TIMEOUT)
        threading.Timer(0.3, source.close).start()
        for _ in source:
            pass
        source.close()


# Sources that can't be opened


def test_refused_connection_error_contains_no_password() -> None:
    port = free_port()
    for url in (f"http://me:s3cret@127.0.0.1:{port}/cam?pw=s3cret", f"rtsp://me:s3cret@127.0.0.1:{port}/cam?pw=s3cret"):
        with pytest.raises(Disconnected, match=rf"127.0.0.1:{port}/cam: .*refused") as caught:
            open_stream(url, timeout_seconds=TIMEOUT)
        assert "s3cret" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_open_stream_times_out_on_silent_server(never: threading.Event) -> None:
    def silent(_: int) -> Iterator[bytes]:
        never.wait(60)
        yield b""

    with TcpServer(silent) as server:
        for url in (server.url, server.url.replace("tcp", "rtsp") + "/cam", server.url.replace("tcp", "http") + "/cam"):
            with pytest.raises(Disconnected, match="can't open"):
                open_stream(url, timeout_seconds=0.5)
            # the server accepts one connection at a time
            server.stop()
            server.start()


def test_playlist_cannot_read_local_files(tmp_path: Path) -> None:
    video = write_video(tmp_path / "private.ts")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{video}\n#EXT-X-ENDLIST\n".encode()
    answer = b"HTTP/1.0 200 OK\r\nContent-Type: application/vnd.apple.mpegurl\r\n\r\n" + playlist
    with TcpServer(lambda _: [answer]) as server:
        for path in ("cam.m3u8", "cam.ts"):
            with pytest.raises(SourceError):
                open_stream(f"http://127.0.0.1:{server.port}/{path}", timeout_seconds=TIMEOUT)


def test_invalid_inputs_are_refused_without_opening() -> None:
    with pytest.raises(OptionError, match="--realtime"):
        find_inputs(urls=["drive.mp4"])
    with pytest.raises(OptionError, match="given twice"):
        find_inputs(cameras=["0", "/dev/video0"])
    with pytest.raises(OptionError, match="--camera 0"):
        find_inputs()
    with pytest.raises(OptionError, match="gopher"):
        find_inputs(urls=["gopher://x/"])[0].connect()
    with pytest.raises(OptionError, match="give its number"):
        find_inputs(cameras=["front"])
    with pytest.raises(Disconnected, match="there is no /dev/video77"):
        find_inputs(cameras=["77"])[0].connect()


# Reconnecting


def test_reconnects_after_server_restart() -> None:
    chunks = encode_ts(30)
    log: list[str] = []
    with TcpServer(lambda _: paced(chunks, 2)) as server:
        source = reconnecting(server, log)
        frames = take_during_restart(source, server, 0.7)
    assert rising(frames)
    assert [frame.index for frame in frames] == list(range(50))
    assert all(frame.time_base == TIME_BASE for frame in frames)
    gap = max(range(1, 50), key=lambda i: frames[i].pts - frames[i - 1].pts)
    passed = (frames[gap].captured_ns - frames[gap - 1].captured_ns) / 1e9
    assert frames[gap].pts_seconds - frames[gap - 1].pts_seconds == pytest.approx(passed, abs=0.05)
    assert passed > 0.4
    assert source.disconnects.count >= 1
    assert 0.2 < source.disconnects.seconds <= passed + 0.05 or source.disconnects.count > 1
    assert "reconnecting" in log[0]
    assert any("frames again" in line for line in log)


def test_stall_causes_disconnect_and_reconnect(never: threading.Event) -> None:
    chunks = encode_ts(20)

    def stalls(number: int) -> Iterator[bytes]:
        yield from paced(chunks, 2)
        if number == 0:
            never.wait(60)

    log: list[str] = []
    server = TcpServer(stalls)
    # the stalled connection stays open, so the next one needs another server
    server_two = TcpServer(lambda _: paced(chunks, 2))
    urls = iter([server.url, *[server_two.url] * 20])
    source = ReconnectingSource("door", lambda: open_stream(next(urls), timeout_seconds=2.0), log=log.append)
    frames = take(source, 30)
    server.stop()
    server_two.stop()
    assert rising(frames)
    assert source.disconnects.count >= 1
    assert source.disconnects.seconds > 0
    assert any("no data arrived in time" in line for line in log)


def test_pause_of_zero_disables_reconnecting() -> None:
    chunks = encode_ts(20)
    with TcpServer(lambda _: paced(chunks, 4)) as server:
        source = reconnecting(server, [], longest_pause_seconds=0)
        frames = list(source)
        source.close()
    assert [number_of(frame) for frame in frames] == list(range(20))
    assert server.connections == 1
    assert "ended" in source.disconnects.reason
    assert not source.disconnects.connected


def test_reconnect_pauses_grow_and_close_interrupts_them() -> None:
    tries: list[float] = []

    def fails() -> object:
        tries.append(time.monotonic())
        raise Disconnected("door: connection refused")

    source = ReconnectingSource("door", fails)  # type: ignore[arg-type]
    thread = threading.Thread(target=lambda: list(source))
    thread.start()
    assert source.connect_attempted.wait(60)
    assert not source.disconnects.connected
    assert "refused" in source.disconnects.reason
    while len(tries) < 4:  # bounded by the time limit of the test
        time.sleep(0.05)
    source.close()
    thread.join(60)
    assert not thread.is_alive()
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    assert pauses[0] >= 0.25
    assert pauses[2] >= 1.0


class TimedSource(Source):
    """Source of frames captured at these times in seconds."""

    info = StreamInfo("door", 2, 2, "yuv420p", Color("bt709", False), TIME_BASE)

    def __init__(self, seconds: Sequence[float]) -> None:
        self._seconds = seconds

    def __iter__(self) -> Iterator[Frame]:
        plane = np.zeros((2, 2), np.uint8)
        for index, when in enumerate(self._seconds):
            stamp = round(when / TIME_BASE)
            yield Frame(
                (plane, plane[:1, :1], plane[:1, :1]), "yuv420p", self.info.color, stamp, TIME_BASE, index,
                captured_ns=round(when * 1e9) + 1,
            )  # fmt: skip

    def close(self) -> None:
        pass


def disconnects_of(steps: Iterable[float]) -> tuple[int, float, list[str]]:
    """Return the number, total length and log lines of the disconnects in frames at these intervals."""
    log: list[str] = []
    seconds = list(itertools.accumulate(steps, initial=100.0))
    source = ReconnectingSource("door", lambda: TimedSource(seconds), longest_pause_seconds=0, log=log.append)
    take(source, len(seconds))
    return source.disconnects.count, source.disconnects.seconds, [line for line in log if "again" in line]


@pytest.mark.parametrize("step", [0.03, 0.9, 1.5, 4.0, 60.0])
def test_regular_frame_interval_is_not_a_disconnect(step: float) -> None:
    assert disconnects_of([step] * 12) == (0, 0.0, [])
    assert disconnects_of([step * factor for factor in (1, 1.4, 0.7, 1, 0.5, 1.2)]) == (0, 0.0, [])


@pytest.mark.parametrize(("step", "silence"), [(0.03, 1.2), (0.5, 2.0), (1.5, 5.0)])
def test_unusually_long_gap_is_a_disconnect(step: float, silence: float) -> None:
    count, seconds, log = disconnects_of([*[step] * 6, silence, *[step] * 6, silence, step])
    assert (count, seconds) == (2, pytest.approx(2 * silence))
    assert log == [f"door: frames again after {silence:.1f} s without"] * 2


def test_frame_that_comes_behind_the_gap_does_not_count_it_twice() -> None:
    """With B-frames, a decoder may return the last frame before a gap behind the first one after it."""
    log: list[str] = []
    seconds = [*(100 + index / 10 for index in range(20)), 105, 102, 105.1, 105.2]
    source = ReconnectingSource("door", lambda: TimedSource(seconds), longest_pause_seconds=0, log=log.append)
    assert len(list(source)) == 24
    assert sum("again" in line for line in log) == 1
    assert source.disconnects.count == 2  # with the end of the stream


def test_frames_of_a_live_playlist_are_not_played_again_after_a_reconnection() -> None:
    """A new connection begins some parts before the end of the playlist. A clock that is set far back is another one."""

    class Playlist(TimedSource):
        is_live_playlist = True

    starts = iter([100, 100.2, 3])
    source = ReconnectingSource(
        "door", lambda: Playlist([start + index / 50 for start in [next(starts)] for index in range(20)])
    )
    frames = take(source, 50)
    assert rising(frames)
    assert source.disconnects.count == 2


def test_slower_camera_has_disconnects_only_until_its_new_interval_is_measured() -> None:
    count, _, _ = disconnects_of([*[0.03] * 50, *[2.0] * 50])
    assert 1 <= count <= 6


# File playback


def test_file_playback_yields_frames_when_due(tmp_path: Path) -> None:
    video = write_video(tmp_path / "drive.mp4", frames=20, rate=25)
    source = FilePlayback(lambda: open_source(video))
    frames, arrivals = [], []
    for frame in source:
        frames.append(frame)
        arrivals.append(time.monotonic_ns())
    source.close()
    assert [number_of(frame) for frame in frames] == list(range(20))
    assert [frame.pts for frame in frames] == [3600 * index for index in range(20)]
    dues = [frame.captured_ns for frame in frames]
    assert all(arrival >= due for arrival, due in zip(arrivals, dues, strict=True))
    assert (dues[-1] - dues[0]) / 1e9 >= 19 / 25 - 0.001


def test_looped_file_has_rising_pts(tmp_path: Path) -> None:
    video = write_video(tmp_path / "drive.mp4", frames=10, rate=50)
    source = FilePlayback(lambda: open_source(video), loop=True)
    frames = take(source, 35)
    assert [number_of(frame) for frame in frames] == [index % 10 for index in range(35)]
    steps = {after.pts - before.pts for before, after in itertools.pairwise(frames)}
    assert steps == {1800}
    assert [frame.index for frame in frames] == list(range(35))


def test_open_source_accepts_urls_and_cameras() -> None:
    chunks = encode_ts(12)
    with TcpServer(lambda _: paced(chunks, 4)) as server:
        frames, _ = read_until_disconnected(open_source(server.url))
    assert [number_of(frame) for frame in frames] == list(range(12))
    with pytest.raises(Disconnected, match="/dev/video77"):
        open_source("/dev/video77")


@pytest.mark.parametrize("copies", [True, False])
def test_raw_frames_are_valid_after_device_is_closed(tmp_path: Path, copies: bool) -> None:
    """FFmpeg returns the buffers of V4L2, which are unmapped on close: reading them afterwards crashes."""
    path = tmp_path / "raw.nut"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((72, 64), 99, np.uint8), format="yuv420p")))
    opened = av.open(str(path))
    assert isinstance(opened, InputContainer)
    source = Connection(DemuxedPackets(opened, "camera 0"), "camera 0", copies_raw_frames=copies)
    frame = next(item for item in source if isinstance(item, Frame))
    assert all(plane.flags.owndata == copies for plane in frame.planes)
    source.close()
    assert all((plane == 99).all() for plane in frame.planes)


class OpenRtsp(RtspServer):
    requires_password = False


@pytest.mark.system("gst-launch-1.0", "gst-inspect-1.0")
def test_rtsp_decoded_by_gstreamer() -> None:
    chunks = encode_rtp(90, size=(320, 192))
    with OpenRtsp(lambda _: paced(chunks)) as server:
        frames = take(find_inputs(urls=[server.url], decoder="gstreamer")[0].connect(), 5)
    assert len({number_of(frame) for frame in frames}) == 5
    assert rising(frames)
