"""Volumes, memory, secrets, devices and names in a spec: every form of them, and what is said of what can't be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.mounts import Device, Propagation
from supervisor.spec import Spec, SpecError, load, resolved
from supervisor.spec.mounts import Grant, Kind, NamedVolume, Source, Volume

LoadText = Callable[[str | bytes], Spec]
FaultsOf = Callable[[str | bytes], list[str]]

BIND, VOLUME, TMPFS = Kind
LONG = (
    "volumes: [{source: /a, target: /b, read_only: true, bind: {propagation: slave, create_host_path: false, "
    "recursive: disabled}}]"
)
CASES: list[tuple[str, str, object]] = [
    ("volumes: ['/srv:/data']", "volumes", (Volume(BIND, "/data", "/srv"),)),
    ("volumes: ['/srv:/data/:ro']", "volumes", (Volume(BIND, "/data", "/srv", read_only=True),)),
    ("volumes: ['db:/var/lib/db']", "volumes", (Volume(VOLUME, "/var/lib/db", "db"),)),
    ("volumes: [/var/lib/db]", "volumes", (Volume(VOLUME, "/var/lib/db"),)),
    (
        "volumes: ['/a:/b:rw,suid,dev,noexec,rslave']",
        "volumes",
        (Volume(BIND, "/b", "/a", suid=True, dev=True, exec=False, propagation=Propagation.SLAVE),),
    ),
    (
        LONG,
        "volumes",
        (
            Volume(
                *(BIND, "/b", "/a"),
                read_only=True,
                propagation=Propagation.SLAVE,
                create_host_path=False,
                recursive=False,
            ),
        ),
    ),
    (
        "volumes: [{type: volume, source: v, target: /b, volume: {nocopy: true, subpath: a/b}}]",
        "volumes",
        (Volume(VOLUME, "/b", "v", nocopy=True, subpath="a/b"),),
    ),
    (
        "volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}]",
        "volumes",
        (Volume(TMPFS, "/t", exec=False, size=1 << 20, mode=0o700),),
    ),
    ("volumes: [{source: v, target: /b, options: 'noexec'}]", "volumes", (Volume(VOLUME, "/b", "v", exec=False),)),
    ("tmpfs: /run", "tmpfs", (Volume(TMPFS, "/run", exec=False),)),
    (
        "tmpfs: ['/tmp:size=64m,mode=755,uid=1,gid=2,exec,ro']",
        "tmpfs",
        (Volume(TMPFS, "/tmp", read_only=True, size=64 << 20, mode=0o755, uid=1, gid=2),),
    ),
    ("secrets: [key]", "secrets", (Grant("key", "/run/secrets/key"),)),
    (
        "secrets: [{source: key, target: other, uid: '1', gid: 2, mode: 0440}]",
        "secrets",
        (Grant("key", "/run/secrets/other", 1, 2, 0o440),),
    ),
    ("configs: [conf, {source: conf, target: /etc/c}]", "configs", (Grant("conf", "/conf"), Grant("conf", "/etc/c"))),
    (
        "devices: [/dev/c, '/dev/a:/dev/b:rw']",
        "devices",
        (Device("/dev/c", "/dev/c"), Device("/dev/a", "/dev/b", "rw")),
    ),
    ("devices: [{source: /dev/kvm, permissions: rwm}]", "devices", (Device("/dev/kvm", "/dev/kvm"),)),
    ("devices: ['/dev/sda:/dev/sda:r']", "devices", (Device("/dev/sda", "/dev/sda", "r"),)),
    ("shm_size: 1g", "shm_size", 1 << 30),
    ("read_only: true", "read_only", True),
    ("sysctls: {net.core.somaxconn: 1024}", "sysctls", {"net.core.somaxconn": "1024"}),
    ("sysctls: [kernel.sem=1 2 3 4]", "sysctls", {"kernel.sem": "1 2 3 4"}),
    ("extra_hosts: ['a=1.2.3.4', 'b:::1', 'c:[::2]']", "extra_hosts", (("a", "1.2.3.4"), ("b", "::1"), ("c", "::2"))),
    ("extra_hosts: {up: host-gateway}", "extra_hosts", (("up", "host-gateway"),)),
    ("dns: 1.1.1.1", "dns", ("1.1.1.1",)),
    ("dns_search: [a.example, b]", "dns_search", ("a.example", "b")),
    ("dns_opt: [ndots:2]", "dns_opt", ("ndots:2",)),
    ("ulimits: {nofile: '64:128'}", "ulimits", {"nofile": (64, 128)}),
]


@pytest.mark.parametrize(("field", "key", "value"), CASES, ids=[field[:50] for field, _, _ in CASES])
def test_every_form_is_read(load_text: LoadText, field: str, key: str, value: object) -> None:
    (container,) = load_text(f"containers: [{{id: a, image: base, cmd: run, {field}}}]").containers
    assert getattr(container, key) == value


FAULTS = [
    ("volumes: ['/a:/b:/c:ro']", 'is "/a:/b:/c:ro", expected SOURCE:TARGET'),
    ("volumes: ['/a:/b:noexe']", 'unknown option; did you mean "noexec"?'),
    ("volumes: ['/a:/b:rshared']", "shared is not offered: what the container mounts would appear on the host"),
    ("volumes: ['/a:/b:z']", "pysup sets no SELinux labels"),
    ("volumes: ['/a:b']", 'is "b", expected an absolute path in the container'),
    ("volumes: ['/a:/']", 'is "/", expected an absolute path in the container below it'),
    ("volumes: ['/a:/b/../../c']", "without .."),
    ("volumes: ['/a:/proc/sys']", "not in /proc or /sys"),
    ("volumes: ['/a:/./sys']", "not in /proc or /sys"),
    ("volumes: ['/a:/dev']", 'is "/dev"'),
    ("volumes: ['a b:/c']", 'has the source "a b"'),
    ("volumes: ['/a:/c', '/b:/c']", "is the second at /c"),
    ("volumes: ['/a:/c'], tmpfs: /c", "is the second at /c"),
    ("volumes: [{type: bind, target: /c}]", "is without a source"),
    ("volumes: [{type: tmpfs, source: /c, target: /c}]", "none: a tmpfs has no source"),
    ("volumes: [{type: bind, source: /c, target: /c, tmpfs: {size: 1m}}]", "is of a bind"),
    ("volumes: [{type: volume, source: v, target: /c, volume: {subpath: ../x}}]", "a path in the volume"),
    ("tmpfs: ['/t:size']", "has size without a value"),
    ("secrets: [{target: x}]", "is without a source"),
    ("devices: [/dev/kvm:/srv/kvm]", "a path in /dev: a device is none anywhere else"),
    ("devices: [/dev/kvm:/dev/null]", "one that a container does not have anyway"),
    ("devices: ['/dev/sda:/dev/sda:m']", "r, w or rw, and perhaps m"),
    ("sysctls: {kernel.panic: 1}", "is the whole machine's, and no container's"),
    ("sysctls: {vm.swappiness: 1}", "is the whole machine's, and no container's"),
    ("sysctls: {net.../kernel/panic: 1}", "is no sysctl"),
    ("sysctls: {kernel.msgmax/../panic: 1}", "is no sysctl"),
    ("extra_hosts: ['a=b']", "an address, or host-gateway"),
    ("dns: ['1.1.1.1 #']", "the address of a server"),
    ('dns_search: ["a\\nnameserver 6.6.6.6"]', "a domain"),
    ("dns_opt: ['a b']", "an option of resolv.conf"),
]


@pytest.mark.parametrize(("field", "what"), FAULTS, ids=[field[:50] for field, _ in FAULTS])
def test_what_can_not_be_is_told(faults_of: FaultsOf, field: str, what: str) -> None:
    (line,) = faults_of(f"containers: [{{id: a, image: base, cmd: run, {field}}}]")
    assert what in line
    assert line.startswith("stack.yaml:1:")


def test_what_a_stack_has(load_text: LoadText) -> None:
    spec = load_text("""
        volumes: {db: , cache: {name: shared-cache}, old: {external: true, driver: local}}
        secrets: {a: {file: ./key}, b: {environment: KEY}, c: {content: "$${x}"}}
        containers: [{id: a, image: base, cmd: run}]
    """)
    assert spec.volumes == {
        "db": NamedVolume(),
        "cache": NamedVolume("shared-cache"),
        "old": NamedVolume(external=True),
    }
    key = Path(spec.source).parent / "key"
    assert spec.secrets == {"a": Source(file=str(key)), "b": Source(environment="KEY"), "c": Source(content="${x}")}


@pytest.mark.parametrize("entry", ["{}", "{file: a, content: b}", "{external: true}"])
def test_a_secret_has_one_source(faults_of: FaultsOf, entry: str) -> None:
    (line,) = faults_of(f"secrets: {{k: {entry}}}\ncontainers: [{{id: a, image: base, cmd: run}}]")
    assert "secrets.k" in line


def test_a_secret_is_never_printed(load_text: LoadText, faults_of: FaultsOf) -> None:
    spec = load_text("secrets: {k: {content: hush}}\ncontainers: [{id: a, image: base, cmd: run, secrets: [k]}]")
    assert "hush" not in repr(spec)
    text = resolved(spec)
    assert "hush" not in text
    (line,) = faults_of(text)
    assert "is hidden, as in what `pysup config` prints" in line


def test_paths_are_relative_to_the_file_that_they_are_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part/more.yaml").write_text(
        "secrets: {k: {file: key}}\n"
        "containers: [{id: b, image: base, cmd: run, volumes: ['./data:/data', {source: ., target: /here}]}]"
    )
    (tmp_path / "stack.yaml").write_text(
        "include: [part/more.yaml]\n"
        "containers: [{id: a, image: base, cmd: run, volumes: ['../up:/up:ro', '~/x:/x', 'name:/n']}]"
    )
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    spec = load("stack.yaml", variables={})
    sources = [[volume.source for volume in container.volumes] for container in spec.containers]
    assert sources[0] == [f"{tmp_path}/../up", "/home/me/x", "name"]
    assert [source.rstrip("/.") for source in sources[1]] == [f"{tmp_path}/part/data", f"{tmp_path}/part"]
    assert spec.secrets["k"].file == f"{tmp_path}/part/key"


def test_a_later_file_puts_its_mount_in_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("containers: [{id: a, image: base, cmd: run, volumes: ['/a:/x', '/b:/y']}]")
    (tmp_path / "b.yaml").write_text("containers: [{id: a, volumes: [{source: /c, target: /x/}, '/d:/z']}]")
    (container,) = load([tmp_path / "a.yaml", tmp_path / "b.yaml"], variables={}).containers
    assert {volume.target: volume.source for volume in container.volumes} == {"/x": "/c", "/y": "/b", "/z": "/d"}


def test_a_name_of_two_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("volumes: {v: }\ncontainers: [{id: b, image: base, cmd: run}]")
    (tmp_path / "a.yaml").write_text("volumes: {v: }\ninclude: [b.yaml]\ncontainers: [{id: a, image: base, cmd: run}]")
    with pytest.raises(SpecError, match=r"volumes\.v: is given again"):
        load(tmp_path / "a.yaml", variables={})
