"""The `pysup` command. What needs no command line parser is answered before one is loaded."""

import os
import sys
from io import TextIOWrapper

from supervisor import __version__


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"pysup {__version__}\n")
        return
    _open_standard_descriptors()
    _show_what_can_be()
    if sys.argv[1:2] == ["ps"] and _has_listed():
        return
    try:
        from supervisor.cli.main import run  # noqa: PLC0415 (click takes longer to load than this answer may take)
    except KeyboardInterrupt:
        sys.exit(130)  # as ever after SIGINT; nothing has been begun

    run()


def _has_listed() -> bool:
    """`pysup ps`, in most of its forms: see listing.py."""
    from supervisor.cli.listing import quickly  # noqa: PLC0415 (other commands don't need it)

    if (text := quickly(sys.argv[2:])) is None:
        return False
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # `pysup ps | head -1`
        os._exit(1)
    except OSError as error:  # `pysup ps >/dev/full`
        from supervisor.cli.explain import explain  # noqa: PLC0415 (loads click)

        os._exit(explain(error))
    return True


def _open_standard_descriptors() -> None:
    """Where one is closed (`pysup up f >&-`), the next file opened would take its number, and our output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(descriptor, True)
    # Python itself gives up on a stream whose descriptor was closed when it started.
    sys.stdin = sys.stdin or open(0, closefd=False, encoding="utf-8")  # noqa: SIM115 (it stays open)
    sys.stdout = sys.stdout or open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115 (it stays open)
    sys.stderr = sys.stderr or open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115 (it stays open)


def _show_what_can_be() -> None:
    """Where the locale has no "…", and not what a container has written, a `?` stands for it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.encoding != "utf-8":
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    main()
