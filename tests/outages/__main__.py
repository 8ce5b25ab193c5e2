"""Long outages: `python -m outages redis --seeds 10 [--first 0] [--only freeze]`, with the folder `tests` on the path.

Each seed is one run with a server of its own. The exit code is 1 if a client has missed, repeated or reordered a message,
or has received a gap.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from outages.scenario import FAULTS, Scenario, summary
from services.kafka import PrivateKafka
from services.rabbitmq import PrivateRabbit
from services.redis import PrivateRedis

Setup: TypeAlias = tuple[Any, str, Callable[[], object]]


def redis() -> Setup:
    """Return a Redis that syncs each write, its options, and what cuts its connections."""
    server = PrivateRedis(aof=True)

    def cut() -> None:
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    return server, "?partitions=1&probe_s=200ms&dead_s=1s", cut


def rabbitmq() -> Setup:
    """Return a RabbitMQ, its options, and what cuts its connections."""
    server = PrivateRabbit()
    return server, "?partitions=1&probe_s=200ms&dead_s=2s", server.kill_connections


def kafka() -> Setup:
    """Return a Kafka, its options, and nothing that cuts its connections."""
    return PrivateKafka(), "?partitions=1&probe_s=200ms&dead_s=2s", lambda: None


SERVERS = {"redis": redis, "rabbitmq": rabbitmq, "kafka": kafka}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--only", choices=FAULTS, nargs="+", default=FAULTS, help="faults that happen, by default all")
    arguments = parser.parse_args()
    failed = False
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        server, options, cut = SERVERS[arguments.server]()
        began = time.monotonic()
        try:
            server.start()
            scenario = Scenario(
                server=server,
                url=server.url + options,
                seed=seed,
                cut=cut,
                count=arguments.count,
                faults=arguments.only,
            )
            roamers = asyncio.run(scenario.run())
        except ExceptionGroup as failures:
            failed = True
            print(arguments.server, f"seed {seed}: not finished,", *map(repr, failures.exceptions), flush=True)
            continue
        finally:
            server.remove()
        found = summary(roamers, arguments.count)
        print(arguments.server, f"seed {seed}:", dict(found), f"{time.monotonic() - began:.0f} s", flush=True)
        for text in (text for roamer in roamers for text in roamer.violations(arguments.count)):
            failed = True
            print("  ", text[:2_000], flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
