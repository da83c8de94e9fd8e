"""`rtseg image`: formats, orientation, folders, masks, and what is no picture."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from command import rtseg, told_in_one_line

from rtseg.core.errors import SinkError, SourceError
from rtseg.core.palette import CAMVID_CLASSES, NO_CLASS, STREET
from rtseg.inference.segmenter import Segmenter
from rtseg.render.style import Style
from rtseg.video.image import find_images, name_images, name_masks, process_image, read_image, write_image

pytestmark = pytest.mark.timeout(180)

MODEL = Path(__file__).parents[1] / "data" / "nearest-color.onnx"
COLORS = np.array([STREET[name] for name in CAMVID_CLASSES], dtype=np.uint8)
QUARTERS = np.kron(np.array([[0, 3], [5, 8]], np.uint8), np.ones((96, 160), np.uint8))
"""Sky, road, tree and car in a quarter each, 320x192."""


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(MODEL)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_formats(segmenter: Segmenter, tmp_path: Path, suffix: str) -> None:
    source, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write_image(source, COLORS[QUARTERS])
    classes = process_image(
        source,
        out,
        segmenter,
        Style(alpha=1.0).overlay(segmenter.description),
        masks=tmp_path / "masks",
    )
    assert (classes == QUARTERS).mean() > 0.97
    assert np.abs(read_image(out).astype(int) - COLORS[classes]).mean() < 4
    mask = cv2.imread(str(tmp_path / "masks" / "in.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, classes)


def test_only_leaves_the_others_alone(segmenter: Segmenter, tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", COLORS[QUARTERS])
    overlay = Style(alpha=1.0, palette="camvid", only=("road",)).overlay(segmenter.description)
    process_image(tmp_path / "in.png", tmp_path / "out.png", segmenter, overlay, masks=tmp_path / "masks")
    picture = read_image(tmp_path / "out.png")
    assert picture[40, 240].tolist() == [128, 64, 128]
    assert picture[40, 40].tolist() == COLORS[0].tolist()
    mask = cv2.imread(str(tmp_path / "masks" / "in.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(mask)) == {3, NO_CLASS}


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    """Orientation 6: the camera was held upright, the picture is to be turned clockwise."""
    _, jpeg = cv2.imencode(".jpg", COLORS[QUARTERS][:, :, ::-1])
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    body = b"Exif\0\0" + tiff
    data = jpeg.tobytes()
    (tmp_path / "phone.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    picture = read_image(tmp_path / "phone.jpg")
    assert picture.shape == (320, 192, 3)
    assert (
        np.abs(picture[40, 40].astype(int) - COLORS[5]).max() < 20
    )  # the lower left quarter is now the upper left one


def test_alpha_gray_and_sixteen_bits_are_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "alpha.png"), np.full((20, 30, 4), 128, np.uint8))
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((20, 30), 128, np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((20, 30, 3), 128 * 257, np.uint16))
    for name in ("alpha.png", "gray.png", "deep.png"):
        picture = read_image(tmp_path / name)
        assert picture.shape == (20, 30, 3)
        assert picture.dtype == np.uint8
        assert abs(int(picture.mean()) - 128) <= 1


def test_what_is_no_picture_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    for name, word in (
        ("missing.jpg", "no picture"),
        ("empty.jpg", "not a picture"),
        ("text.png", "not a picture"),
        (".", "folder"),
    ):
        with pytest.raises(SourceError, match=word):
            read_image(tmp_path / name)
    with pytest.raises(SinkError, match="tiff"):
        write_image(tmp_path / "out.tiff", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(SinkError, match="can't be written"):
        write_image(tmp_path / "text.png" / "out.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "none").mkdir()
    with pytest.raises(SourceError, match="no pictures in the folder"):
        find_images([str(tmp_path / "none")])


def test_names_never_collide_with_each_other_or_the_input(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "same.png", np.zeros((4, 4, 3), np.uint8))
    both = [tmp_path / "a" / "same.png", tmp_path / "b" / "same.png"]
    with pytest.raises(SinkError, match="different folders"):
        name_images(both, tmp_path / "out")
    with pytest.raises(SinkError, match="would overwrite the input"):
        name_images(both[:1], both[0])
    with pytest.raises(SinkError, match="name a folder"):
        name_images(both, tmp_path / "out.png")
    assert name_images(both[:1], None) == [tmp_path / "a" / "same.rtseg.png"]
    assert len(find_images([str(tmp_path / "a"), str(tmp_path / "*" / "*.png")])) == 2


def test_results_are_no_inputs_of_a_second_run(segmenter: Segmenter, tmp_path: Path) -> None:
    """Beside the inputs, in a folder below them, as class maps among them, in each format."""
    for name in ("a.png", "b.JPG", "c.webp"):
        write_image(tmp_path / name, COLORS[QUARTERS])
    overlay = Style().overlay(segmenter.description)

    def run(patterns: list[str], output: Path | None, masks: Path | None) -> list[str]:
        found = find_images(patterns, results=[str(folder) for folder in (output, masks) if folder])
        if masks:
            name_masks(found, masks)
        for path, target in zip(found, name_images(found, output), strict=True):
            process_image(path, target, segmenter, overlay, masks=masks)
        return [str(path.relative_to(tmp_path)) for path in found]

    everything = [str(tmp_path / "**" / "*.*")]
    for _ in range(2):
        assert run([str(tmp_path)], None, None) == ["a.png", "b.JPG", "c.webp"]
        assert run(everything, tmp_path / "out", tmp_path / "out" / "masks") == ["a.png", "b.JPG", "c.webp"]
        assert run([str(tmp_path / "b.JPG"), str(tmp_path / "c.webp")], tmp_path / "o", tmp_path) == ["b.JPG", "c.webp"]
    assert {path.name for path in tmp_path.glob("*.png")} == {"a.png", "a.rtseg.png", "b.png", "c.png"}
    named = tmp_path / "a.rtseg.png"
    assert find_images([str(named)]) == [named]  # a file that is named is taken


def test_a_class_map_never_replaces_the_users_file(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for name in ("a.jpg", "labels/a.png", "b.jpg", "b.png"):
        write_image(tmp_path / name, QUARTERS)
    with pytest.raises(SinkError, match="not an image that rtseg wrote"):
        name_masks([tmp_path / "a.jpg"], tmp_path / "labels")
    with pytest.raises(SinkError, match="both"):
        name_masks([tmp_path / "b.jpg", tmp_path / "b.png"], tmp_path / "masks")
    write_image(tmp_path / "labels" / "a.png", QUARTERS, mark=True)
    assert name_masks([tmp_path / "a.jpg"], tmp_path / "labels") == [tmp_path / "labels" / "a.png"]


def test_system_files_among_images_are_left_out(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", "@eaDir/a.png/THUMB.png", "sub/b.png", "#recycle/old.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / name, QUARTERS)
    (tmp_path / "b.cr2").touch()
    said: list[str] = []
    assert find_images([str(tmp_path)], log=said.append) == [tmp_path / "a.png"]
    assert said == [f"{tmp_path}: left out 1 file with other endings (.cr2 1), 1 folder (sub)"]
    assert find_images([str(tmp_path / "**" / "*.png")]) == [tmp_path / "a.png", tmp_path / "sub" / "b.png"]
    assert find_images([str(tmp_path / "#recycle" / "*.png")]) == [tmp_path / "#recycle" / "old.png"]


def test_an_interrupt_leaves_the_earlier_result_and_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "a.png", QUARTERS)
    earlier = (tmp_path / "a.png").read_bytes()
    whole = Path.write_bytes

    def half(path: Path, data: bytes) -> int:
        whole(path, data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / "a.png", QUARTERS[:, ::-1])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == earlier


ENDINGS = (".bmp", ".tif", ".tiff", ".jpe", ".jpeg", ".JPG", ".png", ".webp", ".gif", ".jp2", ".avif", ".ppm", ".ras")


def test_a_folder_gives_each_ending_that_a_name_may_have_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    made = []
    for ending in ENDINGS:
        try:
            _, data = cv2.imencode(ending.lower(), COLORS[QUARTERS][:, :, ::-1])
        except cv2.error:  # older builds of OpenCV have no GIF, or no AVIF
            continue
        made.append(f"{ending[1:]}{ending}")
        (tmp_path / "in" / made[-1]).write_bytes(data.tobytes())
    assert len(made) > 8
    for name in ("notes.txt", "raw.CR2", "drive.json"):
        (tmp_path / "in" / name).write_bytes(b"no picture")
    run = rtseg("image", "in", "-o", "out", "--masks", "masks", "--model", MODEL, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert f"{len(made)} of {len(made)} images done" in run.stderr
    assert "in: left out 2 files with other endings (" in run.stderr
    written = {path.name for path in (tmp_path / "out").iterdir()}
    kept = (".jpeg", ".JPG", ".png", ".webp")
    assert written == {name if Path(name).suffix in kept else f"{Path(name).stem}.png" for name in made}
    for name in made:
        mask = cv2.imread(str(tmp_path / "masks" / f"{Path(name).stem}.png"), cv2.IMREAD_UNCHANGED)
        assert (mask == QUARTERS).mean() > 0.97, name


def test_a_single_picture_of_a_format_that_is_not_written_becomes_png(tmp_path: Path) -> None:
    for name in ("a.bmp", "photo"):
        assert name_images([tmp_path / name], tmp_path / "out") == [tmp_path / "out" / f"{Path(name).stem}.png"]
    assert name_images([tmp_path / "a.bmp"], None) == [tmp_path / "a.rtseg.png"]
    with pytest.raises(SinkError, match=r"a\.bmp and .*a\.png would both be written"):
        name_images([tmp_path / "a.bmp", tmp_path / "a.png"], tmp_path / "out")


def test_a_format_that_is_not_written_is_refused_before_work(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", QUARTERS)
    run = rtseg("image", "a.png", "-o", "o.tif", "--masks", "m", "--model", MODEL, cwd=tmp_path)
    told_in_one_line(run, "pictures are written as", "not '.tif'")
    assert not (tmp_path / "m").exists()


def test_masks_into_a_file_are_refused_before_work(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", COLORS[QUARTERS])
    write_image(tmp_path / "m.png", QUARTERS)
    before = (tmp_path / "m.png").read_bytes()
    run = rtseg("image", "a.png", "-o", "o.png", "--masks", "m.png", "--model", MODEL, cwd=tmp_path)
    told_in_one_line(run, "m.png is a file; --masks takes a folder")  # without the line about the model
    assert (tmp_path / "m.png").read_bytes() == before
    assert not (tmp_path / "o.png").exists()
