"""The command `otel-mlmon`. Subcommands are entry points of the group `otel_mlmon.commands`, imported when called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points, version
from typing import Final

GROUP: Final = "otel_mlmon.commands"
# Help must not import the commands, so what they say of themselves in one line stands here.
SUMMARIES: Final = {
    "profile": "build, show, merge and compare profiles of training data",
    "compare": "tell what has changed from one file or profile to another",
    "processor": "receive OTLP, compare models with their profiles, expose the verdict to Prometheus",
    "reference": "show, freeze, reset or roll what was learnt from production",
    "status": "show models, what has changed, and by how much",
    "store": "check, back up and compact the data directory of a processor",
}
EXTRAS: Final = {
    "compare": "compare",
    "profile": "profile",
    "processor": "processor",
    "reference": "processor",
    "status": "processor",
    "store": "processor",
}


class CommandError(Exception):
    """What the user can mend; shown as one line, exit status 2."""


@dataclass(frozen=True, slots=True)
class Command:
    """A subcommand, the value of an entry point.

    Args:
        help: one line.
        configure: adds the arguments.
        run: does it; gives the exit status. It raises CommandError or OSError for what the user can mend.
    """

    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    parser = argparse.ArgumentParser(
        prog="otel-mlmon",
        description="Monitoring of machine-learning models in production, on OpenTelemetry.",
        epilog=_list_commands(sorted(commands)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"otel-mlmon {version('otel-mlmon')}")
    parser.add_argument("command", choices=sorted(commands), metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="see otel-mlmon COMMAND --help")
    name = parser.parse_args(given[:1]).command  # options before the command end here: --help, --version
    return _run(commands[name], given[1:])


def _list_commands(names: Sequence[str]) -> str:
    width = max(map(len, names), default=0)
    return "\n".join(["commands:", *(f"  {name:{width}}  {SUMMARIES.get(name, '')}".rstrip() for name in names)])


def _run(entry: EntryPoint, arguments: Sequence[str]) -> int:
    try:
        command: Command = entry.load()
        parser = argparse.ArgumentParser(
            prog=f"otel-mlmon {entry.name}",
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.configure(parser)
        status = command.run(parser.parse_args(arguments))
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("otel_mlmon"):
            raise
        extra = EXTRAS.get(entry.name, "all")
        return _fail(entry.name, f"needs {error.name}, which is not installed: pip install 'otel-mlmon[{extra}]'")
    except BrokenPipeError:  # whoever read our output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except CommandError as error:
        return _fail(entry.name, str(error))
    except OSError as error:
        from otel_mlmon.wording import say_unusable  # not for help alone

        return _fail(entry.name, say_unusable(error))
    except KeyboardInterrupt:
        return 130
    return status


def _fail(command: str, message: str) -> int:
    print(f"otel-mlmon {command}: {' '.join(message.split())}", file=sys.stderr)
    return 2
