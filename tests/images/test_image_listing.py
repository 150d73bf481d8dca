"""The list of images says what is there, and what could not be seen."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from runtime.errors import ImageError
from runtime.images import listing
from runtime.images.listing import ls
from supervisor.cli.image import image


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images/base/bin").mkdir(parents=True)
    (tmp_path / "images/base/bin/a").write_bytes(b"x" * 1000)
    (tmp_path / "images/base/bin/b").hardlink_to(tmp_path / "images/base/bin/a")
    (tmp_path / "images/base/bin/c").symlink_to("/etc/passwd")
    (tmp_path / "images/.pysup-half/bin").mkdir(parents=True)
    return tmp_path / "images"


def test_sizes_count_each_file_once_and_follow_no_symlink(images: Path) -> None:
    (info,) = ls([images])
    assert (info.name, info.path, info.files, info.problems) == ("base", images / "base", 3, ())
    assert info.size_bytes == 1000 + len("/etc/passwd")
    assert abs((datetime.now(UTC) - info.created).total_seconds()) < 3600


def test_what_is_not_counted_is_said(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("base/bin"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (info,) = ls([images])
    assert info.problems == (f"{images}/base/bin is not counted: Permission denied",)
    assert (info.size_bytes, info.files) == (0, 0)


def test_a_huge_image_is_counted_to_a_limit(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FILES_MAX", 2)
    (info,) = ls([images])
    assert info.files == 2
    assert info.problems == ("more than 2 files: the rest is not counted",)


def test_the_command_prints_a_table(images: Path) -> None:
    result = CliRunner().invoke(image, ["ls", "--images", str(images)], terminal_width=200)
    header, row = result.stdout.splitlines()[:2]
    assert header.split() == ["NAME", "SIZE", "FILES", "CREATED", "PATH"]
    assert row.split()[:4] == ["base", "1.0", "kB", "3"]


def test_the_command_prints_names_or_json(images: Path) -> None:
    assert CliRunner().invoke(image, ["ls", "-q", "--images", str(images)]).stdout == "base\n"
    (entry,) = json.loads(CliRunner().invoke(image, ["ls", "--json", "--images", str(images)]).stdout)
    assert list(entry) == ["name", "path", "size_bytes", "files", "created", "problems"]
    assert (entry["name"], entry["path"], entry["files"]) == ("base", str(images / "base"), 3)


def test_no_images_is_no_failure_and_says_how_to_make_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(image, ["ls", "--images", str(tmp_path / "none")])
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "pysup image create base --from-host --tools --python" in result.stderr
    assert CliRunner().invoke(image, ["ls", "--json", "--images", str(tmp_path)]).stdout == "[]\n"


def test_create_needs_a_source_and_passes_errors_on(tmp_path: Path) -> None:
    result = CliRunner().invoke(image, ["create", "base", "sh"])
    assert "--from-host" in result.stderr
    result = CliRunner().invoke(image, ["create", "../x", "--from-host", "sh", "--images", str(tmp_path)])
    assert isinstance(result.exception, ImageError)


@pytest.mark.kernel
def test_create_makes_an_image_and_says_where(tmp_path: Path) -> None:
    result = CliRunner().invoke(image, ["create", "tiny", "--from-host", "env", "true", "--images", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (0, f"image tiny is in {tmp_path}/tiny\n")
    assert (tmp_path / "tiny/usr/bin/env").exists()
