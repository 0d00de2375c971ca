"""The command line: the only module that exits, and with terminal.py the only one that prints.

Exit codes: 0 done, 1 an error of the input or a tool, 2 wrong usage or configuration, 3 over
budget, 70 a bug of ours, 130 interrupted (SIGTERM included).
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

import edgecompress
from edgecompress.commands import board, budget, compare, compress, diff, history, model, report
from edgecompress.commands.options import Command, Options
from edgecompress.errors import EdgeCompressError
from edgecompress.terminal import harmless, streams

BUG, INTERRUPTED = 70, 130
ENDS = (signal.SIGTERM, signal.SIGHUP)
"""What ends a command as Ctrl-C does: nothing that it started is left."""
COMMANDS: dict[str, tuple[Command, str, Options]] = {
    **compress.COMMANDS,
    **report.COMMANDS,
    **model.COMMANDS,
    **board.COMMANDS,
    **diff.COMMANDS,
    **budget.COMMANDS,
    **history.COMMANDS,
    **compare.COMMANDS,
}


def parser() -> argparse.ArgumentParser:
    """All commands and their options; each command's function is its default `run`."""
    root = argparse.ArgumentParser(prog="edgecompress", description=edgecompress.__doc__)
    root.add_argument(
        "--version", action="version", version=f"edgecompress {edgecompress.__version__}"
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (run, text, options) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(run=run)
        command.add_argument("-v", "--verbose", action="store_true", help="show what the tools say")
        for option, settings in options:
            command.add_argument(*option.split(), **settings)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (see the top of this module)."""
    args = parser().parse_args(argv)
    heeded = [each for each in ENDS if signal.getsignal(each) is not signal.SIG_IGN]  # nohup
    earlier = {each: signal.signal(each, signal.default_int_handler) for each in heeded}
    try:
        with streams(args.verbose, talk=not getattr(args, "json", False)) as terminal:
            args.run(args, terminal)
    except EdgeCompressError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        return _fail(f"{error.filename or 'system'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _fail("interrupted; earlier output is untouched", INTERRUPTED)
    except Exception as error:
        if args.verbose:
            raise
        return _fail(f"a bug: {type(error).__name__}: {error}; run again with -v, report it", BUG)
    finally:
        for each, handler in earlier.items():
            signal.signal(each, handler)
    return 0


def _fail(message: str, code: int) -> int:
    line = harmless(" ".join(message.split()))
    print(f"edgecompress: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
