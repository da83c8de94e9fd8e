"""`rtseg image`: formats, orientation, folders, masks and invalid files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command import MODEL, assert_one_error_line, rtseg

from rtseg.core.errors import SinkError, SourceError
from rtseg.core.palette import CAMVID_CLASSES, NO_CLASS, STREET
from rtseg.inference.segmenter import Segmenter
from rtseg.render.style import Style
from rtseg.video.image import find_images, name_images, name_masks, process_image, read_image, write_image

COLORS = np.array([STREET[name] for name in CAMVID_CLASSES], dtype=np.uint8)
QUADRANTS = np.kron(np.array([[0, 3], [5, 8]], np.uint8), np.ones((96, 160), np.uint8))
"""Class map, 320x192, with sky, road, tree and car in one quadrant each."""


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(MODEL)


def read_mask(path: Path) -> Any:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_image_formats_are_read_and_written(segmenter: Segmenter, tmp_path: Path, suffix: str) -> None:
    source, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    write_image(source, COLORS[QUADRANTS])
    overlay = Style(alpha=1.0).overlay(segmenter.description)
    classes = process_image(source, out, segmenter, overlay, masks=tmp_path / "masks")
    assert (classes == QUADRANTS).mean() > 0.97
    assert np.abs(read_image(out).astype(int) - COLORS[classes]).mean() < 4
    assert np.array_equal(read_mask(tmp_path / "masks" / "in.png"), classes)


def test_only_colors_the_selected_classes(segmenter: Segmenter, tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", COLORS[QUADRANTS])
    overlay = Style(alpha=1.0, palette="camvid", only=("road",)).overlay(segmenter.description)
    process_image(tmp_path / "in.png", tmp_path / "out.png", segmenter, overlay, masks=tmp_path / "masks")
    rendered = read_image(tmp_path / "out.png")
    assert rendered[40, 240].tolist() == [128, 64, 128]
    assert rendered[40, 40].tolist() == COLORS[0].tolist()
    assert set(np.unique(read_mask(tmp_path / "masks" / "in.png"))) == {3, NO_CLASS}


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    """Orientation 6: the image must be rotated clockwise."""
    _, jpeg = cv2.imencode(".jpg", COLORS[QUADRANTS][:, :, ::-1])
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    body = b"Exif\0\0" + tiff
    data = jpeg.tobytes()
    (tmp_path / "phone.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    image = read_image(tmp_path / "phone.jpg")
    assert image.shape == (320, 192, 3)
    assert np.abs(image[40, 40].astype(int) - COLORS[5]).max() < 20  # the lower left quadrant is now the upper left one


def test_alpha_gray_and_16_bit_images_are_read(tmp_path: Path) -> None:
    images = {
        "alpha.png": np.full((20, 30, 4), 128, np.uint8),
        "gray.png": np.full((20, 30), 128, np.uint8),
        "deep.png": np.full((20, 30, 3), 128 * 257, np.uint16),
    }
    for name, data in images.items():
        cv2.imwrite(str(tmp_path / name), data)
        image = read_image(tmp_path / name)
        assert image.shape == (20, 30, 3)
        assert image.dtype == np.uint8
        assert abs(int(image.mean()) - 128) <= 1


def test_invalid_images_and_names_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("text")
    for name, message in (
        ("missing.jpg", "no image"),
        ("empty.jpg", "not a readable image"),
        ("text.png", "not a readable image"),
        (".", "folder"),
    ):
        with pytest.raises(SourceError, match=message):
            read_image(tmp_path / name)
    with pytest.raises(SinkError, match="tiff"):
        write_image(tmp_path / "out.tiff", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(SinkError, match="can't be written"):
        write_image(tmp_path / "text.png" / "out.png", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "none").mkdir()
    with pytest.raises(SourceError, match="no images in the folder"):
        find_images([str(tmp_path / "none")])


def test_output_names_do_not_collide(tmp_path: Path) -> None:
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


def test_results_are_skipped_in_a_second_run(segmenter: Segmenter, tmp_path: Path) -> None:
    """Results next to the inputs, in a subfolder, and as class maps among the inputs, in each format."""
    for name in ("a.png", "b.JPG", "c.webp"):
        write_image(tmp_path / name, COLORS[QUADRANTS])
    overlay = Style().overlay(segmenter.description)

    def run(patterns: list[str], output: Path | None, masks: Path | None) -> list[str]:
        found = find_images(patterns, results=[str(folder) for folder in (output, masks) if folder])
        if masks:
            name_masks(found, masks)
        for path, target in zip(found, name_images(found, output), strict=True):
            process_image(path, target, segmenter, overlay, masks=masks)
        return [str(path.relative_to(tmp_path)) for path in found]

    all_files = [str(tmp_path / "**" / "*.*")]
    for _ in range(2):
        assert run([str(tmp_path)], None, None) == ["a.png", "b.JPG", "c.webp"]
        assert run(all_files, tmp_path / "out", tmp_path / "out" / "masks") == ["a.png", "b.JPG", "c.webp"]
        assert run([str(tmp_path / "b.JPG"), str(tmp_path / "c.webp")], tmp_path / "o", tmp_path) == ["b.JPG", "c.webp"]
    assert {path.name for path in tmp_path.glob("*.png")} == {"a.png", "a.rtseg.png", "b.png", "c.png"}
    named = tmp_path / "a.rtseg.png"
    assert find_images([str(named)]) == [named]  # a file that is named is taken


def test_a_class_map_never_replaces_the_users_file(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for name in ("a.jpg", "labels/a.png", "b.jpg", "b.png"):
        write_image(tmp_path / name, QUADRANTS)
    with pytest.raises(SinkError, match="not an image that rtseg wrote"):
        name_masks([tmp_path / "a.jpg"], tmp_path / "labels")
    with pytest.raises(SinkError, match="both"):
        name_masks([tmp_path / "b.jpg", tmp_path / "b.png"], tmp_path / "masks")
    write_image(tmp_path / "labels" / "a.png", QUADRANTS, mark=True)
    assert name_masks([tmp_path / "a.jpg"], tmp_path / "labels") == [tmp_path / "labels" / "a.png"]


def test_system_files_among_images_are_left_out(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", "@eaDir/a.png/THUMB.png", "sub/b.png", "#recycle/old.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / name, QUADRANTS)
    (tmp_path / "b.cr2").touch()
    messages: list[str] = []
    assert find_images([str(tmp_path)], log=messages.append) == [tmp_path / "a.png"]
    assert messages == [f"{tmp_path}: left out 1 file with other endings (.cr2 1), 1 folder (sub)"]
    assert find_images([str(tmp_path / "**" / "*.png")]) == [tmp_path / "a.png", tmp_path / "sub" / "b.png"]
    assert find_images([str(tmp_path / "#recycle" / "*.png")]) == [tmp_path / "#recycle" / "old.png"]


def test_interrupt_keeps_the_earlier_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.png", QUADRANTS)
    earlier = (tmp_path / "a.png").read_bytes()
    write_bytes = Path.write_bytes

    def interrupt(path: Path, data: bytes) -> int:
        write_bytes(path, data[: len(data) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / "a.png", QUADRANTS[:, ::-1])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == earlier


ENDINGS = (".bmp", ".tif", ".tiff", ".jpe", ".jpeg", ".JPG", ".png", ".webp", ".gif", ".jp2", ".avif", ".ppm", ".ras")


def test_folder_search_reads_every_ending_and_reports_skipped_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = []
    for ending in ENDINGS:
        try:
            _, data = cv2.imencode(ending.lower(), COLORS[QUADRANTS][:, :, ::-1])
        except cv2.error:  # older builds of OpenCV have no GIF, or no AVIF
            continue
        names.append(f"{ending[1:]}{ending}")
        (tmp_path / "in" / names[-1]).write_bytes(data.tobytes())
    assert len(names) > 8
    for name in ("notes.txt", "raw.CR2", "video.json"):
        (tmp_path / "in" / name).write_bytes(b"no image")
    run = rtseg("image", "in", "-o", "out", "--masks", "masks", "--model", MODEL, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert f"{len(names)} of {len(names)} images done" in run.stderr
    assert "in: left out 2 files with other endings (" in run.stderr
    written = {path.name for path in (tmp_path / "out").iterdir()}
    kept_suffixes = (".jpeg", ".JPG", ".png", ".webp")
    assert written == {name if Path(name).suffix in kept_suffixes else f"{Path(name).stem}.png" for name in names}
    for name in names:
        assert (read_mask(tmp_path / "masks" / f"{Path(name).stem}.png") == QUADRANTS).mean() > 0.97, name


def test_image_in_unwritable_format_becomes_png(tmp_path: Path) -> None:
    for name in ("a.bmp", "photo"):
        assert name_images([tmp_path / name], tmp_path / "out") == [tmp_path / "out" / f"{Path(name).stem}.png"]
    assert name_images([tmp_path / "a.bmp"], None) == [tmp_path / "a.rtseg.png"]
    with pytest.raises(SinkError, match=r"a\.bmp and .*a\.png would both be written"):
        name_images([tmp_path / "a.bmp", tmp_path / "a.png"], tmp_path / "out")


def test_unwritable_output_is_refused_before_processing(tmp_path: Path) -> None:
    for name in ("a.png", "m.png"):
        write_image(tmp_path / name, QUADRANTS)
    before = (tmp_path / "m.png").read_bytes()
    for output, masks, message in (
        ("o.tif", "m", "images are written as .jpeg, .jpg, .png, .webp, not '.tif'"),
        ("o.png", "m.png", "m.png is a file; --masks takes a folder"),
    ):
        run = rtseg("image", "a.png", "-o", output, "--masks", masks, "--model", MODEL, cwd=tmp_path)
        assert_one_error_line(run, message)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "m.png"}
    assert (tmp_path / "m.png").read_bytes() == before
