"""Build and show the website of the course: `python -m courseware.site build` and `open`; `colab` writes notebooks.

This module is also the site's Sphinx extension (see `_config.yml`). It writes formulas as MathML, it adds the models
that the course has trained, it folds hints and solutions under the exercises, it puts a quiz at the end of each
chapter, it draws on a part's page where that part stands, and it fills the pages that are generated: the library's
public names, the measured figures, the references.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import subprocess
import sys
import webbrowser
from pathlib import Path
from typing import Any

from courseware import paths
from courseware.site import proof
from courseware.site.colab import write_copies
from courseware.site.mending import mend
from courseware.site.models import ship_models
from courseware.site.parts import FOLDER as PARTS
from courseware.site.parts import with_strip
from courseware.site.publishing import add_meta_tags, write_site_files
from courseware.site.quizzes import with_quiz
from courseware.site.records import records
from courseware.site.reference import reference
from courseware.site.references import bibliography
from courseware.site.weight import lighten

_JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"
_COMMANDS = {
    "build": "build all pages",
    "open": "build them and show them",
    "colab": "write copies of the notebooks that get the course by themselves",
}
_MARKS = {
    "book/reference": {"<!-- public names -->": reference},
    "book/measurements": {"<!-- records -->": records},
    "book/proof": {
        "<!-- mutants -->": proof.mutants,
        "<!-- fuzz -->": proof.fuzz,
        "<!-- kills -->": proof.kills,
    },
    "book/references": {"<!-- references -->": bibliography},
}


# ---------------------------------------------------------------- commands


def build(out: Path | None = None, strict: bool = True) -> Path:
    """Build all pages below `out` (default: `_build`) and return the folder of the pages.

    Raises CalledProcessError if Jupyter Book fails; with `strict`, a single warning is a failure.
    """
    out = (out or paths.ROOT / "_build").resolve()
    parent = out.parent if out.name == "_build" else out  # Jupyter Book adds a `_build` itself

    command = [sys.executable, "-c", _JUPYTER_BOOK, "build", str(paths.ROOT)]
    command += ["--toc", "book/_toc.yml", "--config", str(paths.ROOT / "_config.yml")]
    command += ["--path-output", str(parent), "--all", "-n", "--keep-going"]
    if strict:
        command.append("-W")

    search = [str(paths.CODE), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search))}
    subprocess.run(command, check=True, env=environment, cwd=paths.ROOT)
    return parent / "_build" / "html"


def serve(pages: Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """Return a server of `pages`, reachable from this computer only; port 0 picks a free one."""
    handler = functools.partial(_Quiet, directory=str(pages))
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    # Some systems serve JavaScript as text/plain, and browsers refuse such a module.
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".svg": "image/svg+xml",
    }

    def log_message(self, format: str, *args: Any) -> None:  # the parent prints every request
        pass


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m courseware.site", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    for name, about in _COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about)
        command.add_argument("--out", type=Path, default=None, metavar="FOLDER")
    chosen = parser.parse_args(arguments)

    if chosen.command == "colab":
        copies = write_copies(chosen.out or paths.ROOT / "_build" / "colab")
        print(f"{len(copies)} notebooks for Colab are in {copies[0].parent.parent}")
        return 0

    try:
        pages = build(chosen.out)
    except subprocess.CalledProcessError as error:
        print(f"the site was not built (exit status {error.returncode}); see the messages above")
        return 1

    print(f"the first page is {pages / 'index.html'}")
    if chosen.command == "open":
        _show(pages)
    return 0


def _show(pages: Path) -> None:
    with serve(pages) as server:
        address = f"http://127.0.0.1:{server.server_port}/index.html"
        print(f"showing {address} until you press Ctrl-C", flush=True)
        webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


# ---------------------------------------------------------------- the Sphinx extension


def setup(app: Any) -> dict[str, Any]:
    """Connect the additions to Sphinx."""
    from courseware.site import formulas  # it needs Sphinx, which the command `colab` does without

    formulas.setup(app)
    app.connect("source-read", _fill_mark)
    app.connect("source-read", _fold_exercises)
    app.connect("source-read", _add_quiz)
    app.connect("source-read", _add_strip)
    app.connect("build-finished", _drop_icon_script)
    app.connect("build-finished", _ship_models)
    app.connect("build-finished", mend)
    app.connect("build-finished", lighten)
    app.connect("build-finished", write_site_files)
    app.connect("html-page-context", add_meta_tags)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _drop_icon_script(app: Any, error: Exception | None) -> None:
    """Empty the theme's largest script, 1.5 MB of icons: its style sheet draws the same ones with a font."""
    script = Path(app.outdir) / "_static" / "scripts" / "fontawesome.js"
    if error is None and script.is_file():
        script.write_text("/* The icons come from the font. */\n", encoding="utf-8")


def _ship_models(app: Any, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for name, about in ship_models(Path(app.outdir) / "_static" / "models").items():
            print(f"model {name}: {about.get('model') or about['reason']}")


def _fill_mark(app: Any, name: str, source: list[str]) -> None:
    """Put what is generated in the place of a page's marks."""
    for mark, written in _MARKS.get(name, {}).items():
        source[0] = source[0].replace(mark, written())


def _fold_exercises(app: Any, name: str, source: list[str]) -> None:
    folder, _, stem = name.partition("/")
    if folder == "exercises":
        from courseware.site.folding import folded  # it needs the answers, and they need torch

        source[0] = folded(source[0], stem)


def _add_quiz(app: Any, name: str, source: list[str]) -> None:
    folder, _, stem = name.partition("/")
    if folder == "notebooks":
        source[0] = with_quiz(source[0], stem)


def _add_strip(app: Any, name: str, source: list[str]) -> None:
    folder, _, slug = name.rpartition("/")
    if folder == PARTS:
        source[0] = with_strip(source[0], slug)


if __name__ == "__main__":
    sys.exit(main())
