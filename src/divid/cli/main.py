"""Entry point of the command `divid`: finds the command, builds only its parser, and turns errors into one line."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from divid._version import __version__
from divid.errors import ConfigError, DividError, nearest

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": (
        "divid.cli.demo",
        "make two puppet clips and swap their motions with the bundled model, or with one trained on the spot",
    ),
    "swap": ("divid.cli.swap", "make one video's appearance do another's motion"),
    "reconstruct": ("divid.cli.reconstruct", "make a video again from its own codes"),
    "interpolate": ("divid.cli.interpolate", "go from one appearance, or one motion, to another"),
    "encode": ("divid.cli.encode", "write the codes of a video, or of a folder of videos, as Parquet"),
    "prepare": ("divid.cli.prepare", "turn a folder of videos, or a known data set, into a prepared data set"),
    "train": ("divid.cli.train", "train a recipe on prepared data sets"),
    "distill": ("divid.cli.distill", "teach a few-step student what a trained model's decoder does in many steps"),
    "evaluate": ("divid.cli.evaluate", "measure reconstruction, swap accuracy and leakage on held-out clips, and draw swaps"),
    "judge": ("divid.cli.judge", "train the classifier that judges swaps, on real clips, and say how well it does"),
    "bottleneck": ("divid.cli.bottleneck", "show at which noise level a trained model needs which token"),
    "solvers": ("divid.cli.solvers", "show how few solver steps are enough: time and quality, beside a slow reference"),
    "benchmark": ("divid.cli.benchmark", "train and judge data sets x methods x seeds, as a plan says, and write one table"),
    "ablate": ("divid.cli.ablate", "switch off each inductive bias of a recipe by itself, and say what it is worth"),
    "info": ("divid.cli.info", "show versions, device and models; or what a video, data set, run or model holds"),
}
"""Command -> (module with `add_arguments` and `run`, one line of help)."""

DEBUG_VARIABLE = "DIVID_DEBUG"

REMEDIES = {
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "choose another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOSPC: "free some space or choose another place",
    errno.EDQUOT: "free some space or choose another place",
}
"""What a person can do about a fault of the file system that no command expected."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: What follows `divid`; default: the process's own.

    Returns:
        The exit code: 0, or 2 for what a person can mend, 130 when interrupted, 1 for a fault of ours.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except DividError as error:
        if _is_debugging():
            raise
        print(f"divid: error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("divid: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the last flush has somewhere to go
        return 141
    except Exception as error:
        if _is_debugging():
            raise
        if isinstance(error, OSError) and error.errno in REMEDIES:
            place = f"{error.filename}: " if error.filename else ""
            print(f"divid: error: {place}{os.strerror(error.errno)}: {REMEDIES[error.errno]}", file=sys.stderr)
            return DividError.exit_code
        line = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        print(f"divid: internal error: {line} (set {DEBUG_VARIABLE}=1 to see where)", file=sys.stderr)
        return 1


def help_text() -> str:
    """Give the text of `divid --help`; it loads no command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: divid COMMAND [options]",
            "",
            "Split videos into what stays and what moves, and put one video's look together with another's motion.",
            "",
            "commands:",
            *lines,
            "",
            "divid COMMAND --help shows a command's options; divid --version the version.",
        ]
    )


def build_parser(command: str) -> tuple[ArgumentParser, ModuleType]:
    """Make a command's parser.

    Args:
        command: A key of `COMMANDS`.

    Returns:
        The parser, and the command's module.
    """
    from jsonargparse import ArgumentParser

    module_name, text = COMMANDS[command]
    module = importlib.import_module(module_name)
    parser = ArgumentParser(prog=f"divid {command}", description=f"{text[0].upper()}{text[1:]}.", exit_on_error=False)
    module.add_arguments(parser)
    return parser, module


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if words[0] in ("-V", "--version", "version"):
        print(f"divid {__version__}")
        return 0
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        raise ConfigError(f"unknown command {command!r}{nearest(command, COMMANDS)}")
    parser, module = build_parser(command)
    try:
        parsed = _parse(parser, rest)
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
    from divid.cli.common import set_up_logging

    set_up_logging()
    module.run(parsed)
    sys.stdout.flush()
    return 0


def _parse(parser: ArgumentParser, words: list[str]) -> Namespace:
    from jsonargparse import ArgumentError

    flags = [flag for flag in parser._option_string_actions if flag.startswith("--")]
    for word in words:
        flag = word.split("=", 1)[0]
        if flag.startswith("--") and len(flag) > 2 and flag not in flags and not _is_nested(flag, flags):
            raise ConfigError(f"unknown option {flag!r} of divid {parser.prog.split()[-1]}{nearest(flag, flags)}")
    try:
        return parser.parse_args(words)
    except ArgumentError as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{message} (divid {parser.prog.split()[-1]} --help shows the options)") from error


def _is_nested(flag: str, flags: Sequence[str]) -> bool:
    """Tell whether a flag may be a key inside a structured option, which jsonargparse checks itself."""
    return any(flag.startswith((f"{known}.", f"{known}+")) for known in flags)


def _is_debugging() -> bool:
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
