"""The `pysup` command. What needs no command line parser is answered before one is loaded."""

import sys

from supervisor import __version__


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"pysup {__version__}\n")
        return
    from supervisor.cli.main import run  # noqa: PLC0415 (click takes longer to load than this answer may take)

    run()


if __name__ == "__main__":
    main()
