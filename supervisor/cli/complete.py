"""`pysup completion`: what a shell needs to complete commands, options and ids."""

import click
from click.shell_completion import get_completion_class

_USE = """\b
  bash   pysup completion bash > /etc/bash_completion.d/pysup
  zsh    pysup completion zsh > "${fpath[1]}/_pysup"
  fish   pysup completion fish > ~/.config/fish/completions/pysup.fish"""


@click.command(epilog=_USE)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script by which a shell completes words."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "pysup", "_PYSUP_COMPLETE").source())
