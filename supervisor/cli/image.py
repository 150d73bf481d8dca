"""`pysup image`: list the images there are, and make one from programs of the host."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from runtime.images.from_host import create
from runtime.images.listing import ImageInfo, ls
from runtime.images.lookup import search_path
from supervisor.cli import options
from supervisor.cli.group import Group

ROW_MAX_CHARS = 16 << 10  # a row is one line, for scripts; a terminal wraps it


class Images(Group):
    """Commands that have to do with images."""

    elsewhere = {"build": "create", "import": "create", "list": "ls", "pull": "create"}  # noqa: RUF012 (a Mapping)


@click.group(cls=Images)
def image() -> None:
    """List and make images.

    An image is a directory, images/NAME, with a root file system in it. Containers read it and never write to it.
    images/README.md says how to bring images from elsewhere.
    """


_images = click.option(
    "--images",
    metavar="DIR",
    type=options.PATH,
    help="The images directory; default: images in the working directory.",
)


@image.command("ls")
@_images
@click.option("-q", "--quiet", is_flag=True, help="Names only, one a line.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def list_images(images: Path | None, *, quiet: bool, as_json: bool) -> None:
    """List images and their sizes."""
    path = search_path(None, images, Path.cwd())
    found = ls(path)
    if as_json:
        click.echo(json.dumps([_as_json(info) for info in found], indent=2))
    elif quiet:
        click.echo("".join(f"{info.name}\n" for info in found), nl=False)
    elif found:
        _print_table(found)
    else:
        places = ", ".join(str(place) for place in path)
        click.echo(f"no images in {places}; make one: pysup image create base --from-host --tools --python", err=True)
    for info in found:
        for problem in info.problems:
            click.echo(f"image {info.name}: {problem}", err=True)


_EXAMPLES = """\b
Examples:
  pysup image create base --from-host --tools --python
  pysup image create tiny --from-host sh sleep /opt/app/server"""


@image.command("create", epilog=_EXAMPLES)
@click.argument("name")
@click.argument("programs", nargs=-1, metavar="[CMD]...")
@click.option("--from-host", is_flag=True, required=True, expose_value=False, help="The only source.")
@click.option("--tools", is_flag=True, help="sh, ls, ps, and the other usual tools, as far as this host has them.")
@click.option("--python", is_flag=True, help="The Python that runs pysup, with its standard library, as python3.")
@click.option("--force", is_flag=True, help="Replace an image of that name. Stop what runs from it first.")
@_images
def create_image(
    name: str,
    programs: tuple[str, ...],
    images: Path | None,
    *,
    tools: bool,
    python: bool,
    force: bool,
) -> None:
    """Make an image of programs of this host.

    CMD is a program's name or absolute path. It comes with the interpreter and libraries it loads, all at the paths
    they have here.
    """
    (directory,) = search_path(None, images, Path.cwd())
    made = create(name, directory, programs, tools=tools, python=python, force=force)
    click.echo(f"image {made.name} is in {made.path}")


def _as_json(info: ImageInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "path": str(info.path),
        "size_bytes": info.size_bytes,
        "files": info.files,
        "created": info.created.isoformat(timespec="seconds"),
        "problems": list(info.problems),
    }


def _print_table(found: Sequence[ImageInfo]) -> None:
    from rich.console import Console  # noqa: PLC0415 (only a table needs rich, which takes long to load)
    from rich.filesize import decimal  # noqa: PLC0415 (as above)
    from rich.table import Table  # noqa: PLC0415 (as above)

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("NAME", no_wrap=True)
    table.add_column("SIZE", no_wrap=True, justify="right")
    table.add_column("FILES", no_wrap=True, justify="right")
    table.add_column("CREATED", no_wrap=True)
    table.add_column("PATH", no_wrap=True)
    for info in found:
        created = info.created.astimezone().strftime("%Y-%m-%d %H:%M")
        size = decimal(info.size_bytes) + ("+" if info.problems else "")
        table.add_row(info.name, size, str(info.files), created, str(info.path))
    Console(highlight=False, markup=False, width=ROW_MAX_CHARS).print(table)
