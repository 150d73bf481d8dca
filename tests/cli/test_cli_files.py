"""Volumes, secrets and the like, as a user has them: in a stack, in `pysup run`, and what is left afterwards."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from command import IMAGE, Pysup, script

pytestmark = pytest.mark.kernel

SECRET = "hush-hush-hush"
FOREVER = "echo up; exec sleep 1000"


def stack(pysup: Pysup, *containers: dict[str, Any], **top: object) -> str:
    path = pysup.directory / "stack.json"
    given = [{"image": IMAGE, **container} for container in containers]
    path.write_text(json.dumps({"name": "stack", **top, "containers": given}))
    return str(path)


def written(pysup: Pysup, *containers: dict[str, Any], **top: object) -> list[str]:
    """The lines of all containers; all goes well."""
    ended = pysup("up", stack(pysup, *containers, **top))
    assert (ended.status, ended.err) == (0, ""), ended
    return [line.partition("| ")[2] for line in ended.out.splitlines() if not line.startswith("pysup")]


def refused(pysup: Pysup, *containers: dict[str, Any], **top: object) -> str:
    ended = pysup("up", stack(pysup, *containers, **top))
    assert ended.status == 125
    return ended.complaint


def home(pysup: Pysup) -> Path:
    return pysup.state / "stacks/stack"


# --- volumes ----------------------------------------------------------------------------------------------------------


def test_a_path_is_relative_to_the_file(pysup: Pysup) -> None:
    (pysup.directory / "data").mkdir()
    (pysup.directory / "data/a").write_text("hello\n")
    volumes = ["./data:/data:ro", "./new:/new"]
    lines = written(pysup, {"id": "a", "cmd": script("cat /data/a; touch /new/b"), "volumes": volumes})
    assert lines == ["hello"]
    assert (pysup.directory / "new/b").exists()
    assert pysup.left() == []


def test_a_volume_outlives_the_stack_until_it_is_removed(pysup: Pysup) -> None:
    entry = {"id": "a", "cmd": script("echo x >>/db/x; cat /db/x"), "volumes": ["db:/db", "/nameless"]}
    assert written(pysup, entry, volumes={"db": None}) == ["x"]
    assert written(pysup, entry, volumes={"db": None}) == ["x", "x"]
    assert [path.name.partition("-")[0] for path in sorted((home(pysup) / "volumes").iterdir())] == ["@a", "db"]
    assert os.stat(home(pysup) / "volumes").st_mode & 0o777 == 0o700
    assert pysup("down", "--state", str(pysup.state), "-s", "stack", "-v").status == 0
    assert pysup.left() == []


def test_a_volume_begins_with_what_the_image_has_there(pysup: Pysup) -> None:
    entry = {"id": "a", "cmd": script("cat /etc/group | head -1; rm -f /etc/group"), "volumes": ["conf:/etc"]}
    assert written(pysup, entry, volumes={"conf": None}) == ["root:x:0:"]
    assert not (home(pysup) / "volumes/conf/group").exists()
    assert (home(pysup) / "volumes/conf/passwd").exists()
    entry = {"id": "a", "cmd": script("ls /etc"), "volumes": ["bare:/etc:nocopy"]}
    assert written(pysup, entry, volumes={"bare": None}) == []


def test_replicas_share_a_volume_and_may_have_each_their_own(pysup: Pysup) -> None:
    volumes = ["all:/all", "./own/${PYSUP_REPLICA}:/own"]
    entry = {"id": "a", "replicas": 2, "cmd": script("touch /all/$$HOSTNAME /own/x"), "volumes": volumes}
    written(pysup, entry, volumes={"all": None})
    assert sorted(os.listdir(home(pysup) / "volumes/all")) == ["a.1", "a.2"]
    assert sorted(os.listdir(pysup.directory / "own")) == ["1", "2"]


def test_a_volume_of_the_machine_stays(pysup: Pysup) -> None:
    entry = {"id": "a", "cmd": script("touch /v/x"), "volumes": ["v:/v"]}
    assert "is external, and" in refused(pysup, entry, volumes={"v": {"external": True, "name": "shared"}})
    written(pysup, entry, volumes={"v": {"name": "shared"}})
    assert (pysup.state / "volumes/shared/x").exists()
    written(pysup, entry, volumes={"v": {"external": True, "name": "shared"}})
    assert pysup.left() == []


def test_what_the_stack_has_not_is_told_at_its_place(pysup: Pysup) -> None:
    said = refused(pysup, {"id": "a", "cmd": "true", "volumes": ["db:/db"]})
    assert "containers[0].volumes[0]: names the volume db, which is not under volumes: at the top" in said
    said = refused(pysup, {"id": "a", "cmd": "true", "secrets": ["k"]})
    assert "containers[0].secrets[0]: names k, which is not under secrets: at the top" in said
    said = refused(pysup, {"id": "a", "cmd": "true", "secrets": ["k"]}, secrets={"k": {"file": "nowhere"}})
    assert said.endswith("nowhere can't be had: no such file or directory")
    said = refused(pysup, {"id": "a", "cmd": "true", "secrets": ["k"]}, secrets={"k": {"environment": "NOWHERE"}})
    assert said.endswith("the variable NOWHERE can't be had: pysup's own environment has none of this name")
    said = refused(pysup, {"id": "a", "cmd": "true", "sysctls": {"net.core.somaxconn": 1}, "network": "host"})
    assert "would be the host's own in network: host" in said


def test_a_link_out_of_what_another_container_writes_to_is_refused(pysup: Pysup) -> None:
    """Whether it was there when the spec was read or came later: the host's files are out of reach."""
    (pysup.directory / "shared").mkdir()
    (pysup.directory / "shared/mine").symlink_to("/etc")
    writer = {"id": "w", "cmd": "true", "volumes": ["./shared:/shared"]}
    reader = {"id": "r", "cmd": script("ls /mine"), "volumes": ["./shared/mine:/mine"]}
    assert "leads out of" in refused(pysup, writer, reader)
    (pysup.directory / "shared/mine").unlink()
    (pysup.directory / "shared/mine").mkdir()
    swap = {"id": "w", "cmd": script("rmdir /shared/mine && ln -s /etc /shared/mine"), "volumes": ["./shared:/shared"]}
    late = {**reader, "depends_on": {"w": {"condition": "completed"}}}
    ended = pysup("up", stack(pysup, swap, late))
    assert "a symbolic link is on the way that was not there when the spec was read" in ended.out
    assert "hostname" not in ended.out


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_too_much_of_them_is_a_fault(pysup: Pysup) -> None:
    (pysup.directory / "big").write_bytes(bytes(1 << 20))
    secrets = {f"s{number}": {"file": "./big"} for number in range(17)}
    said = refused(pysup, {"id": "a", "cmd": "true", "secrets": list(secrets)}, secrets=secrets)
    assert "secrets and configs have 17825792 bytes together: at most 16777216" in said
    (pysup.directory / "big").write_bytes(bytes((1 << 20) + 1))
    said = refused(pysup, {"id": "a", "cmd": "true", "secrets": ["s1"]}, secrets={"s1": {"file": "./big"}})
    assert said.endswith("can't be had: it is longer than 1048576 bytes")


