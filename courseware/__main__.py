"""The course's command line: `python -m courseware --help`."""

from __future__ import annotations

import argparse
import sys

from courseware import exporting, originals, progress
from courseware.errors import ExportRefused


def _export(arguments: argparse.Namespace) -> int:
    for chapter in arguments.chapters:
        print(exporting.export(chapter))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    problems = exporting.verify(arguments.chapters)
    for text in problems.values():
        print(text, end="")
    if problems:
        print(
            f"\n{len(problems)} of the library's modules are not what the chapters say: "
            + ", ".join(problems)
            + "\nWhat to do: run `python -m courseware export NN` for your own version, "
            "or `make reset CH=NN` for the course's"
        )
        return 1
    print("every module is what its chapter says")
    return 0


def _reset(arguments: argparse.Namespace) -> int:
    lines = originals.reset(arguments.chapter)
    print("\n".join(lines) or "nothing to do: this chapter is the course's own already")
    return 0


def _progress(_: argparse.Namespace) -> int:
    print(progress.summary())
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from courseware.running import run_notebook

    for name in arguments.notebooks:
        print(run_notebook(name))
    return 0


def _generate(arguments: argparse.Namespace) -> int:
    from courseware.exercises import generate

    return generate.main(["--check"] if arguments.check else [])


def _freeze(_: argparse.Namespace) -> int:
    print("\n".join(originals.freeze()) or "the originals were in step already")
    return 0


def _doctor(_: argparse.Namespace) -> int:
    from courseware import environment

    print(environment.report())
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m courseware", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name, action, about):
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(action=action)
        return command

    add("export", _export, "prove chapters and put them into the library").add_argument(
        "chapters", nargs="+", metavar="NN"
    )
    add(
        "verify", _verify, "compare the library with the chapters; print what differs"
    ).add_argument("chapters", nargs="*", metavar="NN")
    add("reset", _reset, "bring back the course's own version of a chapter").add_argument(
        "chapter", metavar="NN"
    )
    add("progress", _progress, "show the chapters exported and the exercises solved")
    add("doctor", _doctor, "check this computer and the environment")
    add("run", _run, "execute notebooks from a clean kernel and store their outputs").add_argument(
        "notebooks", nargs="+", metavar="NOTEBOOK"
    )
    command = add("generate", _generate, "write exercises/ from solutions/")
    command.add_argument("--check", action="store_true", help="only compare")
    add("freeze", _freeze, "make the present chapters the course's own (for its authors)")
    return top


def main() -> int:
    arguments = parser().parse_args()
    try:
        return arguments.action(arguments)
    except ExportRefused as refusal:
        print(refusal, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
