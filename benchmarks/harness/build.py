"""Compiles the two C programs when their sources have changed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BUILT = Path(__file__).parents[1] / ".build"


def compiled(source: Path) -> Path:
    """Return the program for a source file. Compile it if it is older than a file in the source folder."""
    program = BUILT / source.stem
    newest = max(path.stat().st_mtime for path in source.parent.glob("*.[ch]"))
    if program.exists() and program.stat().st_mtime > newest:
        return program
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        raise SystemExit("The load client is written in C. Fix: install a C compiler (for example gcc) as `cc`")
    BUILT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILT) as folder:
        made = Path(folder) / source.stem
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(made), str(source)], check=True)
        made.replace(program)  # atomic, because another run may be starting it
    return program
