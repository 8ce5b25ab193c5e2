from __future__ import annotations

from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.partition import partition_of
from dws_core._log.records import Layout

levels = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=4)
topics = st.lists(levels, min_size=1, max_size=5).map("/".join)


def layout(partitions: int, shard_levels: int = 0) -> Layout:
    return Layout(channel="chat", partitions=partitions, shard_levels=shard_levels)


@given(topics)
def test_single_partition_holds_all_topics(topic: str) -> None:
    assert partition_of(topic, layout(1)) == 0
    assert partition_of(topic, layout(1, 2)) == 0


@given(topics, st.integers(2, 64))
def test_whole_topic_determines_partition(topic: str, partitions: int) -> None:
    assert partition_of(topic, layout(partitions)) == crc32(topic.encode("utf-8")) % partitions


def test_partitions_of_known_topics_never_change() -> None:
    found = {topic: partition_of(topic, layout(8)) for topic in ("chat/lobby", "$all", "$conn/42", "é/ü", "")}
    assert found == {"chat/lobby": 5, "$all": 2, "$conn/42": 4, "é/ü": 6, "": 0}


@given(topics, topics, st.integers(1, 3))
def test_topics_with_same_shard_levels_share_partition(topic: str, rest: str, shard_levels: int) -> None:
    first = "/".join((topic + "/x/x/x").split("/")[:shard_levels])
    assert partition_of(f"{first}/{rest}", layout(16, shard_levels)) == partition_of(first, layout(16, shard_levels))


def test_levels_after_shard_levels_are_ignored() -> None:
    found = {partition_of(f"chat/{n}", layout(16, 1)) for n in range(50)}
    assert len(found) == 1
    assert len({partition_of(f"chat/{n}", layout(16, 2)) for n in range(50)}) > 1
