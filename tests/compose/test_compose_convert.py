"""The whole file: names, services that need one another, and what can't be read at all."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from supervisor.compose import Converted, convert
from supervisor.spec import SpecError

Import = Callable[[str], Converted]
Notes = Callable[[str], list[str]]


def containers(converted: Converted) -> dict[str, dict[str, object]]:
    return {str(entry["id"]): entry for entry in yaml.safe_load(converted.text)["containers"]}


def service(name: str, keys: str = "") -> str:
    more = "".join(f"    {line}\n" for line in keys.splitlines())
    return f"  {name}:\n    image: base\n    entrypoint: run\n    network_mode: none\n{more}"


def stack(*services: str) -> str:
    return "services:\n" + "".join(services)


# --- names ------------------------------------------------------------------------------------------------------------


def test_containers_keep_the_order_of_services(imported: Import) -> None:
    names = ["web", "db", "a", "z", "cache"]
    assert list(containers(imported(stack(*map(service, names))))) == names


def test_a_containers_name_is_its_id_and_others_depend_on_that(imported: Import) -> None:
    text = stack(service("web", "depends_on: [db]"), service("db", "container_name: shop-db"))
    found = containers(imported(text))
    assert list(found) == ["web", "shop-db"]
    assert found["web"]["depends_on"] == ["shop-db"]


@pytest.mark.parametrize("name", ["web", "${PROJECT}-db", "a b", "x" * 64])
def test_a_name_that_can_be_no_id_is_told(name: str, imported: Import) -> None:
    converted = imported(stack(service("web"), service("db", f"container_name: {name}")))
    assert list(containers(converted)) == ["web", "db"]
    assert any("services.db.container_name: changed: can't be an id here" in str(note) for note in converted.notes)


def test_a_service_whose_name_can_be_no_id_gets_another(imported: Import) -> None:
    converted = imported(stack(service("_db"), service("db"), service('"d b"'), service("x" * 70)))
    assert list(containers(converted)) == ["db-2", "db", "d-b", "x" * 63]


def test_the_name_of_the_stack(imported: Import) -> None:
    assert yaml.safe_load(imported(f"name: shop\n{stack(service('a'))}").text)["name"] == "shop"
    assert "name" not in yaml.safe_load(imported(f"name: Shop\n{stack(service('a'))}").text)
    assert yaml.safe_load(imported(f"name: $SHOP\n{stack(service('a'))}").text)["name"] == "${SHOP:-}"


# --- services that need one another -----------------------------------------------------------------------------------


def test_extends_takes_the_entrypoint_of_the_other(imported: Import) -> None:
    text = stack(service("base", "command: serve"), "  web:\n    extends: base\n    command: work\n")
    assert containers(imported(text))["web"] == {"id": "web", "extends": "base", "cmd": "run work"}


def test_extends_of_another_file_is_told_with_what_to_do(notes: Notes) -> None:
    text = stack(service("web", "extends: {file: common.yaml, service: base}"))
    (told,) = [note for note in notes(text) if "extends" in note]
    assert told.startswith('6:14: services.web.extends: dropped: a service of "common.yaml": import that file too')


def test_a_circle_of_extends_ends(imported: Import) -> None:
    assert imported("services: {a: {extends: b}, b: {extends: a}}").text


def test_no_check_of_the_extended_service(imported: Import) -> None:
    text = stack(service("base", "healthcheck: {test: a}"), service("web", "extends: base\nhealthcheck: {test: NONE}"))
    assert "NONE" in imported(text).text  # as a command: only a list says so
    text = text.replace("test: NONE", "disable: true")
    assert containers(imported(text))["web"]["health"] == "none"


def test_health_that_is_not_known_is_waited_for_no_more(imported: Import) -> None:
    needs = "depends_on: {db: {condition: service_healthy}}"
    converted = imported(stack(service("db"), service("web", needs)))
    assert containers(converted)["web"]["depends_on"] == {"db": {"condition": "started"}}
    assert ":10:34: services.web.depends_on.db.condition: dropped" in str(converted.notes[-1])
    text = stack(service("base", "healthcheck: {test: a}"), "  db: {extends: base}\n", service("web", needs))
    assert containers(imported(text))["web"]["depends_on"] == {"db": {"condition": "healthy"}}


def test_a_dependency_that_is_not_there_is_told(imported: Import) -> None:
    text = stack(service("web", "depends_on: [bd, model]"), service("db"), "  model: {provider: {type: model}}\n")
    converted = imported(text)
    assert "depends_on" not in containers(converted)["web"]
    assert list(containers(converted)) == ["web", "db"]
    told = "\n".join(map(str, converted.notes))
    assert 'there is no service "bd"' in told
    assert '"model" is no container here' in told
    assert "the service is left out" in told


def test_anchors_and_merge_keys_are_resolved(imported: Import) -> None:
    text = "x-a: &a {environment: &e {A: '1'}, user: root}\n" + stack(
        service("web", "<<: *a\nuser: app"), service("db", "environment: {<<: *e, B: '2'}")
    )
    found = containers(imported(text))
    assert (found["web"]["env"], found["web"]["user"]) == ({"A": "1"}, "app")
    assert found["db"]["env"] == {"A": "1", "B": "2"}
    assert "&" not in imported(text).text


def test_paths_are_relative_to_the_spec(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    path = tmp_path / "app/compose.yaml"
    path.write_text(stack(service("web", "env_file: [a.env, ../b.env, /c.env, $D]")))
    text = convert(str(path), str(tmp_path / "stack.yaml")).text
    assert yaml.safe_load(text)["containers"][0]["env_file"] == ["app/a.env", "app/../b.env", "/c.env", "${D:-}"]


def test_what_is_told_once_stays_a_line(notes: Notes) -> None:
    told = notes(stack(*(f"  s{number}: {{image: base, entrypoint: run}}\n" for number in range(500))))
    assert len(told) == 1
    assert all(len(line) < 400 for line in told)


def test_two_thousand_services_are_read_in_a_moment(imported: Import) -> None:
    import time

    keys = "environment: {A: 1}\ndepends_on: [s0]\nrestart: always\nuser: app\nhealthcheck: {test: a}\nports: ['1:1']"
    text = stack(service("s0"), *(service(f"s{number}", keys) for number in range(1, 2000)))
    before = time.process_time()
    assert len(containers(imported(text))) == 2000
    assert time.process_time() - before < 30


# --- what can't be read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1:1: the file is empty"),
        ("services: [a]", "1:11: services: is a list, expected a mapping of names to services"),
        ("services: {}", "1:11: services: is a mapping"),
        ("containers: []", "1:1: services: is no docker-compose file: it has no services, expected `services:`"),
        ("services: {a: {image: a, image: b}}", "1:26: "),
        ("services: {a: ]", "1:15: is not YAML: "),
    ],
)
def test_a_file_without_sense_is_an_error_with_its_place(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        convert(str(path))
    assert str(caught.value).startswith(f"{path}:{said}")


@pytest.mark.parametrize("text", ["services: {a: 1}", "services: {a: }", "services: {'': {}}"])
def test_a_service_without_sense_is_told(text: str, imported: Import) -> None:
    assert not imported(text).complete
