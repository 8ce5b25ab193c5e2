"""A private Apache Kafka for tests: separate processes with free loopback ports and their own folders."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final

from services.finding import missing, one_process_at_a_time
from services.redis import free_port
from services.starting import wait_until_ready
from support import signals
from support.timeouts import HANG_S

_VERSION: Final = "4.1.0"
_POM: Final = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dws.tests</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""
_JAVA: Final = ("-Xmx384m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_CLASSES: Final = "classes.jsa"
_FIRST_RECORDS: Final = "bootstrap.checkpoint"
_MANY_S: Final = 200.0
"""Time limit in seconds for the end of a Java that writes its classes into an archive."""
_API_VERSIONS: Final = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""The request ApiVersions, version 0, without a client id."""


@lru_cache(maxsize=1)
def find_kafka() -> tuple[str, Path]:
    """Return the program `java` and the folder of Kafka's jars. Without them, skip the test, or fail it if required.

    The jars are those of an installed Kafka (`KAFKA_HOME`, or `kafka-server-start.sh` on the path). Otherwise Maven
    downloads them once into the cache of the user, about 45 MB.
    """
    java = shutil.which("java")
    with one_process_at_a_time():
        folder = _installed() or (_from_maven() if java else None)
    if java is None or folder is None:
        return missing("kafka", fix="apt-get install -y default-jre-headless maven, or set KAFKA_HOME and install Java")
    return java, folder


def _installed() -> Path | None:
    script = shutil.which("kafka-server-start.sh")
    home = os.environ.get("KAFKA_HOME") or (Path(script).resolve().parents[1] if script else None)
    return Path(home, "libs") if home and Path(home, "libs").is_dir() else None


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "dws-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _from_maven() -> Path | None:
    cache = _cache()
    folder = cache / f"kafka-{_VERSION}"
    if folder.is_dir():
        return folder
    if (maven := shutil.which("mvn")) is None:
        return None
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        (pom := Path(scratch, "pom.xml")).write_text(_POM)
        command = [maven, "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", "-DoutputDirectory=libs"]
        subprocess.run(command, check=True, timeout=600, stdout=subprocess.DEVNULL)
        try:
            Path(scratch, "libs").rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(Path(scratch, "libs"))
    return folder


@lru_cache(maxsize=1)
def find_template() -> Path:
    """Return a folder with an archive of Kafka's classes and the first records of a cluster, which halve the time of a start.

    A server that is started only for this writes them into the cache of the user, about 50 MB.
    """
    java, jars = find_kafka()
    program = Path(java).resolve()
    versions = [str(program), str(program.stat().st_mtime_ns), *sorted(map(str, jars.iterdir())), *_JAVA]
    folder = _cache() / f"kafka-template-{hashlib.sha256(repr(versions).encode()).hexdigest()[:16]}"
    with one_process_at_a_time():
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=_cache()) as scratch:
                _write_template(made := Path(scratch, "template"))
                made.rename(folder)
    return folder


def _write_template(folder: Path) -> None:
    folder.mkdir()
    server = PrivateKafka()
    try:
        server.format()
        shutil.copy(server.folder / "data" / _FIRST_RECORDS, folder)
        process = server.run(f"-XX:ArchiveClassesAtExit={folder / _CLASSES}")
        server.wait()
        process.terminate()
        process.wait(_MANY_S)
    finally:
        server.remove()


