"""Files as people write them: what becomes of them is a spec that loads, and nothing is lost without a word."""

from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.compose import Converted, convert
from supervisor.core.policy import Condition
from supervisor.spec import Spec, SpecError, load

SAMPLES = sorted((Path(__file__).parent / "samples").glob("*.yaml"))
VARIABLES = {
    "DB_ROOT_PASSWORD": "secret",
    "CMD_WORDPRESS_DB": "docker-entrypoint.sh",
    "CMD_WORDPRESS": "docker-entrypoint.sh apache2-foreground",
    "CMD_SEED": "/make-data.sh",
    "CMD_PROMETHEUS": "/bin/prometheus",
    "CMD_NODE_EXPORTER": "/bin/node_exporter",
    "SECOND": "2",
}


def written(sample: str, folder: Path) -> tuple[Converted, Path]:
    converted = convert(str(Path(__file__).parent / "samples" / f"{sample}.yaml"))
    path = folder / "stack.yaml"
    path.write_text(converted.text)
    (folder / ".env.app").write_text("FROM_FILE=1\n")
    return converted, path


def loaded(sample: str, folder: Path, **variables: str) -> Spec:
    _, path = written(sample, folder)
    return load(path, variables={**VARIABLES, **variables})


@pytest.mark.parametrize("sample", [path.stem for path in SAMPLES])
def test_what_becomes_of_a_sample_loads(sample: str, tmp_path: Path) -> None:
    assert loaded(sample, tmp_path).containers


@pytest.mark.parametrize("sample", [path.stem for path in SAMPLES])
def test_what_is_told_is_at_the_top_of_the_spec_too(sample: str, tmp_path: Path) -> None:
    converted, path = written(sample, tmp_path)
    head = path.read_text().partition("\n\n")[0].splitlines()
    assert head[2:] == [f"# {str(note).removeprefix(f'{SAMPLES[0].parent}/')}" for note in converted.notes]


def test_the_blog_waits_for_its_database(tmp_path: Path) -> None:
    database, blog = loaded("wordpress", tmp_path).containers
    assert database.cmd == ("docker-entrypoint.sh", "--default-authentication-plugin=mysql_native_password")
    assert database.env["MYSQL_PASSWORD"] == "p@ss$word"
    assert blog.depends_on["wordpress_db"].condition is Condition.HEALTHY
    assert blog.depends_on["wordpress_db"].restart
    assert blog.env["WORDPRESS_DEBUG"] == ""
    assert blog.image == "wordpress:latest"


def test_a_command_that_only_the_image_knows_must_be_given(tmp_path: Path) -> None:
    _, path = written("wordpress", tmp_path)
    with pytest.raises(SpecError) as caught:
        load(path, variables={"DB_ROOT_PASSWORD": "x"})
    assert "CMD_WORDPRESS_DB" in str(caught.value)
    assert "an image has no CMD or ENTRYPOINT here" in str(caught.value)


def test_replicas_and_variables(tmp_path: Path) -> None:
    spec = loaded("everything", tmp_path, REPLICAS="5", NAME="another one")
    app = next(container for container in spec.containers if container.id == "app")
    assert app.replicas == 5
    assert app.cmd == ("/entry", "--verbose", "serve", "--name", "another one")
    assert app.ulimits["memlock"] == (1024, 2048)
    script = next(container for container in spec.containers if container.id == "script")
    assert script.cmd[-1] == 'echo "price: $5"\nexec sleep 1000\n'


@pytest.mark.parametrize("sample", [path.stem for path in SAMPLES])
def test_notes_name_a_place_in_the_file(sample: str, tmp_path: Path) -> None:
    converted, _ = written(sample, tmp_path)
    lines = (Path(__file__).parent / "samples" / f"{sample}.yaml").read_text().splitlines()
    for note in converted.notes:
        line, column = note.place[:2]
        assert lines[line - 1][column - 1 :].strip()


def test_a_converted_file_is_what_people_would_write(imported: Callable[[str], Converted]) -> None:
    text = """\
name: shop
services:
  db:
    image: postgres:16
    entrypoint: docker-entrypoint.sh
    command: postgres
    network_mode: host
    restart: "no"
    environment: {PORT: 5432, MODE: "on", GREETING: "a: b"}
  web:
    image: web
    entrypoint: [sh, -c, 'echo $$HOME; exec web']
    network_mode: host
    depends_on: [db]
"""
    converted = imported(text)
    assert converted.complete
    assert (
        converted.text.split("\n\n", 1)[1]
        == """\
name: shop

containers:
  - id: db
    image: postgres:16
    cmd: docker-entrypoint.sh postgres
    env:
      PORT: 5432
      MODE: 'on'
      GREETING: 'a: b'
    restart: no
    network: host

  - id: web
    image: web
    cmd: [sh, -c, echo $$HOME; exec web]
    depends_on: [db]
    network: host
"""
    )
