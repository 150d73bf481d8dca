"""Names lead to images in the images directories, and nowhere else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ImageError
from runtime.images.lookup import check_name, find, names, search_path


def make(directory: Path, *images: str) -> Path:
    for name in images:
        (directory / name / "bin").mkdir(parents=True)
    return directory


@pytest.mark.parametrize("name", ["base", "team/base", "base:1.2", "a-b_c.d", "A9", "x/y/z/w", "b@sha256:ab+1"])
def test_an_image_is_found_by_its_name(tmp_path: Path, name: str) -> None:
    image = find(name, [make(tmp_path, name)])
    assert (image.name, image.path) == (name, tmp_path / name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../base",
        "a/../../b",
        "a/..",
        "/etc",
        "//base",
        "base/",
        "a//b",
        "./base",
        "a/./b",
        ".hidden",
        "a\0b",
        "a\nb",
        "base\n",
        "-base",
        "a b",
        "é",
        "x" * 256,
        "a/b/c/d/e",
        "$HOME",
        "a\\b",
    ],
)
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    make(tmp_path / "images", "base")
    with pytest.raises(ImageError, match="is not valid: give a name like"):
        find(name, [tmp_path / "images"])


@given(st.text(alphabet=st.sampled_from("ab./:-\\\0~@"), max_size=12) | st.text(max_size=12))
def test_a_name_that_is_accepted_stays_in_the_directory(name: str) -> None:
    try:
        check_name(name)
    except ImageError:
        return
    assert ".." not in name.split("/")
    assert Path("/images", name).parent.is_relative_to("/images")


def test_a_symlink_may_lead_to_another_image_and_not_out(tmp_path: Path) -> None:
    images = make(tmp_path / "images", "base")
    make(tmp_path, "outside")
    (images / "latest").symlink_to("base")
    (images / "out").symlink_to("../outside")
    (images / "absolute").symlink_to("/")
    (images / "self").symlink_to(".")
    assert find("latest", [images]).path == images / "base"
    for name in ("out", "absolute", "self"):
        with pytest.raises(ImageError, match=f"image {name}: .* leads out of {images}"):
            find(name, [images])


def test_a_folder_that_leads_out_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "elsewhere", "base")
    images = make(tmp_path / "images")
    images.mkdir()
    (images / "team").symlink_to("../elsewhere")
    with pytest.raises(ImageError, match="leads out of"):
        find("team/base", [images])


def test_the_first_directory_that_has_it_wins(tmp_path: Path) -> None:
    first, second = make(tmp_path / "1", "a"), make(tmp_path / "2", "a", "b")
    assert find("a", [first, second]).path == first / "a"
    assert find("b", [first, second]).path == second / "b"
    assert [image.path for image in names([first, second])] == [first / "a", second / "b"]


def test_odd_directory_names_above_an_image_are_fine(tmp_path: Path) -> None:
    odd = make(tmp_path / "a:b,c\\d e", "base")
    assert find("base", [odd]).path == odd / "base"


def test_an_unknown_image_says_where_was_looked_what_is_there_and_what_to_do(tmp_path: Path) -> None:
    images = make(tmp_path / "images", "base", "alpine")
    with pytest.raises(ImageError) as caught:
        find("bse", [images, tmp_path / "none"])
    assert str(caught.value) == (
        f"image bse is not in {images}, {tmp_path / 'none'}: there is base; "
        "`pysup image create bse --from-host --tools` makes one, --images DIR looks elsewhere"
    )
    assert caught.value.exit_status == 125
    with pytest.raises(ImageError, match="there are no images"):
        find("base", [tmp_path / "none"])


def test_what_is_no_image_says_so(tmp_path: Path) -> None:
    make(tmp_path, "team/base")
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    for name, message in (
        ("file", "is not a directory"),
        ("empty", "is empty"),
        ("dangling", "No such file or directory"),
        ("circle", "circle"),
        ("team", "is a folder of images: name one of them, such as team/base"),
        ("file/base", "image file/base is not in"),
    ):
        with pytest.raises(ImageError, match=message):
            find(name, [tmp_path])


def test_all_images_are_named_and_nothing_else(tmp_path: Path) -> None:
    make(tmp_path, "base", "team/base", "team/deep/er", ".pysup-half", "bad name")
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "hello").touch()
    (tmp_path / "odd" / "app").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").touch()
    (tmp_path / "out").symlink_to("/")
    (tmp_path / "latest").symlink_to("base")
    found = [image.name for image in names([tmp_path])]
    assert found == ["base", "latest", "odd", "static", "team/base", "team/deep/er"]
    assert all(find(name, [tmp_path]) for name in found)


def test_the_search_path_of_a_spec_is_beside_it_above_it_and_here(tmp_path: Path) -> None:
    (tmp_path / "proj" / "configs").mkdir(parents=True)
    spec = Path("proj/configs/stack.yaml")
    here = (tmp_path / "proj/configs/images", tmp_path / "proj/images", tmp_path / "images")
    assert search_path(spec, None, tmp_path) == here
    assert search_path(spec, Path("other"), tmp_path) == (tmp_path / "other",)
    assert search_path(None, None, tmp_path) == (tmp_path / "images",)
    assert search_path(Path("configs/stack.yaml"), None, tmp_path / "proj") == here[:2]
