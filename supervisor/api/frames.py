"""Docker's frames: standard output and error in one stream. Eight bytes before each piece: which of the two, and how
many bytes follow (stdcopy). A terminal has one stream, and no frames.
"""

import struct
from collections.abc import Mapping

from supervisor.streams.lines import Stream

_HEADER = struct.Struct(">BxxxI")
_NUMBERS: Mapping[Stream, int] = {Stream.STDOUT: 1, Stream.STDERR: 2}


def frame(stream: Stream, data: bytes) -> bytes:
    """With its header."""
    return _HEADER.pack(_NUMBERS[stream], len(data)) + data


def bare(_stream: Stream, data: bytes) -> bytes:
    """As a terminal's."""
    return data
