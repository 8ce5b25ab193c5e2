"""Every core module has a test file at the same path, or another test file that is listed here."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "dws_core"

ELSEWHERE = {
    "_auth/bearer.py": "tests/integration/test_auth.py",
    "_auth/interface.py": "tests/integration/test_auth.py",
    "_auth/refusal.py": "tests/integration/test_auth.py",
    "_builtin.py": "tests/contract/test_builtins_conform.py",
    "_log/stream/io/host.py": "tests/unit/_log/stream/io/test_session.py",
    "_node/recovery/attach.py": "tests/integration/test_outage.py",
    "_node/connection/admission.py": "tests/integration/test_admission.py",
    "_node/connection/hello.py": "tests/integration/test_hello.py",
    "_node/recovery/replayer.py": "tests/integration/test_subscribe_past.py",
    "_node/recovery/replays.py": "tests/integration/test_subscribe_past.py",
    "_node/recovery/shared_searches.py": "tests/integration/test_past_bounds.py",
    "_node/connection/host.py": "tests/integration/test_original_readme.py",
    "_node/runtime.py": "tests/integration/test_restart.py",
    "_node/connection/senders.py": "tests/integration/test_exclude.py",
    "_node/connection/connection.py": "tests/integration/test_bad_input.py",
    "_node/notices.py": "tests/integration/test_fanout.py",
    "_node/stats.py": "tests/integration/test_fanout.py",
    "_node/tail_sink.py": "tests/integration/test_fanout.py",
    "_node/asking/requester.py": "tests/integration/test_requests.py",
    "_node/asking/responder.py": "tests/integration/test_requests.py",
    "_node/broker/choose.py": "tests/integration/test_node.py",
    "_node/recovery/history.py": "tests/integration/test_history.py",
    "_node/requests/commands.py": "tests/integration/test_users.py",
    "_node/requests/dispatcher.py": "tests/integration/test_bad_input.py",
    "_node/recovery/interest.py": "tests/integration/test_resume.py",
    "_node/recovery/log_caches.py": "tests/integration/test_resume.py",
    "_node/manager.py": "tests/integration/test_node.py",
    "_node/recovery/cursors.py": "tests/integration/test_resume_load.py",
    "_node/publish_methods.py": "tests/integration/test_exclude.py",
    "_node/publisher.py": "tests/integration/test_node.py",
    "_node/requests/refresh.py": "tests/integration/test_identity.py",
    "_node/request_methods.py": "tests/integration/test_requests.py",
    "_node/requests/past.py": "tests/integration/test_subscribe_past.py",
    "_node/requests/resume.py": "tests/integration/test_resume.py",
    "_node/connection/connect_block.py": "tests/integration/test_lifecycle.py",
    "_node/sending/shared_message.py": "tests/integration/test_fanout.py",
    "_node/sending/ready_frames.py": "tests/integration/test_server.py",
    "_node/connection/filter_set.py": "tests/integration/test_node.py",
    "_node/user_methods.py": "tests/integration/test_users.py",
    "_options.py": "tests/unit/test_url.py",
    "_plugins/discovery.py": "tests/unit/_plugins/test_installed_packages.py",
    "_plugins/hooks.py": "tests/unit/_plugins/test_installed_packages.py",
    "_plugins/loading.py": "tests/unit/_plugins/test_installed_packages.py",
    "_plugins/records.py": "tests/unit/_plugins/test_registry.py",
    "_plugins/slow.py": "tests/unit/_plugins/test_registry.py",
    "_plugins/texts.py": "tests/unit/_plugins/test_registry.py",
    "_plugins/markers.py": "tests/unit/_plugins/test_registry.py",
    "_proxy/proxy.py": "tests/integration/test_proxy_ends.py",
    "_topics/interface.py": "tests/contract/test_builtins_conform.py",
    "client/_announcer.py": "tests/integration/test_client_resumes.py",
    "client/_answering.py": "tests/integration/test_client_replies.py",
    "client/_client.py": "tests/integration/test_client.py",
    "client/_commands.py": "tests/integration/test_commands.py",
    "client/_events.py": "tests/unit/client/test_state.py",
    "client/_line.py": "tests/unit/client/test_publishing.py",
    "client/_link.py": "tests/integration/test_client.py",
    "client/_refreshing.py": "tests/integration/test_client_resumes.py",
    "client/_replies.py": "tests/integration/test_client.py",
    "client/_subscription.py": "tests/integration/test_client_resumes.py",
    "hookspecs.py": "tests/contract/test_docs.py",
    "plugin.py": "tests/contract/test_public_api.py",
    "server.py": "tests/integration/test_server.py",
}
"""Modules for I/O or wiring, and the file that tests them in use."""

MODULES = sorted(
    str(path.relative_to(CORE))
    for path in CORE.rglob("*.py")
    if path.name != "__init__.py" and "testing" not in path.parts
)


def _mirror(module: str) -> Path:
    path = Path(module)
    return ROOT / "tests/unit" / path.parent / f"test_{path.stem.strip('_')}.py"


@pytest.mark.parametrize("module", MODULES)
def test_module_has_tests(module: str) -> None:
    tests = ROOT / ELSEWHERE[module] if module in ELSEWHERE else _mirror(module)
    assert tests.exists(), f"{module} has no tests at {tests.relative_to(ROOT)}"


def test_listed_modules_exist_and_have_no_mirror() -> None:
    assert set(ELSEWHERE) <= set(MODULES)
    assert not [module for module in ELSEWHERE if _mirror(module).exists()]
