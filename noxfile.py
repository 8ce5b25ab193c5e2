"""The tasks of this repository: `nox -s demo`, `nox -s tests`, and `nox -l` for a list."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import nox
from packaging.requirements import Requirement

PYPROJECT = nox.project.load_toml("pyproject.toml")
PLUGINS = sorted(p.parent for p in Path("plugins").glob("*/pyproject.toml"))
THIRD_PARTY_PLUGIN = Path("examples/dws_sqlite")

nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = True


def found_pythons() -> list[str]:
    """Return the oldest and the newest supported interpreter that this machine can run."""
    supported = ["3.11", "3.12", "3.13", "3.14"]
    present = [version for version in supported if _find_python(version)]
    return sorted({present[0], present[-1]}, key=supported.index) if present else ["3.11"]


def _find_python(version: str) -> bool:
    """Return whether an interpreter runs. If only pyenv has it and its shim is disabled, add its folder to the path."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return True
    program = shutil.which(f"python{version}")
    if program is not None and _can_run(program):
        return True
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for program in sorted(versions.glob(f"{version}.*/bin/python{version}"), key=_patch_level, reverse=True):
        if _can_run(str(program)):
            os.environ["PATH"] = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
            return True
    return False


def _patch_level(program: Path) -> int:
    patch = program.parts[-3].split(".")[2]  # …/versions/3.13.0/bin/python3.13
    return int(patch) if patch.isdecimal() else -1


def _can_run(program: str) -> bool:
    return subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode == 0


def install_workspace(session: nox.Session, *groups: str, plugins: bool = True) -> None:
    """Install the core and all plugins as editable packages, with dependency groups, in one pip call. Print what it does."""
    paths = [Path(), *(PLUGINS if plugins else [])]
    editables = [arg for path in paths for arg in ("-e", f"./{path}")]
    needed = nox.project.dependency_groups(PYPROJECT, *groups)
    session.log(
        f"installing {', '.join(str(path.resolve().name) for path in paths)} and {', '.join(needed) or 'no more'}"
    )
    session.install(*editables, *needed, silent=False)


