"""Redaction of URLs and other secrets in messages, statistics, logs, tracebacks and the process list.

Any part of a URL may contain a secret: user name and password, a key in the path (RTMP, cameras of Dahua and XM), a token in
the query. So redaction uses an allowlist: scheme, host, port, and the leading part of the path that consists of well-known
words and short numbers (`/Streaming/Channels/101`). The rest becomes `***`.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from rtseg.core.errors import OptionError

HIDDEN = "***"
"""Replacement for a secret."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[\w.-]{1,17})?\]|[\w.-]*)(?::(\d{0,5}))?")
_SCHEMES = (
    "rtsp", "rtsps", "rtspt", "rtspu", "rtmp", "rtmps", "rtmpt", "rtmpe", "http", "https", "hls", "tcp", "udp", "srt", "rtp",
    "rist", "ftp", "ftps", "sftp", "mms", "mmsh", "ws", "wss", "file", "gopher",
)  # fmt: skip
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
"""Path segments that may be followed by a camera number of up to four digits: `/Streaming/Channels/1601`."""

_MAX_OTHER_CHARACTERS = 3
"""Maximum number of visible path characters outside known words: too few to be part of a password."""

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

_MIN_PIECE_LENGTH = 4
_known_secrets: set[str] = set()


@dataclass(frozen=True, repr=False)
class Url:
    """Parts of a URL, split as in FFmpeg."""

    scheme: str
    """Scheme in lower case."""

    user_info: str | None
    """User name and password, unmodified; None if there is no `@`."""

    host: str
    """Host, unmodified, with the brackets of an IPv6 address; may be empty (`udp://:1234`)."""

    port: int | None
    """Port number; None if there is none."""

    address: str
    """`HOST:PORT`, unmodified."""

    tail: str
    """Path, query and fragment, unmodified."""

    @property
    def text(self) -> str:
        """Complete URL, with its secrets."""
        user_info = "" if self.user_info is None else f"{self.user_info}@"
        return f"{self.scheme}://{user_info}{self.address}{self.tail}"

    @property
    def path(self) -> str:
        """Path, unmodified."""
        return re.split(r"[?#]", self.tail, maxsplit=1)[0]

    @property
    def harmless_path(self) -> str:
        """Leading part of the path that contains no secret. The last segment of an RTMP URL may be a stream key."""
        path = _harmless_path(self.path)
        return path.rpartition("/")[0] + "/" if self.scheme.startswith("rtmp") and path.count("/") > 1 else path

    @property
    def redacted(self) -> str:
        """Human-readable URL without secrets."""
        if self.scheme not in _SCHEMES:
            return HIDDEN
        path, harmless_path = self.path, self.harmless_path
        if harmless_path != path:
            return f"{self.scheme}://{self.address}{harmless_path}{HIDDEN}"
        query = self.tail[len(path) :].partition("#")[0].removeprefix("?")
        pairs = [pair for pair in query.split("&") if _QUERY.fullmatch(pair)]
        return f"{self.scheme}://{self.address}{path}" + ("?" + "&".join(pairs) if pairs else "")

    def __repr__(self) -> str:
        return f"Url({self.redacted})"


def parse_url(text: str, option: str = "--url") -> Url:
    """Split a URL. `option` is the option that contained it, for the message.

    Raises:
        OptionError: the text is not a URL, or the end of its user name and password is ambiguous. The message does not
            contain the URL.
    """
    match = _URL.fullmatch(text)
    if match is None:
        raise OptionError(f"{option} is not a URL; write it as SCHEME://HOST/PATH")
    scheme, authority, tail = match[1].lower(), match[2], match[3]
    user_info, at, place = authority.rpartition("@")
    redacted = f"{scheme}://{HIDDEN}" if scheme in _SCHEMES else HIDDEN
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise OptionError(f"{option} {redacted} contains a line break or another control character")
    host = _HOST.fullmatch(place)
    if host is None or "@" in tail or int(host[2] or 0) > 65535:
        ports = "ports end at 65535, or " if host and "@" not in tail else ""
        raise OptionError(
            f"{option} {redacted}: {ports}it is unclear where the user name and password end and the host begins; write each / in "
            "them as %2F, ? as %3F, # as %23, @ as %40, : as %3A, [ as %5B and ] as %5D (and an @ in the path or query as %40)"
        )
    port = int(host[2]) if host[2] else None
    return Url(scheme, user_info if at else None, host[1], port, place, tail)


def redacted_url(text: str) -> str:
    """Return a human-readable URL: scheme, host, port and the harmless part of the path. Raises no error."""
    try:
        return parse_url(text).redacted
    except OptionError:
        scheme, separator, _ = text.partition("://")
        return f"{scheme.lower()}://{HIDDEN}" if separator and scheme.lower() in _SCHEMES else HIDDEN


def redacted_name(text: str) -> str:
    """Return a file name for messages. A URL is redacted; a name with credentials that is not a file is hidden."""
    if "://" in text:
        return redacted_url(text)
    if _CREDENTIALS.search(text) and not _exists(text):
        return HIDDEN
    return text


