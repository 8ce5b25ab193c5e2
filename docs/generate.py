"""Rewrites the parts of the docs that are generated from the code: `python docs/generate.py`.

A page has a part named NAME between the lines `<!-- generated: NAME -->` and `<!-- end generated -->`. `generator/` has
a module for each source: close codes and limits, brokers, the contract of plugins, the files of the guides, and loggers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from dws_core._new import KINDS
from generator.brokers import brokers, choices
from generator.contract import contract
from generator.guides import guide_files
from generator.limits import close_codes, limits
from generator.loggers import loggers

ROOT: Final = Path(__file__).resolve().parents[1]
BLOCK: Final = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end generated -->)", re.DOTALL)

TABLES: Final[dict[str, Callable[[], str]]] = {
    "close-codes": close_codes,
    "limits": limits,
    "brokers": brokers,
    "choices": choices,
    "contract": contract,
    "loggers": loggers,
    **{f"files-{kind}": partial(guide_files, kind) for kind in KINDS},
}


def render(page: str) -> str:
    """Return the text of a page with all generated parts replaced.

    Raises:
        KeyError: The page has a part with an unknown name.
    """
    return BLOCK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", page)


def main() -> None:
    """Rewrite all pages, and print those that have changed."""
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))):
        page = path.read_text()
        if (rendered := render(page)) != page:
            path.write_text(rendered)
            print(f"rewrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
