"""What a spec's volumes, secrets and names come to: before anything runs."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from runtime.linux import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from runtime.mounts import NO_DNS, Bind, Dns, MemoryFile, Tmpfs
from runtime.users import User
from supervisor.compile import mounting
from supervisor.compile.mounting import Store
from supervisor.spec import container
from supervisor.spec.mounts import NamedVolume
from supervisor.state.home import Home

APP = User(1000, 100, (100,), "app", "/")


def made(tmp_path: Path, keys: Mapping[str, object], **store: object) -> list[object]:
    found = container({"id": "a", "image": "b", "cmd": "c", **keys})
    whole = Store(Home.of_stack(tmp_path, "s"), **store)  # type: ignore[arg-type]  # a test names the fields it means
    return list(mounting.mounts(found, "a.2", 2, APP, whole))


def test_what_is_in_another_comes_after_it_whatever_it_is(tmp_path: Path) -> None:
    keys = {"volumes": ["/a:/x/y/z", "/b:/x"], "tmpfs": ["/x/y"], "secrets": [{"source": "k", "target": "/x/y/k"}]}
    mounts = made(tmp_path, keys, secrets={"k": b"1"})
    assert [mount.target for mount in mounts if isinstance(mount, Bind | Tmpfs | MemoryFile)] == [
        *("/x", "/x/y", "/x/y/z", "/x/y/k"),
    ]


@pytest.mark.parametrize(
    ("options", "attributes"),
    [
        ("rw", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV),
        ("ro", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY),
        ("suid,dev,noexec", MOUNT_ATTR_NOEXEC),
    ],
)
def test_options_are_attributes(tmp_path: Path, options: str, attributes: int) -> None:
    (bind,) = made(tmp_path, {"volumes": [f"/a:/x:{options}"]})
    assert isinstance(bind, Bind)
    assert bind.attributes == attributes


def test_links_in_a_source_are_followed_now(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (bind,) = made(tmp_path, {"volumes": [f"{tmp_path}/link/new:/x"]})
    assert isinstance(bind, Bind)
    assert bind.source == f"{tmp_path}/real/new"


def test_where_volumes_are(tmp_path: Path) -> None:
    keys = {"volumes": ["own:/a", "named:/b", "out:/c", "/d"]}
    volumes = {"own": NamedVolume(), "named": NamedVolume("other"), "out": NamedVolume(external=True)}
    binds = [mount for mount in made(tmp_path, keys, volumes=volumes) if isinstance(mount, Bind)]
    places = [Path(bind.source).relative_to(tmp_path) for bind in binds]
    assert [str(place) for place in places[:3]] == ["stacks/s/volumes/own", "volumes/other", "volumes/out"]
    assert str(places[3]).startswith("stacks/s/volumes/@a.2-")
    assert [bind.create for bind in binds] == [True, True, False, True]


def test_a_secret_is_its_users_unless_said_otherwise(tmp_path: Path) -> None:
    keys = {"secrets": ["k", {"source": "k", "target": "other", "uid": 0, "mode": "0444"}], "configs": ["k"]}
    mounts = made(tmp_path, keys, secrets={"k": b"s"}, configs={"k": b"c"})
    files = {each.target: each for each in mounts if isinstance(each, MemoryFile)}
    assert files["/run/secrets/k"] == MemoryFile(target="/run/secrets/k", contents=b"s", uid=1000, gid=100)
    assert files["/run/secrets/other"] == MemoryFile(
        target="/run/secrets/other", contents=b"s", mode=0o444, uid=0, gid=100
    )
    assert files["/k"].contents == b"c"
    assert "contents" not in repr(files)


def test_a_resolver_is_the_networks_but_for_what_was_asked() -> None:
    base = b"# by dhcp\nnameserver 10.0.0.1\nsearch home\noptions edns0\n"
    assert mounting.resolver(NO_DNS, base) is base
    assert mounting.resolver(NO_DNS, None) is None
    asked = Dns(("1.1.1.1", "::1"), (), ("ndots:2",))
    text = b"# by dhcp\nsearch home\nnameserver 1.1.1.1\nnameserver ::1\noptions ndots:2\n"
    assert mounting.resolver(asked, base) == text
    assert mounting.resolver(Dns((), ("a", "b")), b"domain x\nnameserver ::1\n") == b"nameserver ::1\nsearch a b\n"
    assert mounting.resolver(Dns((), (".",)), base) == b"# by dhcp\nnameserver 10.0.0.1\noptions edns0\n"
    assert mounting.resolver(Dns(("::1",)), None) == b"nameserver ::1\n"
