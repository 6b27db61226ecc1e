"""The course's command line: `python -m courseware --help`."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path

from courseware.export.errors import ExportRefused


def _export(arguments: argparse.Namespace) -> int:
    from courseware.export import export

    for chapter in arguments.chapters:
        print(export(chapter))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from courseware.export import verify

    problems = verify(arguments.chapters)
    if not problems:
        print("every module is what its chapter says")
        return 0

    for text in problems.values():
        print(text, end="")
    print(
        f"\n{len(problems)} of the library's modules differ from their chapters: "
        + ", ".join(problems)
        + "\nWhat to do: run `python -m courseware export NN` for your own version, "
        "or `make reset CH=NN` for the course's"
    )
    return 1


def _reset(arguments: argparse.Namespace) -> int:
    from courseware.export.reset import reset

    lines = reset(arguments.chapter)
    print("\n".join(lines) or "nothing to do: this chapter is the course's own already")
    return 0


def _code_along(arguments: argparse.Namespace) -> int:
    from courseware.export.code_along import code_along

    print(code_along(arguments.chapter))
    return 0


def _keep(_: argparse.Namespace) -> int:
    from courseware.export.reset import keep_copies

    added = keep_copies()
    if added:
        print(f"kept {len(added)} of the course's own files for `make reset`")
    return 0


def _originals(arguments: argparse.Namespace) -> int:
    from courseware.export.reset import differing, write_list

    if arguments.check:
        names = differing()
        if names:
            print("not as the course ships them: " + ", ".join(names))
            print(
                "What to do: run `python -m courseware originals` if they are to become the course's own"
            )
        return 1 if names else 0

    print("\n".join(write_list()) or "the list was in step already")
    return 0


def _progress(_: argparse.Namespace) -> int:
    from courseware import dashboard

    print(dashboard.summary())
    return 0


def _certificate(arguments: argparse.Namespace) -> int:
    from courseware.certificate import making

    if arguments.verify is None:
        written = making.make_certificate()
        print(written)
        return 1 if written.proof.failures else 0

    try:
        problems = making.verify_certificate(arguments.verify, say=lambda line: None)
    except ValueError as error:
        problems = [str(error)]
    print(
        "It does not hold: " + "; ".join(problems)
        if problems
        else "It holds: all of it was proved again."
    )
    return 1 if problems else 0


def _doctor(_: argparse.Namespace) -> int:
    from courseware.setup import doctor

    print(doctor.report())
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from courseware.setup.running import run_notebook

    for name in arguments.notebooks:
        print(run_notebook(name))
    return 0


def _generate(arguments: argparse.Namespace) -> int:
    from courseware.exercises import generate

    return generate.main(["--check"] if arguments.check else [])


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="python -m courseware", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, action: Callable[[argparse.Namespace], int], about: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=about, description=about)
        command.set_defaults(action=action)
        return command

    command = add("export", _export, "prove chapters and put them into the library")
    command.add_argument("chapters", nargs="+", metavar="NN")

    command = add("verify", _verify, "compare the library with the chapters; print what differs")
    command.add_argument("chapters", nargs="*", metavar="NN")

    command = add("reset", _reset, "bring back the course's own version of a chapter")
    command.add_argument("chapter", metavar="NN")

    command = add("code-along", _code_along, "leave a chapter's library code for you to write")
    command.add_argument("chapter", metavar="NN")

    add("progress", _progress, "show the chapters exported and the exercises solved")
    command = add("certificate", _certificate, "prove your work again, and write a page about it")
    command.add_argument(
        "--verify", type=Path, metavar="FILE", help="prove what a certificate says; write nothing"
    )

    add("doctor", _doctor, "check this computer and the environment")

    command = add("run", _run, "execute notebooks from a clean kernel and store their outputs")
    command.add_argument("notebooks", nargs="+", metavar="NOTEBOOK")

    command = add("generate", _generate, "write exercises/ from solutions/")
    command.add_argument("--check", action="store_true", help="only compare")

    add("keep", _keep, "copy the course's own chapters for `reset` (set-up does this)")

    command = add(
        "originals", _originals, "make the present chapters the course's own (for its authors)"
    )
    command.add_argument("--check", action="store_true", help="only compare")

    return top


def main() -> int:
    """Run the command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console may not know every character
            stream.reconfigure(errors="backslashreplace")

    arguments = parser().parse_args()
    try:
        return arguments.action(arguments)
    except ExportRefused as refusal:
        print(refusal, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
