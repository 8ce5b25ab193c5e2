"""Loads the objects of records and checks them, so that a mistake shows at the look-up and not at the first message."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

from dws_core._auth.interface import Authenticator, TokenVerifier
from dws_core._errors import ConfigurationError, PluginLoadError
from dws_core._log.contract import LogBroker
from dws_core._log.plain import BrokerInterface
from dws_core._options import parse_options, read_options, show_options
from dws_core._plugins.installing import how_to_reinstall
from dws_core._plugins.records import KINDS, Plugin, as_sentence, reason_of, value_of_type
from dws_core._topics.interface import TopicMatcher
from dws_core._wire.codecs import Codec

_PROTOCOLS: Final[dict[str, type[Any]]] = {"dws_register_codecs": Codec, "dws_register_topic_matchers": TopicMatcher}


def split_name(hook: str, text: str) -> tuple[str, dict[str, str]]:
    """Split `name?option=value` into the name and the options.

    Raises:
        ConfigurationError: The options are malformed.
    """
    name, _, query = text.partition("?")
    return name, parse_options(query, where=f"{KINDS[hook][0]} {name!r}", error=ConfigurationError)


def load_record(hook: str, name: str, plugin: Plugin, spec: Any, options: Mapping[str, str]) -> Any:
    """Load the object of a record.

    Raises:
        ConfigurationError: The record has no such option, or a value is wrong.
        PluginLoadError: `load` raised an exception, or returned something else than the record promises.
    """
    title = f"{KINDS[hook][0]} {name!r} of {plugin}"
    arguments = [] if hook == "dws_register_brokers" else _arguments(hook, name, title, spec, options)
    try:
        value = spec.load(*arguments)
        mistake = _mistake(hook, name, value)
    except ConfigurationError as error:
        if arguments and not isinstance(error, PluginLoadError):
            raise  # the plugin refuses the options
        raise _not_loaded(title, plugin, error) from error
    except (Exception, SystemExit) as error:
        raise _not_loaded(title, plugin, error) from error
    if mistake:
        raise PluginLoadError(
            f"{title} {mistake}.", fix=f"correct the plugin, or install another version of {plugin.distribution}"
        )
    return value


def build_authenticator(
    name: str, plugin: Plugin, spec: Any, factory: Any, verify: TokenVerifier | None
) -> Authenticator:
    """Call the factory of an authenticator.

    Raises:
        ConfigurationError: The authenticator needs a token verifier and there is none, or the reverse.
        PluginLoadError: The factory raised an exception, or returned something else.
    """
    title = f"authenticator {name!r} of {plugin}"
    if spec.verify_token == "required" and verify is None:  # noqa: S105 -- not a secret
        raise ConfigurationError(
            f"{title} needs a function to verify tokens.", fix="pass WebSocketManager(..., verify_token=your_function)"
        )
    if spec.verify_token == "unused" and verify is not None:  # noqa: S105 -- as above
        raise ConfigurationError(f"{title} does not use verify_token.", fix="remove verify_token")
    try:
        value: Authenticator = factory() if spec.verify_token == "unused" else factory(verify=verify)  # noqa: S105
        mistake = _lacks(value, Authenticator)
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginLoadError(
            f"{title} could not be built: {as_sentence(reason_of(error))}",
            fix=f"correct or upgrade {plugin.distribution}",
        ) from error
    if mistake:
        raise PluginLoadError(f"{title} {mistake}.", fix=f"correct or upgrade {plugin.distribution}")
    return value


def _not_loaded(title: str, plugin: Plugin, error: BaseException) -> PluginLoadError:
    return PluginLoadError(
        f"{title} could not be loaded: {as_sentence(reason_of(error))}",
        fix=f"repair the installation: {how_to_reinstall(plugin.distribution)}",
    )


def _arguments(hook: str, name: str, title: str, spec: Any, options: Mapping[str, str]) -> list[Any]:
    if spec.options is None:
        if options:
            raise ConfigurationError(
                f"{title} has no options, but {', '.join(map(repr, options))} is given.", fix=f"write {name!r}"
            )
        return []
    shown = f"{name}?{show_options(options)}" if options else name
    where = title.replace(repr(name), repr(shown), 1)
    try:
        return [read_options(options, spec.options, where=where, error=ConfigurationError)]
    except ConfigurationError:
        raise
    except Exception as error:
        raise PluginLoadError(
            f"the options of {title} could not be read: {as_sentence(reason_of(error))}", fix="correct the plugin"
        ) from error


def _mistake(hook: str, name: str, value: object) -> str:
    """Return the contradiction between an object and its record, or an empty text."""
    if hook == "dws_register_brokers":
        if not inspect.isclass(value) or not issubclass(value, BrokerInterface | LogBroker):
            return f"loaded {value_of_type(value)}, expected a subclass of LogBroker or BrokerInterface"
        missing = sorted(getattr(value, "__abstractmethods__", ()))
        return f"is incomplete: class {_full_name(value)} lacks {', '.join(missing)}" if missing else ""
    if hook == "dws_register_authenticators":
        return "" if callable(value) else f"loaded {value_of_type(value)}, expected a callable"
    if mistake := _lacks(value, _PROTOCOLS[hook]):
        return mistake
    if isinstance(value, Codec) and value.name != name:
        return f"loaded a codec whose name is {value.name!r}"
    return ""


def _lacks(value: object, protocol: type[Any]) -> str:
    if inspect.isclass(value):
        return f"loaded the class {_full_name(value)}, expected an instance"
    members = [*inspect.get_annotations(protocol), *vars(protocol)]
    public = [member for member in members if not member.startswith("_")]
    missing = sorted(member for member in public if not hasattr(value, member))
    if not missing:
        return ""
    if len(missing) == len(public):
        return f"loaded {value_of_type(value)}, expected an object with {', '.join(sorted(public))}"
    return f"is incomplete: class {_full_name(type(value))} lacks {', '.join(missing)}"


def _full_name(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
