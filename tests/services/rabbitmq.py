"""Private RabbitMQ nodes for tests: separate processes with free loopback ports and their own folder."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

import pytest
from services.redis import free_port
from services.starting import wait_until_ready
from support import signals

_PAUSE_S: Final = 0.01

_PROGRAM: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The program of Debian's package. The command on PATH changes the user and uses fixed folders."""

_SMALL: Final = ("+S", "1:1", "+SDcpu", "1:1", "+SDio", "1", "+A", "1")
"""Arguments for an Erlang with few threads."""

_CONTROL: Final = """
F = fun F() -> case io:get_line("") of
  eof -> halt();
  L -> [N, T] = string:split(string:trim(L), "|"),
    {ok, S, _} = erl_scan:string(T), {ok, E} = erl_parse:parse_exprs(S),
    case rpc:call(list_to_atom(N), erl_eval, exprs, [E, []], 60000) of
      {value, V, _} -> io:format("ok ~0tp~n", [V]);
      Failure -> io:format("~0tp~n", [Failure])
    end, F() end end, F().
"""
"""A loop of Erlang that evaluates lines of the form `node|expressions.` on a node and prints the results."""

_PRELOAD: Final = """
Read = fun(App) ->
  Folder = filename:join(code:lib_dir(App), "ebin"),
  {ok, [{application, App, Keys}]} = file:consult(filename:join(Folder, atom_to_list(App) ++ ".app")),
  Files = [{M, filename:join(Folder, atom_to_list(M) ++ ".beam")} || M <- proplists:get_value(modules, Keys)],
  {Files, proplists:get_value(applications, Keys)} end,
Walk = fun Walk([], Done) -> Done;
           Walk([App | Apps], Done) ->
             {Files, Needed} = Read(App),
             Walk(lists:usort((Apps ++ Needed) -- [App | proplists:get_keys(Done)]), [{App, Files} | Done]) end,
Code = [{M, File, Bytes} || {_, Files} <- Walk([mnesia, rabbit], []), {M, File} <- Files,
                            code:is_loaded(M) =:= false, {ok, Bytes} <- [file:read_file(File)]],
{error, Special} = code:prepare_loading(Code),
{ok, Ready} = code:prepare_loading([Each || Each <- Code, not proplists:is_defined(element(1, Each), Special)]),
ok = code:finish_loading(Ready).
"""
"""Loads the modules of RabbitMQ and of the applications that it needs in one step, except those with native code.

RabbitMQ loads them anyway while it looks for its boot steps, but one by one. For each, Erlang searches all folders and
waits for all its threads, which takes long on a busy machine.
"""


def is_required() -> bool:
    """Whether a missing RabbitMQ is a failure: `DWS_REQUIRE_SERVICES` names `rabbitmq`."""
    return "rabbitmq" in os.environ.get("DWS_REQUIRE_SERVICES", "").split(",")


@lru_cache(maxsize=1)
def find_rabbitmq() -> str:
    """Return the program's path. If there is none, skip the test, or fail it if the program is required."""
    found = _installed()
    if found is None and is_required() and os.geteuid() == 0 and Path("/etc/debian_version").exists():
        # Only the program, because the tests start it themselves.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        with Path(tempfile.gettempdir(), "dws-apt.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the tests of another Python may install it at the same time
            if not _installed():
                subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
                subprocess.run(["apt-get", "install", "-y", "-qq", "rabbitmq-server"], check=True, env=environment)
        found = _installed()
    if found is None:
        text = "no rabbitmq-server. Fix: apt-get install rabbitmq-server"
        if is_required():
            pytest.fail(text)
        pytest.skip(text)
    return found


def _installed() -> str | None:
    return str(_PROGRAM) if _PROGRAM.exists() else shutil.which("rabbitmq-server")


