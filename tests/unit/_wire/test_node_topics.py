"""Topics of the node."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core import ConfigurationError, InvalidMessage
from dws_core._wire.node_topics import (
    check_conn_id,
    check_user_id,
    conn_id_of,
    conn_request_topic,
    conn_topic,
    is_request,
    node_topic,
    own_topics,
    requested_conn_id,
    requested_user,
    user_of,
    user_request_topic,
    user_topic,
)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_any_connection_id_round_trips_through_topic(conn_id: str) -> None:
    topic = conn_topic(check_conn_id(conn_id))
    assert conn_id_of(topic) == conn_id
    assert "/" not in topic[len("$conn/") :]
    assert not set("+#") & set(topic)
    assert len(topic) <= 1024


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_any_receiver_round_trips_through_request_topic(text: str) -> None:
    for_connection, for_user = conn_request_topic(text), user_request_topic(text)
    assert (requested_conn_id(for_connection), requested_user(for_connection)) == (text, None)
    assert (requested_conn_id(for_user), requested_user(for_user)) == (None, text)
    for topic in (for_connection, for_user):
        assert is_request(topic)
        assert conn_id_of(topic) is None
        assert not set("+#") & set(topic)


@pytest.mark.parametrize("conn_id", ["", "x" * 257, "é" * 129, "\ud800"])
def test_invalid_connection_id_is_rejected(conn_id: str) -> None:
    with pytest.raises(InvalidMessage, match="256"):
        check_conn_id(conn_id)


@pytest.mark.parametrize("conn_id", [5, None, b"a"])
def test_connection_id_that_is_no_text_is_a_mistake_of_the_application(conn_id: Any) -> None:
    """For example, a path parameter that FastAPI converts to an integer."""
    with pytest.raises(ConfigurationError, match=r"convert it with str\(\)"):
        check_conn_id(conn_id)


def test_other_topics_have_no_connection_id() -> None:
    assert conn_id_of("$all") is None
    assert not is_request("$all")
    assert not is_request(node_topic("0a"))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_any_user_round_trips_through_topic(user: str) -> None:
    topic = user_topic(check_user_id(user))
    assert user_of(topic) == user
    assert conn_id_of(topic) is None
    assert not set("+#") & set(topic)
    assert topic.count("/") == 1


@pytest.mark.parametrize("user", ["", "x" * 257, "\ud800"])
def test_invalid_user_is_rejected_but_has_topics(user: str) -> None:
    """The application may give such a principal a connection id of its own."""
    with pytest.raises(InvalidMessage, match="the id of a user"):
        check_user_id(user)
    assert len(own_topics("id", user)) == 3


def test_own_topics_of_connection() -> None:
    assert own_topics("a/b", None) == ("$all", "$conn/a%2Fb")
    assert own_topics("c", "ann") == ("$all", "$conn/c", "$user/ann")
