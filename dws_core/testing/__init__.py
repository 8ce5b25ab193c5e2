"""For the tests of plugins and applications: conformance suites and fakes. Needs the extra `testing`."""

from __future__ import annotations