def secretive(pysup: Pysup, cmd: str) -> str:
    (pysup.directory / "key").write_text(SECRET)
    secrets = {"file": {"file": "./key"}, "var": {"environment": "KEY"}, "here": {"content": SECRET}}
    entry = {"id": "a", "cmd": script(cmd), "user": "1000", "secrets": list(secrets), "configs": ["conf"]}
    return stack(pysup, entry, secrets=secrets, configs={"conf": {"content": SECRET}})


def test_secrets_are_seen_by_the_containers_user(pysup: Pysup) -> None:
    seen = script("cat /run/secrets/file /run/secrets/var /run/secrets/here /conf; stat -c ' %a %u' /run/secrets/*")[-1]
    ended = pysup("up", secretive(pysup, seen), KEY="from outside")
    lines = [line.partition("| ")[2] for line in ended.out.splitlines() if not line.startswith("pysup")]
    assert lines[0].split(" 400")[0] == f"{SECRET}from outside{SECRET}{SECRET}"
    assert [line.split()[-1] for line in lines] == ["1000"] * 3


def test_secrets_are_nowhere_else(pysup: Pysup) -> None:
    path = secretive(pysup, "env; " + FOREVER)
    for argv in (("config",), ("config", "--origins"), ("up", "--dry-run")):
        ended = pysup(*argv, path, KEY=SECRET)
        assert ended.status == 0
        assert SECRET not in ended.out.replace(path, "") + ended.err
    with pysup.live(
        "up", "--run", str(pysup.directory / "run"), *["--debug"][:0], path, prefix=["env", f"KEY={SECRET}"]
    ) as live:
        live.sees("| up")
        inspected = pysup("inspect", "--run", str(pysup.directory / "run"), "a")
        assert '"ReadonlyRootfs"' in inspected.out
        assert SECRET not in inspected.out + live.text
        for file in pysup.state.rglob("*"):
            assert not file.is_file() or SECRET.encode() not in file.read_bytes()


