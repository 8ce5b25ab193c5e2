r"""The envelope of messages in the broker: one header line, then the client payload, encoded once.

The header is `1 <codec>\n`: the version of the envelope, and the name of the payload's codec. People can read it with
the broker's own tools. A node forwards the payload unchanged to clients that use the same codec.
"""

from __future__ import annotations

from typing import Final

from dws_core._errors import CodecError

_VERSION: Final = "1"


def header_of(codec: str) -> bytes:
    """Return the header line for payloads of a codec, including the line feed."""
    return f"{_VERSION} {codec}\n".encode()


def open_envelope(payload: bytes) -> tuple[str, bytes]:
    """Return the codec's name and the encoded payload.

    Raises:
        CodecError: The bytes are not an envelope, or have an unsupported version.
    """
    header, separator, data = payload.partition(b"\n")
    version, _, codec = header.decode("ascii", "replace").partition(" ")
    if not separator or version != _VERSION or not codec:
        raise CodecError(
            "envelope", "not an envelope of version 1.", fix="let only dws nodes of one version publish to the channel"
        )
    return codec, data