@nox.session
def demo(session: nox.Session) -> None:
    """Serve the chat on two nodes and print two URLs. Add `-- --check` to run a scripted exchange and exit."""
    install_workspace(session, "demo")
    session.run("python", "examples/chat/app.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run all benchmarks and write docs/explanation/performance.md. Add `-- --quick` to only check that they work."""
    install_workspace(session, "bench")
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Rewrite the generated tables of the docs."""
    install_workspace(session)
    session.run("python", "docs/generate.py")


@nox.session
def lint(session: nox.Session) -> None:
    """Check formatting, style and the import rules."""
    install_workspace(session, "lint", "test")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("pytest", "-q", "tests/contract/test_architecture.py", "tests/contract/test_skeletons.py")


@nox.session
def types(session: nox.Session) -> None:
    """Check types: mypy in strict mode, and complete types in the public modules."""
    install_workspace(session, "typing", "test", "bridges")
    session.run("mypy")
    session.run("pytest", "-q", "tests/contract/test_skeletons.py", "tests/contract/test_type_checkers.py")
    for module in ("dws_core", "dws_core.client", "dws_core.plugin", "dws_core.server", "dws_core.testing"):
        session.run("basedpyright", "--verifytypes", module, "--ignoreexternal")


@nox.session(python=found_pythons())
def tests(session: nox.Session) -> None:
    """Run all tests. The summary lists each skipped test with the command that enables it."""
    install_workspace(session, "test", "bridges")
    session.run("pytest", *session.posargs)


@nox.session
def simulate(session: nox.Session) -> None:
    """Run simulated faults of stream brokers. Add `-- --seeds 20000` for more, `-- --first 7 --seeds 1` for one."""
    install_workspace(session, "test")
    session.env["PYTHONPATH"] = "tests"
    session.run("python", "-m", "simulation", *session.posargs)


@nox.session
def autobahn(session: nox.Session) -> None:
    """Run the fuzzing client of Autobahn against real servers. Needs Python 2.7. Add `-- --cases 9.*` for some cases."""
    if not _find_python("2.7"):
        session.skip("the fuzzing client of Autobahn needs Python 2.7, which is missing. Fix: pyenv install 2.7.18")
    install_workspace(session, "test")
    session.install("virtualenv<20.16")  # the last ones that support Python 2.7
    folder = Path(session.virtualenv.location, "autobahn")
    session.run("virtualenv", "--quiet", "--python", "python2.7", str(folder))
    session.run(str(folder / "bin/pip"), "install", "--quiet", "autobahntestsuite==0.8.2", external=True)
    session.env["PYTHONPATH"] = "tests"
    session.run("python", "-m", "fuzzing", "--wstest", str(folder / "bin/wstest"), *session.posargs)


@nox.session
def outages(session: nox.Session) -> None:
    """Let clients move between nodes during long outages, with `-- redis`, `-- rabbitmq` or `-- kafka`. Add `--seeds 3`."""
    install_workspace(session, "test")
    session.env["PYTHONPATH"] = os.pathsep.join(["tests", "examples/dws_sqlite/src"])
    session.run("python", "-m", "outages", *(session.posargs or ["redis"]))


def lowest(folder: Path) -> list[str]:
    """Return the dependencies of a distribution, each pinned to its lowest allowed version."""
    needed = map(Requirement, nox.project.load_toml(folder / "pyproject.toml")["project"]["dependencies"])
    lowest = {need.name: next(s.version for s in need.specifier if s.operator == ">=") for need in needed}
    return [f"{name}=={version}" for name, version in lowest.items() if not name.startswith("dws-")]


@nox.session(python=found_pythons()[:1])
def minimums(session: nox.Session) -> None:
    """Run the tests, or some of them, on the oldest Python with the lowest allowed versions of the dependencies."""
    install_workspace(session, "test")
    pins = [pin for folder in (Path(), *PLUGINS) for pin in lowest(folder)]
    session.install(*pins, "uvicorn==0.53")
    session.run("pytest", "-W", "default::DeprecationWarning", *session.posargs)  # old packages use deprecated APIs


@nox.session
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities in the lowest allowed and in the newest versions of the dependencies."""
    try:
        urllib.request.urlopen("https://api.osv.dev/", timeout=10).close()
    except urllib.error.HTTPError:
        pass  # the service answers
    except OSError as error:
        session.skip(f"the database of vulnerabilities cannot be reached: {error}")
    session.install(*nox.project.dependency_groups(PYPROJECT, "audit"))
    pins = Path(session.create_tmp()) / "lowest.txt"
    pins.write_text("\n".join(sorted({pin for folder in (Path(), *PLUGINS) for pin in lowest(folder)})))
    session.run("pip-audit", "--vulnerability-service", "osv", "--no-deps", "--disable-pip", "-r", str(pins))
    install_workspace(session)
    session.run("pip-audit", "--vulnerability-service", "osv", "--local", "--skip-editable")


@nox.session
def coverage(session: nox.Session) -> None:
    """Check coverage: all branches of the pure modules by their unit tests, and 95 % of all lines by all tests."""
    install_workspace(session, "test", "bridges", "coverage")
    for package in ("_wire", "_limits", "_topics", "_log"):
        session.run("coverage", "erase")
        own = f"tests/unit/{package}"
        session.run(
            "coverage", "run", "--branch", f"--source=dws_core/{package}", "-m", "pytest", "-q", own, silent=True
        )
        session.run("coverage", "report", "--fail-under=100", "--skip-covered", "--show-missing")
    session.run("coverage", "erase")
    session.run(
        "coverage",
        "run",
        "--source=dws_core,_dws_pytest,dws_memory,dws_redis,dws_kafka,dws_amqp",
        "-m",
        "pytest",
        "-q",
        "tests",
        "plugins",
    )
    session.run("coverage", "report", "--fail-under=95", "--skip-covered", "--show-missing")


def install_wheels(session: nox.Session, *folders: Path) -> None:
    """Build sdists and wheels of the folders, and install the wheels."""
    with tempfile.TemporaryDirectory(prefix="dws-wheels-") as target:
        for folder in folders:
            session.run("python", "-m", "build", "--outdir", target, str(folder), silent=True)
        session.install(*sorted(map(str, Path(target).glob("*.whl"))))


@nox.session
def packages(session: nox.Session) -> None:
    """Build all distributions, install the wheels in a clean environment, and run the tests that users can run."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "packages", "test"))
    install_wheels(session, Path(), *PLUGINS)
    session.env["PYTHONSAFEPATH"] = "1"  # otherwise `import dws_core` would find the working tree
    session.run("python", "-m", "dws_core", "plugins")
    session.run("python", "-m", "dws_core", "doctor", "memory://")
    session.run("python", "-m", "dws_core", "new", "codec", "reversed", "--into", session.create_tmp())
    suites = [f"plugins/{name}/tests/test_conformance.py" for name in ("dws_memory", "dws_redis")]
    session.run("pytest", "-q", "tests/contract/test_public_api.py", *suites)


@nox.session
def third_party(session: nox.Session) -> None:
    """Build the third-party plugin, install it with the wheel of the core, and run the plugin's tests."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "packages", "test"))
    install_wheels(session, Path(), THIRD_PARTY_PLUGIN)
    session.env["PYTHONSAFEPATH"] = "1"
    session.run("pytest", "-q", str(THIRD_PARTY_PLUGIN / "tests"))