def test_commands_and_copies_see_them_and_diff_does_not(pysup: Pysup) -> None:
    (pysup.directory / "data").mkdir()
    (pysup.directory / "data/a").write_text("hello\n")
    entry = {"id": "a", "cmd": script(FOREVER), "volumes": ["./data:/deep/data", "db:/db"], "secrets": ["k"]}
    path = stack(pysup, entry, volumes={"db": None}, secrets={"k": {"content": SECRET}})
    run = ("--run", str(pysup.directory / "run"))
    with pysup.live("up", *run, path) as live:
        live.sees("| up")
        seen = pysup("exec", *run, "a", *script("cat /deep/data/a /run/secrets/k; touch /db/new /own"))
        assert (seen.status, seen.out) == (0, f"hello\n{SECRET}")
        (pysup.directory / "b").write_text("in\n")
        assert pysup("cp", *run, "b", "a:/deep/data/b").status == 0
        assert (pysup.directory / "data/b").read_text() == "in\n"
        assert pysup("cp", *run, "a:/db/new", "out").status == 0
        assert (pysup.directory / "out").exists()
        assert pysup("diff", *run, "a").out == "A /own\n"


# --- one container ----------------------------------------------------------------------------------------------------


def test_run_has_options_for_all_of_it(pysup: Pysup) -> None:
    (pysup.directory / "data").mkdir()
    options = ["-v", "./data:/data", "-v", "v:/v", "--tmpfs", "/t:size=1m", "--read-only", "--shm-size", "1m"]
    more = [
        "--add-host",
        "up=10.0.0.1",
        "--dns",
        "9.9.9.9",
        "--device",
        "/dev/zero:/dev/z",
        "--sysctl",
        "kernel.msgmax=99",
    ]
    cmd = "touch /data/a /v/b /t/c /d; tail -n1 /etc/hosts /etc/resolv.conf; ls /dev/z; cat /proc/sys/kernel/msgmax"
    ended = pysup.run(*options, *more, "--", *script(cmd))
    assert ended.err == "touch: /d: Read-only file system\n"
    words = ended.out.split()
    assert {"10.0.0.1", "9.9.9.9", "99", "/dev/z"} <= set(words)
    assert (pysup.directory / "data/a").exists()
    assert (pysup.state / "volumes/v/b").exists()
    assert pysup.run("-v", "a:b", "--", "true").complaint.startswith('--volume: is "b", expected an absolute path')
