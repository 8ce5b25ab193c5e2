r"""The envelope of messages in the broker: one header line, then the client payload, encoded once.

The header is `1 <codec>\n`: the version of the envelope, and the name of the payload's codec. If the node stamps senders,
it is `1 <codec> from=<percent-encoded id>\n`. People can read it with the broker's own tools. A node forwards the payload
unchanged to clients that use the same codec.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote_to_bytes

from dws_core._errors import CodecError

_VERSION: Final = "1"
_SENDER: Final = b" from="


def header_of(codec: str, sender: str | None = None) -> bytes:
    """Return the header line for payloads of a codec, including the line feed.

    Args:
        codec: Name of the codec.
        sender: Id of the client that published the message. If None, it is not stamped.
    """
    stamp = b"" if sender is None else _SENDER + quote(sender, safe="", errors="surrogatepass").encode()
    return f"{_VERSION} {codec}".encode() + stamp + b"\n"


def sender_of(payload: bytes) -> str | None:
    """Return the id of the client that published a message, or None if it is not stamped."""
    end = payload.find(b"\n")
    start = payload.find(_SENDER, 0, end)
    return None if start < 0 else unquote_to_bytes(payload[start + len(_SENDER) : end]).decode("utf-8", "surrogatepass")


def open_envelope(payload: bytes) -> tuple[str, bytes]:
    """Return the codec's name and the encoded payload.

    Raises:
        CodecError: The bytes are not an envelope, or have an unsupported version.
    """
    header, separator, data = payload.partition(b"\n")
    version, _, rest = header.decode("ascii", "replace").partition(" ")
    codec = rest.partition(" ")[0]
    if not separator or version != _VERSION or not codec:
        raise CodecError(
            "envelope", "not an envelope of version 1.", fix="let only dws nodes of one version publish to the channel"
        )
    return codec, data
