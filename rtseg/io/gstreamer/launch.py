"""Run a GStreamer pipeline that must not be in the process list, as gst-launch-1.0 does, but without arguments.

Run as a program (`python launch.py`) with the pipeline as JSON in the environment variable `RTSEG_PIPELINE`, which only its
user and root can read. Errors are printed in the format of gst-launch-1.0.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

VARIABLE = "RTSEG_PIPELINE"

_LIBRARIES = ("libgstreamer-1.0.so.0", "libgstreamer-1.0.0.dylib")
_NULL, _PLAYING = 1, 4
_FAILURE = 0
_END_OF_STREAM, _ERROR = 1 << 0, 1 << 1
_FOREVER, _SECOND = ctypes.c_uint64(2**64 - 1), ctypes.c_uint64(10**9)


class _Pointer(ctypes.c_void_p):
    """Result type that, unlike `c_void_p`, stays a pointer as an argument of another function."""


class _Error(ctypes.Structure):
    _fields_ = (("domain", ctypes.c_uint32), ("code", ctypes.c_int), ("message", ctypes.c_char_p))


def main() -> int:
    """Run the pipeline to its end. Return the exit code: 0 at the end of the stream, 1 after an error."""
    words = json.loads(os.environ.pop(VARIABLE))
    gst = _library()
    if gst is None:
        print("ERROR: libgstreamer-1.0 is not installed")
        return 1
    gst.gst_init(None, None)
    error = ctypes.POINTER(_Error)()
    arguments = (ctypes.c_char_p * (len(words) + 1))(*(os.fsencode(word) for word in words), None)
    pipeline = gst.gst_parse_launchv(arguments, ctypes.byref(error))
    if not pipeline or error:
        print(f"ERROR: pipeline could not be constructed: {_message(error)}.")
        return 1
    failed = gst.gst_element_set_state(pipeline, _PLAYING) == _FAILURE
    bus = gst.gst_element_get_bus(pipeline)
    message = gst.gst_bus_timed_pop_filtered(
        bus, _SECOND if failed else _FOREVER, _ERROR | (0 if failed else _END_OF_STREAM)
    )
    complete = not failed and not gst.gst_message_get_structure(message)
    if not complete:
        print(_error_of(gst, message) if message else "ERROR: pipeline doesn't want to play.", flush=True)
    gst.gst_element_set_state(pipeline, _NULL)
    return 0 if complete else 1


def _error_of(gst: ctypes.CDLL, message: _Pointer) -> str:
    error, details = ctypes.POINTER(_Error)(), ctypes.c_char_p()
    gst.gst_message_parse_error(message, ctypes.byref(error), ctypes.byref(details))
    more = (details.value or b"").decode(errors="replace")
    return f"ERROR: {_message(error)}\nAdditional debug info:\n{more}"


def _message(error: ctypes._Pointer[_Error]) -> str:
    return error.contents.message.decode(errors="replace") if error else "unknown error"


def _library() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        try:
            gst = ctypes.CDLL(name)
        except OSError:
            continue
        gst.gst_parse_launchv.restype = _Pointer
        gst.gst_element_get_bus.restype = _Pointer
        gst.gst_bus_timed_pop_filtered.restype = _Pointer
        gst.gst_message_get_structure.restype = _Pointer
        return gst
    return None


if __name__ == "__main__":
    sys.exit(main())
