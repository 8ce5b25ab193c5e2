"""The commands `python -m dws_core listen` and `publish`: a client for the command line."""

from __future__ import annotations

import json
import sys

from dws_core._errors import DWSError
from dws_core._wire.message import JSON
from dws_core.client._client import Client
from dws_core.client._state import Gap, Message


async def listen(url: str, filter_: str, *, token: str | None, count: int | None) -> int:
    """Print each message as a line of JSON, across reconnects. Gaps are printed to standard error.

    If `count` is given, return after that many messages.
    """
    try:
        async with Client(url, token=token, on_gap=_show_gap) as client, client.subscribe(filter_) as messages:
            async for message in messages:
                print(_line(message), flush=True)
                count = count and count - 1
                if count == 0:
                    break
    except DWSError as error:
        return _failed(error)
    return 0


async def publish(url: str, topic: str, data: str, *, token: str | None) -> int:
    """Publish a JSON value, or any other text as a string. Print the position of the message."""
    try:
        async with Client(url, token=token) as client:
            print(await client.publish(topic, _value(data)) or "published (the topic has no history)")
    except DWSError as error:
        return _failed(error)
    return 0


def _line(message: Message) -> str:
    shown = {"topic": message.topic, "data": message.data, "pos": message.position}
    return json.dumps({name: value for name, value in shown.items() if value is not None}, ensure_ascii=False)


def _value(text: str) -> JSON:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _show_gap(gap: Gap) -> None:
    print(f"gap: messages may have been lost ({gap.reason}): {', '.join(gap.filters)}", file=sys.stderr, flush=True)


def _failed(error: DWSError) -> int:
    print(f"FAILED  {error}", file=sys.stderr)
    return 1
