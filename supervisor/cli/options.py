"""Options and checks that several commands share."""

import os
from pathlib import Path

import click

from runtime.spawn import raise_descriptor_limit
from supervisor.errors import StackError
from supervisor.state import DEFAULT_STATE

images = click.option(
    "--images",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The images directory; default: images beside the spec's folder or in the working directory.",
)
state = click.option(
    "--state",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=DEFAULT_STATE,
    show_default=True,
    help="Where upper layers and locks are.",
)


def need_root() -> None:
    """StackError for anybody else."""
    if os.geteuid() != 0:
        raise StackError("pysup needs root to make namespaces and mounts: run it with sudo")


def raise_limits() -> None:
    """As many descriptors as we may have: each container needs up to three."""
    raise_descriptor_limit()