class Erlang:
    """The surroundings of some Erlang nodes: a folder with their cookie, their epmd, and a node that controls them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dws-rabbitmq-"))
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text("dws-tests-only")
        cookie.chmod(0o400)
        self.environment: dict[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))},
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        self._lock = threading.Lock()
        self._epmd: subprocess.Popen[bytes] | None = None
        self._control: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start epmd, unless it runs. Return when it accepts connections, because Erlang would start another one."""
        if self._epmd is None:
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self._epmd = subprocess.Popen([_find_epmd()], env=self.environment, **quiet)  # type: ignore[call-overload]
            while not accepts(int(self.environment["ERL_EPMD_PORT"])):
                time.sleep(_PAUSE_S)

    def eval(self, node: str, expressions: str) -> str:
        """Evaluate Erlang expressions on a node, and return the printed result.

        Raises:
            RuntimeError: The evaluation failed, or the node is not running.
        """
        if self._control is None:
            command = ["erl", "-noshell", "-hidden", "-sname", f"control{os.getpid()}@localhost", "-eval", _CONTROL]
            self._control = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._control.stdin is not None
        assert self._control.stdout is not None
        with self._lock:
            self._control.stdin.write(f"{node}|{expressions}.\n")
            self._control.stdin.flush()
            answer = self._control.stdout.readline().strip()
        if not answer.startswith("ok "):
            raise RuntimeError(f"{expressions} on {node}: {answer or 'the control node ended'}")
        return answer.removeprefix("ok ")

    def remove(self) -> None:
        """Stop everything, and remove the folder."""
        for process in (self._control, self._epmd):
            if process is not None:
                process.kill()
                process.wait()
        if self._control is not None:
            for pipe in (self._control.stdin, self._control.stdout):
                assert pipe is not None
                pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _find_epmd() -> str:
    found = shutil.which("epmd") or next(map(str, Path("/usr/lib/erlang").glob("erts-*/bin/epmd")), None)
    assert found is not None, "Erlang has no epmd"
    return found


