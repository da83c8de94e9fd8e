"""URLs without their secrets: for messages, statistics, logs, tracebacks and the process list.

A URL can hold a secret anywhere: user name and password, a key in the path (RTMP, cameras of Dahua and XM), a token in the
query. So what is shown is a list of what is allowed, not of what is hidden: scheme, host, port, and the leading part of the
path that consists of well-known words and short numbers (`/Streaming/Channels/101`). The rest is `***`.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from rtseg.core.errors import OptionError

HIDDEN = "***"
"""What stands for a secret."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]{1,17})?\]|[\w.-]*)(?::(\d{0,5}))?")
_SCHEMES = (
    *(
        "rtsp",
        "rtsps",
        "rtspt",
        "rtspu",
        "rtmp",
        "rtmps",
        "rtmpt",
        "rtmpe",
        "http",
        "https",
        "hls",
        "tcp",
        "udp",
        "srt",
        "rtp",
    ),
    *("rist", "ftp", "ftps", "sftp", "mms", "mmsh", "ws", "wss", "file", "gopher"),
)
_WORDS = frozenset(
    (  # noqa: SIM905
        "streaming,streams,stream,mainstream,substream,streamid,livestream,channels,channel,chn,ch,tracks,track,trackid,live,cam,cams,"
        "camera,cameras,webcam,ipcam,ipcamera,nvr,dvr,video,videos,videomain,videosub,media,mediainput,main,sub,primary,secondary,"
        "low,high,first,second,h264,h265,hevc,av1,mpeg,mpeg4,mp4,m4v,mjpg,mjpeg,jpeg,jpg,jpe,img,image,snapshot,cgi,bin,axis,amp,"
        "sdp,profile,profiles,onvif,unicast,multicast,play,playlist,index,master,hls,dash,av,realmonitor,isapi,psia,rtsp,rtmp,http,"
        "m3u8,ts,flv,ogg,webm,mkv,mov,avi,raw,app,drive,street,road,traffic,front,rear,back,left,right,door,gate,garage,entrance,"
        "parking,yard,north,south,east,west,preview,h264preview,h265preview,httppreview,videostream,c,s"
    ).split(",")
)
_NUMBERED = ("channels", "channel", "tracks")
"""Behind these a number of four digits is a camera of a recorder: `/Streaming/Channels/1601`."""

_OTHER_CHARACTERS = 3
"""So many characters of a path may be shown that belong to no known word: too few to be a part of a password."""

