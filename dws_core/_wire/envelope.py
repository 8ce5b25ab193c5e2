r"""The envelope of messages in the broker: one header line, then the client payload, encoded once.

The header is `1 <codec>\n`: the version of the envelope, and the name of the payload's codec. People can read it with
the broker's own tools. A node forwards the payload unchanged to clients that use the same codec.

A message for the nodes themselves has further attributes, encoded like a query, in a header of version 2:
`2 <codec> name=value&name=value\n`. A node that does not know this version announces a gap instead of ignoring them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

from dws_core._errors import CodecError

EXCLUDE: Final = "exclude"
"""Attribute with the name of the sender that does not receive the message."""

SENDER: Final = "from"
"""Attribute with the id of the client that published the message."""

_ATTRIBUTED: Final = b"2 "


def header_of(codec: str, attributes: Mapping[str, str] | None = None) -> bytes:
    """Return the header line for payloads of a codec, including the line feed."""
    if not attributes:
        return f"1 {codec}\n".encode()
    return f"2 {codec} {urlencode(attributes, errors='surrogatepass')}\n".encode()


def open_envelope(payload: bytes) -> tuple[str, bytes]:
    """Return the codec's name and the encoded payload.

    Raises:
        CodecError: The bytes are not an envelope, or have an unsupported version.
    """
    header, separator, data = payload.partition(b"\n")
    version, _, rest = header.decode("ascii", "replace").partition(" ")
    codec, _, attributes = rest.partition(" ")
    if not separator or not codec or version != ("2" if attributes else "1"):
        raise CodecError(
            "envelope",
            "not an envelope of version 1 or 2.",
            fix="let only dws nodes of one version publish to the channel",
        )
    return codec, data


def has_attributes(payload: bytes) -> bool:
    """Return whether an envelope has attributes. Delivery calls this for each message."""
    return payload.startswith(_ATTRIBUTED)


def attributes_of(payload: bytes) -> dict[str, str]:
    """Return the attributes of an envelope, empty if it has none."""
    if not has_attributes(payload):
        return {}
    words = payload.partition(b"\n")[0].decode("ascii", "replace").split(" ")
    return dict(parse_qsl(words[-1], keep_blank_values=True, errors="surrogatepass"))


def sender_of(payload: bytes) -> str | None:
    """Return the id of the client that published a message, or None if it is not stamped."""
    return attributes_of(payload).get(SENDER)
