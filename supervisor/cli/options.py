"""Options and checks that several commands share."""

import os
from enum import StrEnum
from pathlib import Path

import click

from runtime.spawn import raise_descriptor_limit
from supervisor.errors import StackError
from supervisor.state import DEFAULT_STATE

PATH = click.Path(readable=False, path_type=Path)  # whoever opens it says what is wrong with it

images = click.option(
    "--images",
    metavar="DIR",
    type=PATH,
    help="The images directory; default: images beside the spec's folder or in the working directory.",
)
state = click.option(
    "--state",
    metavar="DIR",
    type=PATH,
    default=DEFAULT_STATE,
    show_default=True,
    help="Where upper layers and locks are.",
)


def words(kind: type[StrEnum]) -> click.Choice[str]:
    """One of an enum's values (given the enum itself, click 8.2 and newer would want the members' names)."""
    return click.Choice([word.value for word in kind])


def need_root() -> None:
    """StackError for anybody else."""
    if os.geteuid() != 0:
        raise StackError("pysup needs root to make namespaces and mounts: run it with sudo")


def raise_limits() -> None:
    """As many descriptors as we may have: each container needs up to three."""
    raise_descriptor_limit()
