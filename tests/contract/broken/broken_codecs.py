"""A correct codec, and codecs with one flaw each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from factory import found_by

from dws_core.plugin import CodecError
from dws_core.testing import CodecConformance


class CodecSuite(CodecConformance):
    kind: Callable[[], Any]

    @pytest.fixture
    def codec(self) -> Any:
        return type(self).kind()


class TextCodec:
    """A correct codec."""

    name = "text"
    binary = False

    def encode(self, value: Any) -> bytes:
        try:
            return json.dumps(value, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError(self.name, "cannot encode this.") from error

    def decode(self, data: bytes | str) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise CodecError(self.name, "cannot decode this.") from error


class TestCorrectCodec(CodecSuite):
    kind = TextCodec


def flawed_codec(test: str) -> Callable[[type[Any]], type[Any]]:
    return found_by(test, CodecSuite)


@flawed_codec("test_value_round_trips")
class LosesEmptyLists(TextCodec):
    def encode(self, value: Any) -> bytes:
        return super().encode(None if value == [] else value)


@flawed_codec("test_garbage_raises_only_codec_error")
class LetsLibraryErrorsEscape(TextCodec):
    def decode(self, data: bytes | str) -> Any:
        return json.loads(data)


@flawed_codec("test_truncated_message_raises_codec_error")
class RepeatsTheMessage(TextCodec):
    def decode(self, data: bytes | str) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise CodecError(self.name, f"cannot decode {data!r}.") from error


@flawed_codec("test_unsupported_value_raises_codec_error")
class EncodesWhateverComes(TextCodec):
    def encode(self, value: Any) -> bytes:
        return json.dumps(value, default=str, ensure_ascii=False).encode()


@flawed_codec("test_encoding_does_not_change_its_input")
class ChangesItsInput(TextCodec):
    def encode(self, value: Any) -> bytes:
        encoded = super().encode(value)
        if isinstance(value, dict):
            value.clear()
        return encoded


@flawed_codec("test_same_value_encodes_to_same_bytes")
class CountsItsMessages(TextCodec):
    count = 0

    def encode(self, value: Any) -> bytes:
        type(self).count += 1
        return super().encode(value) + b" " * type(self).count


@flawed_codec("test_splice_equals_encode")
class SplicesWrongly(TextCodec):
    def splice(self, members: dict[str, Any], data: bytes) -> bytes:
        return self.encode({**members, "data": data.decode()})
