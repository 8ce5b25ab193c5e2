"""Bearer tokens in the header and in the subprotocols."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core._auth.tokens import bearer_from_header, split_bearer


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("Bearer", None), ("", None), (None, None)],
)
def test_only_bearer_scheme_yields_token(header: str | None, token: str | None) -> None:
    assert bearer_from_header(header) == token


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])))
def test_token_is_read_from_subprotocol(token: str) -> None:
    entry = "dws.bearer." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    assert split_bearer(["dws.v1.json", entry, "x"]) == (token, ("dws.v1.json", "x"))


@pytest.mark.parametrize("entry", ["dws.bearer.", "dws.bearer.%%%", "dws.bearer._w", "dws.bearer.é"])
def test_invalid_base64url_yields_no_token(entry: str) -> None:
    assert split_bearer([entry]) == (None, ())
