"""Safe opening of untrusted media, with a one-line message for each kind of failure.

FFmpeg detects formats by content, not by name. With a playlist named `c.mp4` it would open other files or internal addresses.
So only listed formats, protocols and codecs are allowed, for the container and for every probed stream. A playlist is opened
only if the user allows the protocols for its entries.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from rtseg.core import secrets
from rtseg.core.errors import SourceError, reason
from rtseg.io.codecs import acceleration
from rtseg.io.inputs.playlist import check_protocols, playlist_arguments, read_playlist, with_playlists

STDIN = "-"
"""Input name of standard input."""

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,gif,h264,hevc,m4v,mjpeg,ogg,mxf,"
    "ivf,obu,av1,yuv4mpegpipe,nut,dv,wtv"
)
"""Demuxers that read only one file: no playlists, image sequences, devices or concatenation."""

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mp4v", ".mpg4", ".mov", ".qt", ".mqv", ".3gp", ".3gpp", ".3gp2", ".3g2", ".3gpp2", ".mj2", ".mjp2", ".f4v",
    ".ismv", ".psp", ".insv", ".360", ".mkv", ".mk3d", ".webm", ".avi", ".divx", ".xvid", ".ts", ".tp", ".trp", ".m2t", ".m2ts",
    ".mts", ".mp2t", ".mpegts", ".ssif", ".tod", ".mpg", ".mpeg", ".mpe", ".ps", ".m2p", ".mp2p", ".vob", ".dvd", ".evo", ".mod",
    ".vro", ".vdr", ".dav", ".m1v", ".m2v", ".mp2v", ".mpv", ".mpv2", ".flv", ".asf", ".wmv", ".wm", ".dvr-ms", ".gif", ".h264",
    ".264", ".26l", ".h26l", ".jvt", ".avc", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg", ".ogv", ".ogm", ".ogx", ".mxf", ".ivf",
    ".obu", ".av1", ".y4m", ".nut", ".dv", ".dif", ".wtv",
})  # fmt: skip
"""Suffixes of video files in a searched folder, in lower case. (A file that is named explicitly may have any suffix.)
They include all suffixes of the demuxers above in FFmpeg, except those of audio, images and subtitles."""

VIDEO_CODECS = (
    "h264,hevc,av1,libdav1d,libaom-av1,vp8,vp9,libvpx-vp9,libvpx,mpeg4,mpeg2video,mpeg1video,mjpeg,gif,rawvideo,prores,dnxhd,ffv1,"
    "huffyuv,ffvhuff,utvideo,theora,vc1,wmv1,wmv2,wmv3,flv,h263,h263p,msmpeg4v1,msmpeg4v2,msmpeg4,dvvideo,png,qtrle,cinepak,"
    "msvideo1,svq1,svq3,wrapped_avframe"
)
"""Allowed decoders for video streams."""

OTHER_CODECS = (
    "8svx_exp,8svx_fib,aac,aac_fixed,aac_latm,ac3,ac3_fixed,acelp.kelvin,adpcm_4xm,adpcm_adx,adpcm_afc,adpcm_agm,"
    "adpcm_aica,adpcm_argo,adpcm_ct,adpcm_dtk,adpcm_ea,adpcm_ea_maxis_xa,adpcm_ea_r1,adpcm_ea_r2,adpcm_ea_r3,"
    "adpcm_ea_xas,adpcm_ima_acorn,adpcm_ima_alp,adpcm_ima_amv,adpcm_ima_apc,adpcm_ima_apm,adpcm_ima_cunning,"
    "adpcm_ima_dat4,adpcm_ima_dk3,adpcm_ima_dk4,adpcm_ima_ea_eacs,adpcm_ima_ea_sead,adpcm_ima_iss,adpcm_ima_moflex,"
    "adpcm_ima_mtf,adpcm_ima_oki,adpcm_ima_qt,adpcm_ima_rad,adpcm_ima_smjpeg,adpcm_ima_ssi,adpcm_ima_wav,"
    "adpcm_ima_ws,adpcm_ima_xbox,adpcm_ms,adpcm_mtaf,adpcm_psx,adpcm_sanyo,adpcm_sbpro_2,adpcm_sbpro_3,adpcm_sbpro_4,"
    "adpcm_swf,adpcm_thp,adpcm_thp_le,adpcm_vima,adpcm_xa,adpcm_xmd,adpcm_yamaha,adpcm_zork,alac,als,amrnb,amrwb,"
    "apac,ape,aptx,aptx_hd,atrac1,atrac3,atrac3al,atrac3plus,atrac3plusal,atrac9,binkaudio_dct,binkaudio_rdft,"
    "bmv_audio,bonk,cbd2_dpcm,comfortnoise,cook,dca,derf_dpcm,dfpwm,dolby_e,dsd_lsbf,dsd_lsbf_planar,dsd_msbf,"
    "dsd_msbf_planar,dsicinaudio,dss_sp,dst,dvaudio,eac3,evrc,fastaudio,flac,ftr,g722,g723_1,g726,g726le,g728,g729,"
    "gremlin_dpcm,gsm,gsm_ms,hca,hcom,iac,ilbc,imc,interplay_dpcm,interplayacm,libgsm,libgsm_ms,libilbc,"
    "libopencore_amrnb,libopencore_amrwb,libopus,libspeex,libvorbis,mace3,mace6,metasound,misc4,mlp,mp1,mp1float,mp2,"
    "mp2float,mp3,mp3adu,mp3adufloat,mp3float,mp3on4,mp3on4float,mpc7,mpc8,msnsiren,nellymoser,on2avc,opus,osq,"
    "paf_audio,pcm_alaw,pcm_bluray,pcm_dvd,pcm_f16le,pcm_f24le,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_lxf,"
    "pcm_mulaw,pcm_s16be,pcm_s16be_planar,pcm_s16le,pcm_s16le_planar,pcm_s24be,pcm_s24daud,pcm_s24le,"
    "pcm_s24le_planar,pcm_s32be,pcm_s32le,pcm_s32le_planar,pcm_s64be,pcm_s64le,pcm_s8,pcm_s8_planar,pcm_sga,"
    "pcm_u16be,pcm_u16le,pcm_u24be,pcm_u24le,pcm_u32be,pcm_u32le,pcm_u8,pcm_vidc,qcelp,qdm2,qdmc,qoa,ralf,real_144,"
    "real_288,rka,roq_dpcm,s302m,sbc,sdx2_dpcm,shorten,sipr,siren,smackaud,sol_dpcm,speex,tak,truehd,truespeech,tta,"
    "twinvq,vmdaudio,vorbis,wady_dpcm,wavarc,wavpack,wmalossless,wmapro,wmav1,wmav2,wmavoice,ws_snd1,xan_dpcm,xma1,"
    "xma2,"
    "subrip,srt,ass,ssa,mov_text,webvtt,text,dvdsub,dvbsub,pgssub,cc_dec"
)
"""Allowed decoders for audio (all of FFmpeg) and subtitles, to probe streams and to transcode audio."""

LENIENT: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= 19 else {"metadata_errors": "replace"}
"""Arguments of `av.open` that permit metadata in invalid UTF-8. PyAV 19.0 and later permit it by default."""

_STREAMS_LIMIT = 64
"""Number of streams at which a file is refused, because some demuxers silently omit further streams."""


def open_input(
    path: str, *, allow_protocols: Sequence[str] = (), decoder: str = "software", gpu: int | None = None
) -> InputContainer:
    """Open a media file, or standard input for `-`, for demuxing.

    Args:
        path: a path, or `-`. A string like a URL is also a path.
        allow_protocols: allowed protocols (`file`, `http`, `https`) for the entries of a playlist; empty: playlists are
            refused.
        decoder: return value of `rtseg.io.codecs.choose_decoder`.
        gpu: see `rtseg.io.codecs.acceleration`.

    Raises:
        SourceError: the file is missing, not a regular file, empty, or not a video in one of `FORMATS`.
        OptionError: a protocol is unknown.
    """
    check_protocols(allow_protocols)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": FORMATS,
        "codec_whitelist": f"{VIDEO_CODECS},{OTHER_CODECS}",
        "max_streams": str(_STREAMS_LIMIT),
    }
    arguments: dict[str, Any] = {}
    source: Any = f"file:{path}"
    playlist = None
    if path == STDIN:
        regular = stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
        source, options["protocol_whitelist"] = ("fd:", "fd") if regular else ("pipe:0", "pipe")
    else:
        _check_file(path)
        if Path(path).suffix.lower() in (".mjpeg", ".mjpg") and _begins_with_jpeg(path):
            arguments["format"] = "mjpeg"  # by default FFmpeg reads concatenated JPEGs as a single image
        playlist = read_playlist(path) if allow_protocols else None
        if playlist is not None:
            source, replaced, arguments = playlist_arguments(path, playlist, allow_protocols)
            options |= replaced | {"format_whitelist": with_playlists(FORMATS)}
    try:
        container = av.open(source, options=options, **arguments, **acceleration(decoder, gpu), **LENIENT)
    except (av.FFmpegError, OSError, ValueError) as error:
        if playlist is not None:
            allowed = ", ".join(allow_protocols)
            raise SourceError(
                f"{redacted_name(path)} is a playlist, and its entries can't be opened with the allowed protocols ({allowed})"
            ) from error
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            raise SourceError(_too_many_streams(path)) from error  # FFmpeg's error if a demuxer needs more streams
        raise SourceError(_failure_text(path, error)) from error
    assert isinstance(container, InputContainer)
    if len(container.streams) >= _STREAMS_LIMIT:
        container.close()
        raise SourceError(_too_many_streams(path))
    return container


def _too_many_streams(path: str) -> str:
    return f"{redacted_name(path)} has {_STREAMS_LIMIT} streams or more, or needs too much memory: it is refused"


def redacted_name(path: str) -> str:
    """Return the name of an input for messages."""
    return "standard input" if path == STDIN else secrets.redacted_name(path)


def _begins_with_jpeg(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(3) == b"\xff\xd8\xff"


def _check_file(path: str) -> None:
    name = redacted_name(path)
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise SourceError(f"{name} is a folder; name a video file in it")
        if stat.S_ISFIFO(mode):
            raise SourceError(f"{name} is a named pipe; use it as standard input: `rtseg video - < PIPE`")
        if stat.S_ISCHR(mode) and name.startswith("/dev/video"):
            raise SourceError(f"{name} is a camera; use `rtseg live --camera {name}`")
        if not stat.S_ISREG(mode):
            raise SourceError(f"{name} is not a regular file")
        with Path(path).open("rb") as file:
            head = file.read(1)
    except FileNotFoundError as error:
        raise SourceError(f"no such file: {name}") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"can't read {name}: {reason(error)}") from error
    if not head:
        raise SourceError(f"{name} is empty (0 bytes)")


_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image; use `rtseg image`"),
    (b"\xff\xd8\xff", "a JPEG image; use `rtseg image`"),
    (b"BM", "a BMP image; use `rtseg image`"),
    (b"II*\0", "a TIFF image; use `rtseg image`"),
    (b"MM\0*", "a TIFF image; use `rtseg image`"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"#EXTM3U", "a playlist; name the video it points to, or see --allow-protocols"),
    (b"ffconcat", "a list of files; name the videos in it, or see --allow-protocols"),
    (b"%PDF", "a PDF document"),
)


def _failure_text(path: str, error: Exception) -> str:
    name = redacted_name(path)
    if isinstance(error, PermissionError):
        return f"can't read {name}: permission denied"
    problem = "not a video that rtseg reads"
    if path != STDIN:
        with Path(path).open("rb") as file:
            head = file.read(4096)
        kind = next((text for magic, text in _MAGIC if head.startswith(magic)), None)
        if kind is None and head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            kind = "a WebP image; use `rtseg image`"
        if kind is None and head[4:8] == b"ftyp":
            kind = "an MP4 file whose index (moov) is missing or damaged: the recording was probably cut off"
        if kind is None and _is_text(head):
            kind = "a text file"
        if kind is not None:
            problem = f"not a video: it is {kind}" if "MP4" not in kind else f"unreadable: it is {kind}"
    return f"{name} is {problem}"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < 4096 else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)
