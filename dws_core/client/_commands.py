"""The commands `python -m dws_core listen` and `publish`: a client for the command line."""

from __future__ import annotations

import json
import sys
from typing import Literal, NoReturn, TypeAlias

from dws_core._errors import ConfigurationError, DWSError
from dws_core._wire.message import JSON
from dws_core.client._client import Client
from dws_core.client._events import Gap, Message

DataForm: TypeAlias = Literal["auto", "json", "text"]


async def listen(url: str, filter_: str, *, token: str | None, count: int | None) -> int:
    """Print each message as a line of JSON, across reconnects. Gaps are printed to standard error.

    If `count` is given, return after that many messages.
    """
    try:
        async with _client(url, token) as client, client.subscribe(filter_) as messages:
            if count == 0:
                return 0
            async for message in messages:
                print(_line(message), flush=True)
                count = count and count - 1
                if count == 0:
                    break
    except DWSError as error:
        return _failed(error)
    return 0


async def publish(url: str, topic: str, data: str, *, token: str | None, form: DataForm) -> int:
    """Publish data, and print the position of the message.

    Args:
        url: URL of a node.
        topic: Topic without wildcards.
        data: The data as text.
        token: Bearer token of the handshake. If None, no token is sent.
        form: `json` requires JSON, `text` sends a string. `auto` sends JSON if it is valid, and a string unless the text
            begins like JSON.
    """
    try:
        value = value_of(data, form)
        async with _client(url, token) as client:
            print(await client.publish(topic, value) or "published (the topic has no history)")
    except DWSError as error:
        return _failed(error)
    return 0


def value_of(data: str, form: DataForm) -> JSON:
    """Return the value to publish.

    Raises:
        ConfigurationError: The text must be JSON and is not.
    """
    if form == "text":
        return data
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except ValueError as error:
        if form == "auto" and not data.lstrip().startswith(("{", "[", '"')):
            return data
        raise ConfigurationError(f"the data is not valid JSON: {error}.", fix="correct it, or add --text") from None


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and infinity, which Python reads, but which are not JSON (RFC 8259 §6)."""
    raise ValueError(f"{name} is not a JSON number")


def _client(url: str, token: str | None) -> Client:
    return Client(url, token=token, on_gap=_show_gap, retry_first=False)


def _line(message: Message) -> str:
    shown = {"topic": message.topic, "data": message.data, "pos": message.position}
    return json.dumps({name: value for name, value in shown.items() if value is not None}, ensure_ascii=False)


def _show_gap(gap: Gap) -> None:
    print(f"gap: messages may have been lost ({gap.reason}): {', '.join(gap.filters)}", file=sys.stderr, flush=True)


def _failed(error: DWSError) -> int:
    print(f"FAILED  {error}", file=sys.stderr)
    return 1
