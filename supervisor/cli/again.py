"""The spec of a running stack, read again: what processes/helper.py starts. A question on standard input, an answer on
standard output; both are pickles.
"""

import os
import pickle
import sys

from runtime.errors import PysupError


def main() -> None:
    """Answer, and end."""
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever else is printed is no part of the answer
    with open(0, "rb", closefd=False) as file:
        wish, scales = pickle.load(file)  # noqa: S301 (our own parent's)
    seen: list[str] = []
    found: tuple[object, tuple[object, ...] | None]
    try:
        found = wish.read(scales, seen), None
    except PysupError as error:
        found = None, (str(error), error.exit_status, tuple(seen))
    with os.fdopen(answer, "wb") as file:
        pickle.dump(found, file, pickle.HIGHEST_PROTOCOL)
    sys.stdout.flush()
    os._exit(0)  # what is left to tidy up goes with the process


if __name__ == "__main__":
    main()
