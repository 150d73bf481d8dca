"""Files in and out of a container, and images: by docker-py, and by archives that mean harm."""

import io
import os
import stat
import tarfile
from contextlib import suppress
from pathlib import Path

import docker
import docker.errors
import pytest
from descriptors import held, opened_since
from served import Stage
from waiting import until

from supervisor.api import limits
from supervisor.errors import CommandError, NoSuchContainerError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="not root")

MUCH = 3 << 20


def tar(*members: tarfile.TarInfo | tuple[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]  # "w:gz"
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                header = tarfile.TarInfo(member[0])
                header.size = len(member[1])
                header.mode = 0o640
                archive.addfile(header, io.BytesIO(member[1]))
    return out.getvalue()


def entry(name: str, kind: bytes, target: str = "", **more: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    for field, value in more.items():
        setattr(header, field, value)
    return header


def put(stage: Stage, path: str, data: bytes, **query: object) -> None:
    request = stage.client.request("PUT", "/containers/web.1/archive", {"path": path, **query}, pieces=[data])
    request.close()


def got(engine: docker.DockerClient, path: str) -> dict[str, tarfile.TarInfo]:
    pieces, _ = engine.containers.get("web.1").get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        return {member.name: member for member in archive}


# --- out -------------------------------------------------------------------------------------------------------------


def test_a_file_comes_out(engine: docker.DockerClient, stage: Stage) -> None:
    (stage.root / "etc").mkdir()
    (stage.root / "etc/file").write_bytes(b"x" * MUCH)
    (stage.root / "etc/file").chmod(0o604)
    pieces, shown = engine.containers.get("web.1").get_archive("/etc/file")
    assert (shown["name"], shown["size"], shown["mode"]) == ("file", MUCH, 0o604)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        (member,) = archive
        content = archive.extractfile(member)
        assert content is not None
        assert content.read() == b"x" * MUCH
        assert (member.name, member.mode) == ("file", 0o604)


def test_a_directory_comes_out_with_all_kinds(engine: docker.DockerClient, stage: Stage) -> None:
    top = stage.root / "data"
    (top / "sub").mkdir(parents=True)
    (top / "a").write_bytes(b"1")
    os.link(top / "a", top / "b")
    (top / "link").symlink_to("/etc/passwd")
    os.mkfifo(top / "pipe")
    os.chown(top / "sub", 5, 6)
    found = got(engine, "/data")
    kinds = {name: member.type for name, member in found.items()}
    assert kinds == {
        "data": tarfile.DIRTYPE,
        "data/a": tarfile.REGTYPE,
        "data/b": tarfile.LNKTYPE,
        "data/link": tarfile.SYMTYPE,
        "data/pipe": tarfile.FIFOTYPE,
        "data/sub": tarfile.DIRTYPE,
    }
    assert found["data/link"].linkname == "/etc/passwd"
    assert found["data/b"].linkname == "data/a"
    assert (found["data/sub"].uid, found["data/sub"].gid) == (5, 6)


@pytest.mark.parametrize(("path", "top"), [("/data/", "data"), ("/data/.", "."), ("/", "/")])
def test_names_are_dockers(engine: docker.DockerClient, stage: Stage, path: str, top: str) -> None:
    (stage.root / "data").mkdir()
    assert top.strip("/") in {name.strip("/") for name in got(engine, path)}


def test_a_symlink_is_itself_unless_a_slash_follows(engine: docker.DockerClient, stage: Stage) -> None:
    (stage.root / "real").mkdir()
    (stage.root / "link").symlink_to("/real")  # of the container's root, not the host's
    found = got(engine, "/link")
    assert found["link"].issym()
    assert got(engine, "/link/")["link"].isdir()
    with stage.client.request("HEAD", "/containers/web.1/archive", {"path": "/link"}) as reply:
        assert "x-docker-container-path-stat" in reply.headers
    _, shown = engine.containers.get("web.1").get_archive("/link")
    assert shown["linkTarget"] == "/real"
    assert shown["mode"] & 1 << 27


@pytest.mark.parametrize("path", ["/nothing", "/../../../../../../etc/passwd", "/out/passwd", "/dots/passwd"])
def test_no_path_leads_out(engine: docker.DockerClient, stage: Stage, path: str) -> None:
    (stage.root / "out").symlink_to("/etc")
    (stage.root / "dots").symlink_to("../../../../etc")
    with pytest.raises(docker.errors.NotFound, match="Could not find the file"):
        engine.containers.get("web.1").get_archive(path)


def test_nothing_comes_out_of_what_does_not_run(engine: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.APIError, match="job is not running"):
        engine.containers.get("job").get_archive("/")


def test_who_stops_reading_an_archive_is_forgotten(stage: Stage) -> None:
    (stage.root / "file").write_bytes(b"x" * MUCH)
    before = held()
    for _ in range(2 * limits.ARCHIVE_WORKERS):  # more than there are threads
        stage.client.request("GET", "/containers/web.1/archive", {"path": "/file"}).close()
    with stage.client.request("GET", "/containers/web.1/archive", {"path": "/file"}) as reply:
        assert len(reply.body()) > MUCH
    until(lambda: len(opened_since(before)) <= 2)  # a loop may open some of its own


def test_a_file_that_shrinks_meanwhile_ends_in_zeros(stage: Stage) -> None:
    (stage.root / "file").write_bytes(b"x" * (16 << 20))
    with stage.client.request("GET", "/containers/web.1/archive", {"path": "/file"}) as reply:
        pieces = reply.pieces()
        data = next(pieces)
        os.truncate(stage.root / "file", 0)
        data += b"".join(pieces)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [member.size for member in archive] == [16 << 20]


# --- in --------------------------------------------------------------------------------------------------------------


def test_files_go_in(engine: docker.DockerClient, stage: Stage) -> None:
    (stage.root / "in").mkdir()
    data = tar(
        entry("./", tarfile.DIRTYPE, mode=0o755),
        ("a/file", b"x" * MUCH),
        entry("a/link", tarfile.SYMTYPE, "/etc/passwd", uid=3, gid=4),
        entry("a/hard", tarfile.LNKTYPE, "a/file"),
        entry("dir", tarfile.DIRTYPE, mode=0o1777, uid=1, gid=2),
        entry("pipe", tarfile.FIFOTYPE, mode=0o600),
    )
    assert engine.containers.get("web.1").put_archive("/in", data)
    top = stage.root / "in"
    assert (top / "a/file").stat().st_size == MUCH
    assert stat.S_IMODE((top / "a/file").stat().st_mode) == 0o640
    assert (top / "a/file").stat().st_ino == (top / "a/hard").stat().st_ino
    assert os.readlink(top / "a/link") == "/etc/passwd"
    assert ((top / "a/link").lstat().st_uid, (top / "dir").stat().st_gid) == (3, 2)
    assert stat.S_IMODE((top / "dir").stat().st_mode) == 0o1777
    assert stat.S_ISFIFO((top / "pipe").stat().st_mode)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_archives_go_in(stage: Stage, mode: str) -> None:
    put(stage, "/", tar(("file", b"1"), mode=mode))
    assert (stage.root / "file").read_bytes() == b"1"


def test_files_become_the_containers_user_on_request(stage: Stage) -> None:
    from dataclasses import replace

    config = stage.commands.known["web.1"].config
    stage.do(stage.commands.put, "web.1", config=replace(config, user=replace(config.user, uid=7, gid=8)))
    put(stage, "/", tar(("file", b"1")), copyUIDGID=True)
    assert ((stage.root / "file").stat().st_uid, (stage.root / "file").stat().st_gid) == (7, 8)


def test_what_is_there_is_replaced(stage: Stage) -> None:
    (stage.root / "file").write_bytes(b"old")
    (stage.root / "dir").mkdir()
    put(stage, "/", tar(("file", b"new"), entry("dir", tarfile.DIRTYPE, mode=0o700)))
    assert (stage.root / "file").read_bytes() == b"new"
    with pytest.raises(CommandError, match="cannot overwrite directory with non-directory"):
        put(stage, "/", tar(("dir", b"")))
    with pytest.raises(CommandError, match="cannot overwrite non-directory with directory"):
        put(stage, "/", tar(entry("file", tarfile.DIRTYPE)), noOverwriteDirNonDir=True)
    put(stage, "/", tar(entry("file", tarfile.DIRTYPE, mode=0o755)))
    assert (stage.root / "file").is_dir()


@pytest.mark.parametrize(
    "members",
    [
        [("../file", b"")],
        [("/a/../../file", b"")],
        [entry("up", tarfile.SYMTYPE, "../../outside"), ("up/file", b"")],
        [entry("up", tarfile.SYMTYPE, "/outside"), ("up/file", b"")],
        [entry("hard", tarfile.LNKTYPE, "../outside/secret")],
        [entry("up", tarfile.SYMTYPE, "../outside"), entry("hard", tarfile.LNKTYPE, "up/secret")],
    ],
)
def test_no_archive_leads_out(stage: Stage, members: list[tarfile.TarInfo | tuple[str, bytes]]) -> None:
    outside = stage.root.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    with suppress(CommandError):
        put(stage, "/", tar(*members))
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").stat().st_nlink == 1
    assert not (stage.root.parent / "file").exists()


def test_a_mode_is_never_set_through_a_symlink(stage: Stage) -> None:
    target = stage.root.parent / "target"
    target.write_bytes(b"")
    target.chmod(0o600)
    (stage.root / "link").symlink_to(target)
    put(stage, "/", tar(entry("link", tarfile.SYMTYPE, str(target), mode=0o777, uid=9)))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert target.stat().st_uid == 0


@pytest.mark.parametrize("data", [b"x" * 2000, tar(("file", b"y" * 5000))[:2000], b"\x1f\x8b\x08\x00broken"])
def test_what_is_no_archive_is_refused(stage: Stage, data: bytes) -> None:
    with pytest.raises(CommandError, match="not a tar archive, or not whole"):
        put(stage, "/", data)


@pytest.mark.parametrize("field", ["uid", "gid", "mtime"])
def test_numbers_that_no_file_can_have_are_refused(stage: Stage, field: str) -> None:
    header = tarfile.TarInfo("file")
    setattr(header, field, 1 << 70)
    with pytest.raises(CommandError, match="not a tar archive, or not whole"):
        put(stage, "/", tar(header))


def test_archives_go_into_directories_that_are_there(stage: Stage) -> None:
    (stage.root / "file").write_bytes(b"")
    with pytest.raises(CommandError, match="extraction point is not a directory"):
        put(stage, "/file", tar(("a", b"")))
    with pytest.raises(NoSuchContainerError, match="Could not find the file /no in container"):
        put(stage, "/no", tar(("a", b"")))
    with pytest.raises(CommandError, match="path: where in the container is needed"):
        put(stage, "", tar(("a", b"")))


def test_an_archive_has_limits(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ENTRIES_MAX", 2)
    with pytest.raises(CommandError, match="more than 2 entries"):
        put(stage, "/", tar(("a", b""), ("b", b""), ("c", b"")))
    with pytest.raises(CommandError, match="leads out of its place, or is too deep"):
        put(stage, "/", tar(("d/" * 300, b"")))


# --- images ----------------------------------------------------------------------------------------------------------


def test_images_are_listed(engine: docker.DockerClient) -> None:
    (image,) = engine.images.list()
    assert image.tags == ["base:latest"]
    assert image.attrs["Size"] == 1000
    assert engine.containers.get("web.1").image == image
    assert engine.images.list(filters={"reference": "other*"}) == []
    assert len(engine.images.list(filters={"reference": "ba*"})) == 1


def test_an_image_is_found_by_any_name(engine: docker.DockerClient) -> None:
    image = engine.images.get("base")
    assert image.id is not None
    for reference in ("base:latest", image.id, image.id.removeprefix("sha256:")[:12]):
        assert engine.images.get(reference) == image
    with pytest.raises(docker.errors.ImageNotFound):
        engine.images.get("other")


def test_an_image_is_tagged_and_untagged(engine: docker.DockerClient, stage: Stage) -> None:
    image = engine.images.get("base")
    assert image.tag("other", tag="1.2")
    image.reload()
    assert image.tags == ["base:latest", "other:1.2"]
    assert (stage.images / "other:1.2").is_symlink()
    with pytest.raises(docker.errors.APIError, match="base is an image of its own"):
        engine.images.get("other:1.2").tag("base")
    with pytest.raises(docker.errors.APIError, match="give a name without a slash"):
        image.tag("team/other")
    assert image.tag("base", tag="1.2")
    engine.images.remove("other:1.2")
    engine.images.remove("base:1.2")
    image.reload()
    assert image.tags == ["base:latest"]


def test_an_image_in_use_stays(engine: docker.DockerClient, stage: Stage) -> None:
    with pytest.raises(docker.errors.APIError, match="is being used by a container"):
        engine.images.remove("base")
    assert (stage.images / "base/bin/sh").exists()


def test_a_root_file_system_is_loaded_and_removed(engine: docker.DockerClient, stage: Stage) -> None:
    root = tar(entry("bin", tarfile.DIRTYPE, mode=0o755), ("bin/sh", b"#!"))
    (image,) = engine.images.load(root)
    (name,) = image.tags
    assert name.startswith("loaded-")
    with stage.client.request("POST", "/images/load", {"name": "named"}, pieces=[root]) as reply:
        assert b"Loaded image: named:latest" in reply.body()
    with pytest.raises(CommandError, match="there is an image named already"):
        stage.client.request("POST", "/images/load", {"name": "named"}, pieces=[root])
    engine.images.remove("named")
    assert sorted(os.listdir(stage.images)) == sorted(["base", name.removesuffix(":latest")])


def test_a_root_file_system_is_imported(engine: docker.DockerClient, stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "root.tar"
    file.write_bytes(tar(entry("bin", tarfile.DIRTYPE, mode=0o755), ("bin/sh", b"#!")))
    engine.api.import_image_from_file(str(file), repository="mine", tag="2")
    assert (stage.images / "mine:2/bin/sh").read_bytes() == b"#!"


def test_nothing_is_left_of_a_broken_image(stage: Stage) -> None:
    for data in (b"x" * 3000, b"", tar(("manifest.json", b"[]"))):
        with pytest.raises(CommandError):
            stage.client.request("POST", "/images/load", {"name": "named"}, pieces=[data])
    assert os.listdir(stage.images) == ["base"]


def test_an_image_needs_a_name_and_a_place(stage: Stage) -> None:
    for name in ("../x", ".hidden", "a/b/c/d/e"):
        with pytest.raises(CommandError, match="is not valid: give a name like base"):
            stage.client.request("POST", "/images/load", {"name": name}, pieces=[tar(("bin/sh", b""))])
    (stage.images / "file").write_bytes(b"")
    with pytest.raises(CommandError, match=r"file: (File exists|Not a directory)"):
        stage.client.request("POST", "/images/load", {"name": "file/x"}, pieces=[tar(("bin/sh", b""))])


def test_pulling_is_not_offered(engine: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.APIError, match="pulling an image is not offered by pysup"):
        engine.images.pull("alpine", tag="latest")
