"""A group of commands that tells who misses one which he may mean."""

from collections.abc import Mapping

import click

from supervisor.cli.table import readable
from supervisor.cli.words import did_you_mean, shortened


class Group(click.Group):
    """click knows the like of this since 8.4, of commands that are loaded, and in words of its own."""

    elsewhere: Mapping[str, str] = {}  # what other tools call a command, and what it is called here

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word, words = args[0], self.list_commands(ctx)
        if word not in words and not word.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"no such command {readable(shortened(word))}{did_you_mean(word, words, self.elsewhere)}")
        return super().resolve_command(ctx, args)
