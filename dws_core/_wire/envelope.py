r"""What travels through the broker: one header line, then the client payload, encoded once.

The header is `1 <codec>\n`: the envelope's version and the name of the codec of what follows. A person can read it in
the broker's own tools, and a node that has only clients of that codec passes the payload on as it is.
"""

from __future__ import annotations

from typing import Final

from dws_core._errors import CodecError

_VERSION: Final = "1"


def header_of(codec: str) -> bytes:
    """Return the header line for payloads of a codec, line feed included."""
    return f"{_VERSION} {codec}\n".encode()


def open_envelope(payload: bytes) -> tuple[str, bytes]:
    """Return the codec's name and the encoded data.

    Raises:
        CodecError: Not an envelope of a version that this node knows.
    """
    header, separator, data = payload.partition(b"\n")
    version, _, codec = header.decode("ascii", "replace").partition(" ")
    if not separator or version != _VERSION or not codec:
        raise CodecError(
            "envelope", "not an envelope of version 1.", fix="let only dws nodes publish to the channel, of one version"
        )
    return codec, data
