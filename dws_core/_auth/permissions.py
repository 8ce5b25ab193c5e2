"""Permissions as rules: the topics that clients may use, by filter. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple, get_args

from dws_core._auth.interface import Action, Principal
from dws_core._errors import ConfigurationError, InvalidFilter
from dws_core._topics.filters import MAX_LEVELS, check_filter, filter_covers, has_wildcard, matches_filter
from dws_core._wire.message import JSON
from dws_core._wire.node_topics import conn_topic

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_ID: Final = "principal.id"
_CLAIM: Final = "principal.claims."
_UNSAFE: Final = re.compile(r"[/+#\0]|^\$")
"""Text that could change the meaning of a filter in which it replaces a placeholder."""

_ACTIONS: Final[frozenset[str]] = frozenset(get_args(Action))


class _Rule(NamedTuple):
    template: str
    actions: frozenset[str]
    is_fixed: bool
    levels: int


class Permissions:
    """Rules for `authorize`: which actions clients may perform on which topics. Everything else is forbidden.

    ```python
    Permissions({
        "chat/+": {"subscribe", "send", "history"},
        "user/{principal.id}/#": {"subscribe"},
        "$all": {"broadcast"},
        "$conn/+": {"send_by_conn_id"},
    })
    ```

    A request for a filter is allowed only if every topic that the filter matches is allowed. Several rules may allow
    these topics together: `chat` and `chat/+/#` together allow the filter `chat/#`. The result is exact, apart from the
    maximum length of topics. A broadcast is the topic `$all`, and a message to a connection id the topic `$conn/<id>`.

    `{principal.id}` stands for the id of the user, and `{principal.claims.NAME}` for a claim that is text or an integer. A
    value never widens a rule: the rule does not apply if the value is missing or empty, contains `/`, `+` or `#`, or begins
    with `$`. It does not apply to clients without a principal either. Rules without placeholders apply to every client.

    Args:
        rules: The allowed actions for each filter, as `subscribe`, `send`, `broadcast`, `send_by_conn_id`, `history`, or
            `presence`. The order does not matter. Without rules, everything is forbidden.

    Raises:
        ConfigurationError: A rule names an unknown action or placeholder, or is not a filter of MQTT 5.0 §4.7.
    """

    def __init__(self, rules: Mapping[str, Collection[Action]]) -> None:
        self._rules = [_read_rule(template, actions) for template, actions in rules.items()]
        self._levels = max((rule.levels for rule in self._rules), default=0)

    def __call__(self, principal: Principal | None, action: Action, subject: str) -> bool:
        """Return whether a principal may perform an action on every topic of a subject.

        Args:
            principal: Identity of the client. None if it is not authenticated.
            action: The action.
            subject: A topic or filter. For `send_by_conn_id`, a connection id.

        Raises:
            InvalidFilter: The subject is not a valid filter.
        """
        wanted = conn_topic(subject) if action == "send_by_conn_id" else check_filter(subject)
        allowed = list(self._filters(principal, action))
        if not has_wildcard(wanted):
            return any(matches_filter(wanted, filter_) for filter_ in allowed)
        if any(filter_covers(filter_, wanted) for filter_ in allowed):
            return True
        return all(any(_covers(f, part) for f in allowed) for part in _parts(wanted, self._levels))

    def _filters(self, principal: Principal | None, action: Action) -> Iterator[str]:
        """Yield the filters on which an action is allowed."""
        for rule in self._rules:
            if action not in rule.actions:
                continue
            if rule.is_fixed:
                yield rule.template
            elif principal is not None and (filter_ := _filled(rule.template, principal)) is not None:
                yield filter_


def _parts(wanted: str, levels: int) -> Iterator[str]:
    """Divide a filter that ends with `#` by the number of levels of its topics.

    Topics with more than `levels` levels are one part, because rules with fewer levels do not distinguish between them.
    """
    if not wanted.endswith("#"):
        yield wanted
        return
    head = wanted.split("/")[:-1]
    if shortest := "/".join(head):
        yield shortest
    while len(head) < levels or MAX_LEVELS - 2 < len(head) < MAX_LEVELS:
        head.append("+")
        yield "/".join(head)
    if len(head) < MAX_LEVELS:
        yield "/".join([*head, "+", "#"])


def _covers(allowed: str, wanted: str) -> bool:
    try:
        return filter_covers(allowed, wanted)
    except InvalidFilter:  # a part is longer than a filter may be
        return False


def _read_rule(template: str, actions: Collection[Action]) -> _Rule:
    where = f"the rule {template!r} of Permissions"
    if isinstance(actions, str) or not actions or not _ACTIONS.issuperset(actions):
        raise ConfigurationError(
            f"{where} has the actions {actions!r}.", fix=f"give a set of {', '.join(sorted(_ACTIONS))}"
        )
    for name in _PLACEHOLDER.findall(template):
        if name != _ID and name.removeprefix(_CLAIM) in ("", name):
            raise ConfigurationError(
                f"{where} has the placeholder {{{name}}}.", fix="use {principal.id} or {principal.claims.NAME}"
            )
    example = _PLACEHOLDER.sub("x", template)
    try:
        check_filter(example)
    except InvalidFilter as error:
        raise ConfigurationError(f"{where} is not a filter: {error.message}", fix=error.fix) from error
    return _Rule(template, frozenset(actions), example == template, example.count("/") + 1)


def _filled(template: str, principal: Principal) -> str | None:
    """Return a rule's filter for a principal, or None if the rule does not apply to it."""
    values = {name: _value_of(principal, name) for name in _PLACEHOLDER.findall(template)}
    if any(not value or _UNSAFE.search(value) for value in values.values()):
        return None
    try:
        return check_filter(_PLACEHOLDER.sub(lambda found: str(values[found[1]]), template))
    except InvalidFilter:  # it is too long, or has a lone surrogate
        return None


def _value_of(principal: Principal, name: str) -> str:
    value: JSON = principal.id if name == _ID else principal.claims.get(name.removeprefix(_CLAIM))
    is_usable = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if is_usable else ""