def looks_like_file(text: str) -> bool:
    """Return whether text without `://`, in place of a URL, is safe to print: an existing file or a name with a suffix."""
    return _exists(text) or re.fullmatch(r"[\w .,+()/\\-]*\.\w{1,5}", text) is not None


def contains_secret(pipeline: str) -> bool:
    """Return whether a GStreamer pipeline contains a secret in a URL or in a property such as `user-pw`."""
    if _PIPELINE_SECRET.search(pipeline) or re.search(r"://.*@", pipeline, re.DOTALL):
        return True
    return any(redacted_url(url) != url for url in _urls_in(pipeline))


def redacted_pipeline(pipeline: str) -> str:
    """Return a GStreamer pipeline for messages, truncated at the first possible secret."""
    if not contains_secret(pipeline):
        return pipeline
    return pipeline[: _secret_start(pipeline) or 0] + HIDDEN


def _secret_start(text: str) -> int | None:
    """Return the position of the first URL or password in a text; None if there is none."""
    matches = (_PIPELINE_URL.search(text), _PIPELINE_SECRET.search(text))
    return min((match.start() for match in matches if match), default=None)


def _urls_in(pipeline: str) -> list[str]:
    try:
        words = shlex.split(pipeline)
    except ValueError:  # a quote that is not closed
        words = [pipeline]
    return [match[0] for word in words if (match := _PIPELINE_URL.search(word))]


def without_urls(text: str) -> str:
    """Return a message of another program, truncated at the first URL or password, whose end is ambiguous."""
    start = _secret_start(text)
    if start is None:
        return redact(text)
    scheme, separator, _ = text[start:].partition("://")
    hidden = redacted_url(f"{scheme}://{HIDDEN}") if separator and len(scheme) < 10 else HIDDEN
    return redact(text[:start]) + hidden


# The secrets of this run


def remember(secret: str) -> None:
    """Register a URL, password or token of this run for `redact`."""
    _known_secrets.update(_pieces(secret))


def forget() -> None:
    """Remove all registered secrets, before another command line is parsed."""
    _known_secrets.clear()


def remember_pipeline(pipeline: str) -> None:
    """Register the secrets of a GStreamer pipeline for `redact`."""
    for url in _urls_in(pipeline):
        remember(url)
    for match in _PIPELINE_SECRET.finditer(pipeline):
        remember(re.split(r"[\s!]", pipeline[match.end() :].strip(), maxsplit=1)[0].strip("\"'"))


def redact(text: str, *, words: bool = True) -> str:
    """Return a traceback or a message of another library without the registered secrets and their parts.

    `words=False` keeps the parts that may be ordinary words.
    """
    for piece in sorted(_known_secrets, key=len, reverse=True):
        if words or not re.fullmatch(r"[A-Za-z]?[a-z]*", piece):
            text = text.replace(piece, HIDDEN)
    return text


def _pieces(value: str) -> set[str]:
    """Return the forms of a secret that may occur in messages: complete, as a path, URL-decoded, and its parts."""
    try:
        url = parse_url(value)
    except OptionError:
        secrets = [value.partition("://")[2] or value]
    else:
        secrets = [url.tail[len(url.harmless_path) :], *(url.user_info or "").partition(":")[::2]]
    pieces = [value, str(Path(value)), repr(value)[1:-1], *secrets]
    for secret in secrets:
        pieces += re.split(r"[/?#&=@:;,\s]+", secret)
    pieces += [unquote(piece) for piece in pieces]
    return {piece for piece in pieces if len(piece) >= _MIN_PIECE_LENGTH and piece.lower() not in _WORDS}


def _harmless_path(path: str) -> str:
    """Return the leading part of a path that contains no secret: the whole path, or its first segments of known words."""
    visible, only_words, other_characters, previous = "", True, 0, ""
    for segment in re.findall(r"/[^/]*", path):
        name = segment[1:].lower()
        is_camera_number = previous in _NUMBERED and re.fullmatch(r"[0-9]{1,4}", name)
        count = 0 if is_camera_number else _other_characters(name)
        only_words = only_words and not count and not is_camera_number
        visible += segment if only_words else ""
        other_characters, previous = other_characters + count, name
    return path if other_characters <= _MAX_OTHER_CHARACTERS else visible + "/"


def _other_characters(name: str) -> int:
    """Return the number of characters of a path segment outside known words.

    The result exceeds `_MAX_OTHER_CHARACTERS` if the segment contains a character that no word or number has.
    """
    if not re.fullmatch(r"[a-z0-9._-]*", name):
        return _MAX_OTHER_CHARACTERS + 1
    count = 0
    for token in re.split(r"[._-]", name):
        numbered = re.fullmatch(r"([a-z]*?)([0-9]*)", token)
        if token not in _WORDS:
            count += len(numbered[2]) if numbered and numbered[1] in _WORDS else len(token)
    return count


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
