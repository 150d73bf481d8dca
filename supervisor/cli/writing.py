"""A file that a command makes because the user asked for it."""

from pathlib import Path

from runtime.errors import PysupError


def write_file(path: Path, text: str, *, replace: bool) -> None:
    """PysupError if it is there already, unless it is to be replaced, and if it can't be written."""
    try:
        with path.open("w" if replace else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise PysupError(f"{path} is there already: --force replaces it") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise PysupError(f"{path} can't be written: {reason}") from None