class PrivateRabbit:
    """A RabbitMQ node that the test may stop, freeze or change.

    Args:
        erlang: The surroundings, shared by the nodes of a cluster. If None, the node is alone.
        number: Number of the node in its cluster.
        size: Number of nodes in the cluster.
        feature_flags: The feature flags that are enabled on a new node, separated by commas. If None, all.
        **settings: Settings of rabbitmq.conf. An underscore stands for a dot.
    """

    def __init__(
        self,
        erlang: Erlang | None = None,
        number: int = 0,
        size: int = 1,
        *,
        feature_flags: str | None = None,
        **settings: str,
    ) -> None:
        self._own_erlang = Erlang() if erlang is None else None
        self.erlang = self._own_erlang or erlang
        assert self.erlang is not None
        self.name = f"dws{number}@localhost"
        self.port = free_port()
        self.folder = self.erlang.folder / f"node{number}"
        self.data = self.folder / "data"
        self.data.mkdir(parents=True)
        self.settings = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "disk_free_limit.absolute": "1MB",
            "vm_memory_high_watermark.absolute": "1GB",
            **{name.replace("__", "."): value for name, value in settings.items()},
        }
        if size > 1:
            self.settings["cluster_formation.peer_discovery_backend"] = "classic_config"
            for other in range(size):
                self.settings[f"cluster_formation.classic_config.nodes.{other + 1}"] = f"dws{other}@localhost"
        self._feature_flags = {} if feature_flags is None else {"RABBITMQ_FEATURE_FLAGS": feature_flags}
        self._dist_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start the node, and return when it accepts connections."""
        process = self.launch()
        wait_until_ready("RabbitMQ", lambda: accepts(self.port), process, self.folder / "log.txt")
        self._pid = int(self.eval("os:getpid()").strip('"'))

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting."""
        program = find_rabbitmq()
        self.erlang.start()
        (self.folder / "rabbitmq.conf").write_text("".join(f"{k} = {v}\n" for k, v in self.settings.items()))
        (self.folder / "enabled_plugins").write_text("[].")
        (self.folder / "preload.erl").write_text(_PRELOAD)
        self._offer_no_plugins(Path(program))
        with (self.folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [program],
                env=self.erlang.environment | self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._process

    def _offer_no_plugins(self, program: Path) -> None:
        """Fill the folder of plugins with RabbitMQ itself, whose schema is needed, because it examines all at each start."""
        plugins = self.folder / "plugins"
        plugins.mkdir(exist_ok=True)
        for own in program.resolve().parents[1].glob("**/plugins/rabbit-[0-9]*"):
            if not (link := plugins / own.name).exists():
                link.symlink_to(own)

    def _environment(self) -> dict[str, str]:
        return {
            **self._feature_flags,
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_BASE": str(self.folder),
            "RABBITMQ_MNESIA_BASE": str(self.data),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.folder / "generated"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_PLUGINS_DIR": str(self.folder / "plugins"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_NODE_ONLY": "true",  # the arguments start RabbitMQ, after its modules
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(self._erlang_arguments()),
        }

    def _erlang_arguments(self) -> list[str]:
        preload = f'file:script("{self.folder / "preload.erl"}")'
        return [*_SMALL, "-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-eval", preload, "-s", "rabbit", "boot"]

    def kill(self) -> None:
        """Kill the node, like a crash."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # the shell script, and Erlang in the same group
            self._process.wait()
            while self._pid and not _has_ended(self._pid):
                time.sleep(_PAUSE_S)
            self._process, self._pid = None, 0

    def freeze(self) -> None:
        """Freeze the node with its connections open, and return when it has stopped."""
        signals.stop(self._pid)

    def thaw(self) -> None:
        """Let the node continue, and return when it runs."""
        signals.resume(self._pid)

    def wipe(self) -> None:
        """Remove the data of a node that is not running."""
        assert self._process is None
        shutil.rmtree(self.data)
        self.data.mkdir()

    def remove(self) -> None:
        """Stop the node, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._own_erlang is not None:
            self._own_erlang.remove()

    # -- what an administrator does

    def eval(self, expressions: str) -> str:
        """Evaluate Erlang expressions on this node, and return the printed result."""
        return self.erlang.eval(self.name, expressions)

    def close_connections(self, name: str = "") -> int:
        """Close the connections whose name given by the client contains a text. Return their number."""
        return self._end_connections(name, 'catch rabbit_networking:close_connection(P, "test")')

    def kill_connections(self, name: str = "") -> int:
        """Kill the processes of these connections, so that replies on their way are lost. Return their number."""
        return self._end_connections(name, "exit(P, kill)")

    def _end_connections(self, name: str, end: str) -> int:
        # A connection may end on its own in the meantime.
        named = (
            "Named = fun(P) -> Found = (catch rabbit_reader:info(P, [client_properties])), "
            f'string:find(lists:flatten(io_lib:format("~p", [Found])), "{name}") =/= nomatch end, '
        )
        return int(self.eval(f"{named}length([{end} || P <- rabbit_networking:connections(), Named(P)])"))

    def add_user(self, name: str, *, configure: str, write: str, read: str) -> None:
        """Add a user whose password is its name, with permissions in the virtual host `/`."""
        rights = ", ".join(f"<<{json.dumps(right)}>>" for right in (configure, write, read))
        self.eval(
            f'rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"{name}">>, <<"test">>), '
            f'rabbit_auth_backend_internal:set_permissions(<<"{name}">>, <<"/">>, {rights}, <<"test">>)'
        )

    def announce_version(self, version: str) -> None:
        """Announce another version to new connections."""
        self.eval(f'application:set_env(rabbit, server_properties, [{{version, "{version}"}}])')

    def raise_alarm(self, kind: str) -> None:
        """Raise the alarm `memory` or `disk`."""
        self.eval(f"rabbit_alarm:set_alarm({{{{resource_limit, {kind}, node()}}, []}})")

    def clear_alarm(self, kind: str) -> None:
        """Clear the alarm `memory` or `disk`."""
        self.eval(f"rabbit_alarm:clear_alarm({{resource_limit, {kind}, node()}})")

    def kill_stream_writers(self) -> None:
        """Kill the processes that write the streams. RabbitMQ starts them again."""
        self.eval(
            "[exit(amqqueue:get_pid(Q), kill) || Q <- rabbit_amqqueue:list(), amqqueue:get_type(Q) == rabbit_stream_queue]"
        )

    def save(self) -> None:
        """Copy the data as a crash at this moment would leave it. The node runs, and stands still for the copy."""
        shutil.rmtree(self.folder / "saved", ignore_errors=True)
        self.freeze()
        try:
            shutil.copytree(self.data, self.folder / "saved")
        finally:
            self.thaw()

    def restore(self) -> None:
        """Replace the data of a node that is not running by the copy."""
        self.wipe()
        shutil.copytree(self.folder / "saved", self.data, dirs_exist_ok=True)

    def queues(self) -> list[str]:
        """Return the names of all queues and streams."""
        found = self.eval("[element(4, amqqueue:get_name(Q)) || Q <- rabbit_amqqueue:list()]")
        return [part.split('"')[1] for part in found.split("<<")[1:]]

    def leader(self, name: str) -> str:
        """Return the name of the node with the leader of a stream."""
        return self.eval(
            f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{name}">>)), node(amqqueue:get_pid(Q))'
        ).strip("'")

    def delete_queues(self) -> None:
        """Delete all queues and streams, and the exchanges of dws."""
        self.eval('[catch rabbit_amqqueue:delete(Q, false, false, <<"test">>) || Q <- rabbit_amqqueue:list()]')
        self.eval(
            '[rabbit_exchange:delete(N, false, <<"test">>) '
            '|| {resource, _, _, <<"dws.", _/binary>>} = N <- rabbit_exchange:list_names()]'
        )

    def delete_queue(self, name: str) -> None:
        """Delete a queue or stream."""
        self.eval(
            f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{name}">>)), '
            'rabbit_amqqueue:delete(Q, false, false, <<"test">>)'
        )


def accepts(port: int) -> bool:
    """Return whether a server accepts connections at a port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False


def _has_ended(pid: int) -> bool:
    try:
        return signals.has_ended(signals.thread_states(pid))
    except FileNotFoundError:  # it ended in this moment
        return True