_QUERY = re.compile(
    r"(?:channel|chn|ch|camera|cam|subtype|stream|profile|video|latency)=[0-9]{1,3}|mode=(?:listener|caller|rendezvous)",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(r":.*@|(?:pass|pw|secret|token|key|auth|sig)\w*=", re.IGNORECASE | re.DOTALL)
_PIPELINE_SECRET = re.compile(
    r"(?<![A-Za-z])(?:user-pw|proxy-pw|\w*pass(?:phrase|word|wd)|\w*pwd|streamid|token|authorization|extra-headers|cookies)\s*[=:]",
    re.IGNORECASE,
)
_PIPELINE_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.*", re.DOTALL)

_SHORTEST_PIECE = 4
_known: set[str] = set()


@dataclass(frozen=True, repr=False)
class Url:
    """A URL in its parts, split as FFmpeg splits it."""

    scheme: str
    """In lower case."""

    user_info: str | None
    """User name and password as written; None: there is no `@`."""

    host: str
    """As written, an IPv6 address in its brackets; may be empty (`udp://:1234`)."""

    port: int | None
    address: str
    """`HOST:PORT` as written."""

    tail: str
    """Path, query and fragment, as written."""

    @property
    def text(self) -> str:
        """The whole URL, with its secrets."""
        user_info = "" if self.user_info is None else f"{self.user_info}@"
        return f"{self.scheme}://{user_info}{self.address}{self.tail}"

    @property
    def path(self) -> str:
        """The path as written."""
        return re.split(r"[?#]", self.tail, maxsplit=1)[0]

    @property
    def harmless_path(self) -> str:
        """The leading part of the path that can't be a secret; with RTMP the last segment may be a stream's key."""
        kept = _harmless_path(self.path)
        return kept.rpartition("/")[0] + "/" if self.scheme.startswith("rtmp") and kept.count("/") > 1 else kept

    @property
    def redacted(self) -> str:
        """The URL for people, without its secrets."""
        if self.scheme not in _SCHEMES:
            return HIDDEN
        path, kept = self.path, self.harmless_path
        if kept != path:
            return f"{self.scheme}://{self.address}{kept}{HIDDEN}"
        query = self.tail[len(path) :].partition("#")[0].removeprefix("?")
        pairs = [pair for pair in query.split("&") if _QUERY.fullmatch(pair)]
        return f"{self.scheme}://{self.address}{path}" + ("?" + "&".join(pairs) if pairs else "")

    @property
    def secret(self) -> bool:
        """Whether it holds anything that is not shown."""
        return self.redacted != self.text

    def __repr__(self) -> str:
        return f"Url({self.redacted})"


def parse_url(text: str, option: str = "--url") -> Url:
    """Split a URL.

    Args:
        text: the URL.
        option: where it comes from, for the message.

    Raises:
        OptionError: it is no URL, or where its user name and password end can't be decided. The message does not hold it.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise OptionError(f"{option} is no URL; write it as SCHEME://HOST/PATH")
    scheme, authority, tail = match[1].lower(), match[2], match[3]
    user_info, at, place = authority.rpartition("@")
    shown = f"{scheme}://{HIDDEN}" if scheme in _SCHEMES else HIDDEN
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise OptionError(f"{option} {shown} holds a line break or another control character")
    host = _HOST.fullmatch(place)
    if host is None or "@" in tail or int(host[2] or 0) > 65535:
        ports = "ports end at 65535, or " if host and "@" not in tail else ""
        raise OptionError(
            f"{option} {shown}: {ports}it is unclear where the user name and password end and the host begins; write each / in "
            "them as %2F, ? as %3F, # as %23, @ as %40, : as %3A, [ as %5B and ] as %5D (and an @ in the path or query as %40)"
        )
    port = int(host[2]) if host[2] else None
    return Url(scheme, user_info if at else None, host[1], port, place, tail)


def redacted_url(text: str) -> str:
    """A URL for people: scheme, host, port and the harmless part of the path. Does not raise."""
    try:
        return parse_url(text).redacted
    except OptionError:
        scheme, separator, _ = text.partition("://")
        return f"{scheme.lower()}://{HIDDEN}" if separator and scheme.lower() in _SCHEMES else HIDDEN


def redacted_name(text: str) -> str:
    """A file's name for people: as it is, unless it is a URL or holds a password and no such file exists."""
    if "://" in text:
        return redacted_url(text)
    if _CREDENTIALS.search(text) and not _exists(text):
        return HIDDEN
    return text


def looks_like_file(text: str) -> bool:
    """Whether text without `://` can be shown where a URL was expected: an existing file, or a plain name with an ending."""
    return _exists(text) or re.fullmatch(r"[\w .,+()/\\-]*\.\w{1,5}", text) is not None


def holds_secret(pipeline: str) -> bool:
    """Whether a GStreamer pipeline holds a secret: in a URL, or in a property that is known to take one."""
    if _PIPELINE_SECRET.search(pipeline) or re.search(r"://.*@", pipeline, re.DOTALL):
        return True
    return any(redacted_url(url) != url for url in _urls_in(pipeline))


def redacted_pipeline(pipeline: str) -> str:
    """A GStreamer pipeline for people: as it is, or cut off where its first secret may begin."""
    if not holds_secret(pipeline):
        return pipeline
    begins = [
        match.start() for pattern in (_PIPELINE_SECRET, _PIPELINE_URL) for match in [pattern.search(pipeline)] if match
    ]
    return pipeline[: min(begins)] + HIDDEN


def _urls_in(pipeline: str) -> list[str]:
    try:
        words = shlex.split(pipeline)
    except ValueError:  # a quote that is not closed
        words = [pipeline]
    return [match[0] for word in words if (match := _PIPELINE_URL.search(word))]


def without_urls(text: str) -> str:
    """A message of a foreign program, cut off where a URL or a password begins: where that ends can't be decided."""
    begins = [found.start() for found in (_PIPELINE_URL.search(text), _PIPELINE_SECRET.search(text)) if found]
    if not begins:
        return redact(text)
    rest = text[min(begins) :]
    return redact(text[: min(begins)]) + (
        redacted_url(rest.partition("://")[0] + f"://{HIDDEN}") if "://" in rest[:12] else HIDDEN
    )


# The secrets of this run


def remember(secret: str) -> None:
    """Keep a URL, password or token of this run, for `redact`."""
    _known.update(_pieces(secret))


def forget() -> None:
    """Another command line begins."""
    _known.clear()


def remember_pipeline(pipeline: str) -> None:
    """Keep the secrets of a GStreamer pipeline, for `redact`."""
    for url in _urls_in(pipeline):
        remember(url)
    for match in _PIPELINE_SECRET.finditer(pipeline):
        remember(re.split(r"[\s!]", pipeline[match.end() :].strip(), maxsplit=1)[0].strip("\"'"))


def redact(text: str, *, words: bool = True) -> str:
    """Text without the secrets of this run, whole and in pieces: for tracebacks and messages of other libraries.

    Args:
        text: what is to be printed.
        words: replace pieces too that could be a word of a sentence.
    """
    for piece in sorted(_known, key=len, reverse=True):
        if words or not re.fullmatch(r"[A-Za-z]?[a-z]*", piece):
            text = text.replace(piece, HIDDEN)
    return text


def _pieces(value: str) -> set[str]:
    """A secret in the forms in which a message may hold it: whole, as a path, decoded, and part by part."""
    try:
        url = parse_url(value)
    except OptionError:
        secrets = [value.partition("://")[2] or value]
    else:
        secrets = [url.tail[len(url.harmless_path) :], *(url.user_info or "").partition(":")[::2]]
    found = [value, str(Path(value)), repr(value)[1:-1], *secrets]
    for secret in secrets:
        found += re.split(r"[/?#&=@:;,\s]+", secret)
    found += [unquote(piece) for piece in found]
    return {piece for piece in found if len(piece) >= _SHORTEST_PIECE and piece.lower() not in _WORDS}


def _harmless_path(path: str) -> str:
    """The leading part of a path that can't be a secret: all of it, or its first segments as far as they are known words."""
    words, only_words, cost, before = "", True, 0, ""
    for segment in re.findall(r"/[^/]*", path):
        name = segment[1:].lower()
        recorder = before in _NUMBERED and re.fullmatch(r"[0-9]{1,4}", name)
        own = 0 if recorder else _other_characters(name)
        only_words = only_words and not own and not recorder
        words += segment if only_words else ""
        cost, before = cost + own, name
    return path if cost <= _OTHER_CHARACTERS else words + "/"


def _other_characters(name: str) -> int:
    """Characters of a path segment that belong to no known word; more than are allowed where one is no word and no number."""
    if not re.fullmatch(r"[a-z0-9._-]*", name):
        return _OTHER_CHARACTERS + 1
    cost = 0
    for token in re.split(r"[._-]", name):
        numbered = re.fullmatch(r"([a-z]*?)([0-9]*)", token)
        if token not in _WORDS:
            cost += len(numbered[2]) if numbered and numbered[1] in _WORDS else len(token)
    return cost


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
