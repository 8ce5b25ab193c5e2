"""Routing: how fast the receivers of a topic are found, compared with a baseline of the same run.

`python benchmarks/routing.py [--json]` needs less than 20 s on one core. Rates are per second of this process's CPU
time, the best of three rounds. Compare the ratios, which are similar on every machine, not the rates.
"""

from __future__ import annotations

import argparse
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # allows to run without an installation

from dws_core._topics.filters import matches_filter
from dws_core._topics.router import Router
from dws_core._topics.trie import MqttMatcher, TrieIndex

FILTERS = 200_000
SITES = FILTERS // 20
SCANNED = 1_000
CACHED_TOPICS = 1_000
ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: our rate and the baseline's."""

    what: str
    per_s: float
    baseline: str
    baseline_per_s: float

    @property
    def ratio(self) -> float:
        return self.per_s / self.baseline_per_s


def filters() -> list[str]:
    """Return 200,000 filters. Half are exact, 10 % end in `#`, and 40 % have one or two `+`."""
    return [filter_ for site in range(SITES) for filter_ in _filters_of(f"site/{site}")]


def _filters_of(site: str) -> Iterator[str]:
    yield from (f"{site}/device/{device}/temperature" for device in range(10))
    yield from (f"{site}/device/{device}/#" for device in range(2))
    yield from (f"{site}/+/{device}/temperature" for device in range(4))
    yield from (f"{site}/device/+/{kind}" for kind in ("temperature", "humidity"))
    yield from (f"+/{site[5:]}/device/{device}/+" for device in range(2))


def topics() -> list[str]:
    """Return 100,000 different topics. Each matches two to five of the filters."""
    return [f"site/{site}/device/{device}/temperature" for device in range(10) for site in range(SITES)]


def rate(run: Callable[[], int], *, before: Callable[[], object] = lambda: None) -> float:
    """Return operations per CPU second, the best of `ROUNDS` rounds. `before` prepares each round and is not timed."""
    best = 0.0
    for _ in range(ROUNDS):
        before()
        started = process_time()
        operations = run()
        best = max(best, operations / (process_time() - started))
    return best


def loop(call: Callable[[str], object], texts: list[str], *, times: int = 1) -> Callable[[], int]:
    def run() -> int:
        for _ in range(times):
            for text in texts:
                call(text)
        return times * len(texts)

    return run


def cached(router: Router[int], wanted: list[str]) -> Row:
    hot = wanted[:CACHED_TOPICS]
    plain = {topic: router.receivers(topic) for topic in hot}
    return Row(
        what="lookup, cached",
        per_s=rate(loop(router.receivers, hot, times=500)),
        baseline="dict.get",
        baseline_per_s=rate(loop(plain.get, hot, times=500)),
    )


def uncached(index: TrieIndex[int], router: Router[int], all_filters: list[str], wanted: list[str]) -> list[Row]:
    few = all_filters[:: FILTERS // SCANNED]

    def scan(topic: str) -> set[int]:
        return {number for number, filter_ in enumerate(few) if matches_filter(topic, filter_)}

    scans = rate(loop(scan, wanted[:: len(wanted) // 100]))
    name = f"scan of {SCANNED:,} filters, measured, / {FILTERS // SCANNED} to scale to {FILTERS:,}"
    scaled = scans * SCANNED / FILTERS
    index_rate = rate(loop(index.lookup, wanted))
    router_rate = rate(loop(router.receivers, wanted), before=lambda: forget(router))
    return [
        Row(what="lookup, uncached, index", per_s=index_rate, baseline=name, baseline_per_s=scaled),
        Row(what="lookup, uncached, router", per_s=router_rate, baseline=name, baseline_per_s=scaled),
    ]


def forget(router: Router[int]) -> None:
    """Clear the router's cache through its public interface, by adding and removing a wildcard."""
    router.subscribe(-1, "$none/+")
    router.unsubscribe(-1, "$none/+")


def adds(all_filters: list[str]) -> list[Row]:
    index: TrieIndex[int] = TrieIndex()
    router: Router[int] = Router(MqttMatcher())
    plain: dict[str, set[int]] = {}

    def renew() -> None:
        nonlocal index, router, plain
        index, router, plain = TrieIndex(), Router(MqttMatcher()), {}

    pairs = [(number % 10_000, filter_) for number, filter_ in enumerate(all_filters)]

    def add_to_index() -> int:
        add = index.add
        for receiver, filter_ in pairs:
            add(filter_, receiver)
        return len(pairs)

    def subscribe() -> int:
        add = router.subscribe
        for receiver, filter_ in pairs:
            add(receiver, filter_)
        return len(pairs)

    def add_to_dict() -> int:
        for receiver, filter_ in pairs:
            plain.setdefault(filter_, set()).add(receiver)
        return len(pairs)

    base = rate(add_to_dict, before=renew)
    name = "dict.setdefault(filter, set()).add"
    return [
        Row(what="add, index", per_s=rate(add_to_index, before=renew), baseline=name, baseline_per_s=base),
        Row(
            what="subscribe, router (validates)",
            per_s=rate(subscribe, before=renew),
            baseline=name,
            baseline_per_s=base,
        ),
    ]


def memory_per_receiver() -> dict[str, float]:
    """Return bytes per receiver for 10,000 receivers with one filter each, without the text of the filter."""
    own = [f"$conn/{number}" for number in range(10_000)]
    shapes = {
        "own exact topic": own,
        "one shared topic": ["$all"] * len(own),
        "own wildcard": [f"{f}/#" for f in own],
    }
    return {name: _bytes_each(texts) for name, texts in shapes.items()}


def _bytes_each(texts: list[str]) -> float:
    router: Router[int] = Router(MqttMatcher())
    tracemalloc.start()
    try:
        for receiver, filter_ in enumerate(texts):
            router.subscribe(receiver, filter_)
        return tracemalloc.get_traced_memory()[0] / len(texts)
    finally:
        tracemalloc.stop()


def measure() -> list[Row]:
    all_filters, wanted = filters(), topics()
    rows = adds(all_filters)
    index: TrieIndex[int] = TrieIndex()
    router: Router[int] = Router(MqttMatcher())
    for number, filter_ in enumerate(all_filters):
        index.add(filter_, number % 10_000)
        router.subscribe(number % 10_000, filter_)
    return [cached(router, wanted), *uncached(index, router, all_filters, wanted), *rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    as_json: bool = parser.parse_args().json
    rows = measure()
    memory = memory_per_receiver()
    if as_json:
        rates = [{**asdict(row), "ratio": row.ratio} for row in rows]
        print(json.dumps({"filters": FILTERS, "rates": rates, "bytes_per_receiver": memory}, indent=2))
        return
    print(f"{'at ' + format(FILTERS, ',') + ' filters':32}{'per CPU s':>14}{'baseline':>14}{'ratio':>12}  baseline is")
    for row in rows:
        print(f"{row.what:32}{row.per_s:14,.0f}{row.baseline_per_s:14,.0f}{row.ratio:12,.2f}  {row.baseline}")
    print("\nbytes per receiver for 10,000 receivers with one filter each (without its text):")
    for shape, size in memory.items():
        print(f"{shape:32}{size:14,.0f}")


if __name__ == "__main__":
    main()