class PrivateKafka:
    """One Kafka server, which the test may kill, freeze or wipe.

    Args:
        number: Number of the server in its cluster.
        controller: The server that controls the cluster. If None, this one does.
        is_broker: Whether clients can connect to it.
        advertised: Port that clients are told to connect to, for example of a proxy. If None, the server's own port.
        listeners: Security protocols of more listeners, by name.
        scram: Users and their passwords for SCRAM.
        **settings: Settings of server.properties. Dots are written as underscores.
    """

    def __init__(
        self,
        number: int = 1,
        *,
        controller: PrivateKafka | None = None,
        is_broker: bool = True,
        advertised: int | None = None,
        listeners: Mapping[str, str] | None = None,
        scram: Mapping[str, str] | None = None,
        **settings: str,
    ) -> None:
        self.number = number
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="dws-kafka-"))
        self.cluster: str = controller.cluster if controller else _new_id()
        self.controller_port: int = controller.controller_port if controller else free_port()
        self._controller = controller
        self._is_broker = is_broker
        self._advertised = advertised or self.port
        self.ports = {name: free_port() for name in listeners or {}}
        self._listeners = listeners or {}
        self._scram = scram or {}
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._advertised}"

    @property
    def url(self) -> str:
        """The URL for a broker of dws."""
        return f"kafka://{self.address}"

    def start(self) -> None:
        """Start the process, and return when it replies."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start the process without waiting for it."""
        template = find_template()
        if not (data := self.folder / "data").exists():
            if self._scram:
                self.format()
            else:
                data.mkdir()
                shutil.copy(template / _FIRST_RECORDS, data)
                names = {"version": 1, "cluster.id": self.cluster, "node.id": self.number, "directory.id": _new_id()}
                (data / "meta.properties").write_text(_lines(names))
        self.run(f"-XX:SharedArchiveFile={template / _CLASSES}")

    def format(self) -> None:
        """Create the data of a new server with Kafka's own program, which is another Java process."""
        form = ["format", "-t", self.cluster, "-c", str(self._write_properties()), *self._format_options()]
        with (self.folder / "log.txt").open("ab") as log:
            subprocess.run([*_java(), "kafka.tools.StorageTool", *form], check=True, stdout=log, stderr=log)

    def run(self, *options: str) -> subprocess.Popen[bytes]:
        """Start the process on existing data with more options for Java, without waiting for it."""
        with (self.folder / "log.txt").open("ab") as log:
            command = [*_java(*options), "kafka.Kafka", str(self._write_properties())]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        return self._process

    def wait(self) -> None:
        """Return when the server replies."""
        assert self._process is not None
        wait_until_ready("Kafka", self._replies, self._process, self.folder / "log.txt")

    def kill(self) -> None:
        """Kill the process, like a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def leave(self) -> None:
        """Stop the process in an orderly way, so that other servers take over its partitions at once."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(HANG_S)
            self._process = None

    def freeze(self) -> None:
        """Freeze the process with its connections open, and return when it has stopped."""
        assert self._process is not None
        signals.stop(self._process.pid)

    def thaw(self) -> None:
        """Let the process continue, and return when it runs."""
        assert self._process is not None
        signals.resume(self._process.pid)

    def wipe(self) -> None:
        """Kill the process, and start it without its data."""
        self.kill()
        shutil.rmtree(self.folder / "data")
        self.start()

    def save(self) -> None:
        """Copy the data as a crash at this moment would leave it. The process runs, and stands still for the copy."""
        shutil.rmtree(self.folder / "saved", ignore_errors=True)
        self.freeze()
        try:
            shutil.copytree(self.folder / "data", self.folder / "saved")
        finally:
            self.thaw()

    def restore(self) -> None:
        """Replace the data of a process that is not running by the copy."""
        assert self._process is None
        shutil.rmtree(self.folder / "data")
        shutil.copytree(self.folder / "saved", self.folder / "data")

    def remove(self) -> None:
        """Kill the process, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write_properties(self) -> Path:
        if not (file := self.folder / "server.properties").exists():
            file.write_text(_lines(self._properties()))
        return file

    def _properties(self) -> dict[str, str]:
        roles = [name for name, has in (("broker", self._is_broker), ("controller", not self._controller)) if has]
        ports = {"PLAINTEXT": self.port, **self.ports} if self._is_broker else {}
        ports |= {} if self._controller else {"CONTROLLER": self.controller_port}
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **self._listeners}
        voter = self._controller.number if self._controller else self.number
        found = {
            "process.roles": ",".join(roles),
            "node.id": str(self.number),
            "controller.quorum.voters": f"{voter}@127.0.0.1:{self.controller_port}",
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
            "listener.security.protocol.map": ",".join(f"{name}:{value}" for name, value in protocols.items()),
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.folder / "data"),
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "log.index.size.max.bytes": "65536",
            "log.initial.task.delay.ms": "100",
        }
        if self._is_broker:
            shown = {"PLAINTEXT": self._advertised, **self.ports}
            found["advertised.listeners"] = ",".join(f"{name}://127.0.0.1:{port}" for name, port in shown.items())
        return found | {name.replace("_", "."): value for name, value in self._settings.items()}

    def _format_options(self) -> list[str]:
        mechanisms = ("SCRAM-SHA-256", "SCRAM-SHA-512")
        users = [f"{way}=[name={user},password={word}]" for way in mechanisms for user, word in self._scram.items()]
        return [part for user in users for part in ("--add-scram", user)]

    def _replies(self) -> bool:
        port = self.port if self._is_broker else self.controller_port
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=HANG_S) as connection:
                connection.sendall(_API_VERSIONS)
                replied = len(connection.recv(4)) == 4
            for other in self.ports.values():  # Kafka opens them one after the other
                socket.create_connection(("127.0.0.1", other), timeout=HANG_S).close()
            return replied
        except OSError:
            return False


class PrivateKafkaCluster:
    """A controller and three brokers.

    Args:
        **settings: Settings of all servers.
    """

    def __init__(self, **settings: str) -> None:
        self.controller = PrivateKafka(100, is_broker=False, **settings)
        self.brokers = {number: PrivateKafka(number, controller=self.controller, **settings) for number in (1, 2, 3)}

    @property
    def addresses(self) -> str:
        """Host and port of all brokers."""
        return ",".join(broker.address for broker in self.brokers.values())

    @property
    def url(self) -> str:
        """The URL for a broker of dws."""
        return f"kafka://{self.addresses}"

    def start(self) -> None:
        """Start all servers, and return when all reply."""
        servers = [self.controller, *self.brokers.values()]
        for server in servers:
            server.launch()
        for server in servers:
            server.wait()

    def remove(self) -> None:
        """Kill all servers, and remove their folders."""
        for server in (*self.brokers.values(), self.controller):
            server.remove()


def _java(*options: str) -> list[str]:
    """Return the start of a command that runs a class of Kafka."""
    java, jars = find_kafka()
    return [java, *_JAVA, *options, "-cp", f"{jars}/*"]


def _lines(properties: Mapping[str, object]) -> str:
    return "".join(f"{name}={value}\n" for name, value in properties.items())


def _new_id() -> str:
    """Return a random id of a cluster or folder. A leading "-" would be an option of the program that formats the folder."""
    return "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
