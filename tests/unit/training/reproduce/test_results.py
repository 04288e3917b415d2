"""The page of the comparison is what the committed figures render to, and there is none without figures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.training.reproduce.test_table2 import MADE
from training.errors import ConfigInvalidError
from training.reproduce.experiment import Curves, Dot, Line, Plot, Report, Section
from training.reproduce.render import write_report
from training.reproduce.results import FOLDER, PAGE, PICTURE, report_of, results_pages, write_results
from training.reproduce.verdict import Finding

DOCS = Path(__file__).parents[4] / "docs"
REPORT = Report(
    title="Table II: ablation",
    sections=(Section(title="KID", header=("row", "mean", "paper: FID"), rows=(("a | b", "1.0", "53.08"),)),),
    notes=("A note.",),
    figures={"rows": [{"name": "a", "digest": "0" * 64}]},
    plots=(Plot(title="KID", axis="less is better", dots=(Dot(label="a", value=1.0, sd=0.5),)),),
    curves=(
        Curves(
            title="c", axis="y", along="x", places=("1",), lines=(Line(label="l", values=((1.0, None),)),)
        ),
    ),
    findings=(
        Finding(kind="holds", text="The first is better."),
        Finding(kind="open", text="The second, nobody knows."),
    ),
)


def write(out: Path, name: str = "table2", report: Report = REPORT) -> None:
    write_report(report, name, out, MADE)


def test_committed_page_is_what_the_committed_figures_render_to() -> None:
    pages = results_pages(DOCS)
    written = [path for path in (DOCS / PAGE, *(DOCS / FOLDER).glob("*.svg")) if path.exists()]

    assert sorted(pages) == sorted(written), "masan reproduce results --out docs/results"
    for path, text in pages.items():
        assert path.read_text() == text, "masan reproduce results --out docs/results"


def test_every_number_of_the_page_comes_from_the_figures(tmp_path: Path) -> None:
    write(tmp_path / "out")

    written = write_results(tmp_path / "out", tmp_path)

    names = [path.relative_to(tmp_path).as_posix() for path in written]
    assert names == [f"{FOLDER}/table2.json", PAGE, f"{FOLDER}/table2.svg"]
    page = (tmp_path / PAGE).read_text()
    assert "| a \\| b | 1.0 | 53.08 |" in page
    assert "Scaled down against the paper: seeds 3 -> 1." in page
    assert "masan reproduce table2\n```" in page
    assert "### As the paper reports\n\n- The first is better.\n" in page
    assert "### Too small to tell\n\n- The second, nobody knows.\n" in page
    assert "| Table II: ablation | 1 | 0 | 0 | 1 |" in page
    assert f"]({FOLDER}/table2.svg)" in page
    assert "Not run yet: Table I: augmentation (`masan reproduce table1`), Figure 3" in page

    document = json.loads((tmp_path / FOLDER / "table2.json").read_text())
    document["sections"][0]["rows"][0][1] = "2.0"
    (tmp_path / FOLDER / "table2.json").write_text(json.dumps(document))
    assert "| a \\| b | 2.0 | 53.08 |" in results_pages(tmp_path)[tmp_path / PAGE]


def test_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "table2.json"

    assert report_of(json.loads(path.read_text()), path) == REPORT


def test_tables_of_another_folder_stay(tmp_path: Path) -> None:
    write(tmp_path / "cpu", "table2")
    write(tmp_path / "gpu", "table1", replace(REPORT, title="Table I"))

    write_results(tmp_path / "cpu", tmp_path / "docs")
    write_results(tmp_path / "gpu", tmp_path / "docs")

    page = (tmp_path / "docs" / PAGE).read_text()
    assert page.index("## Table I\n") < page.index("## Table II: ablation\n")


def test_picture_of_generated_images_is_taken_over_and_never_the_one_with_real_ones(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "figure3", replace(REPORT, title="Figure 3", plots=(), curves=(), findings=()))
    name = "figure3-with-real-images-do-not-share.png"
    Image.new("RGB", (8, 8), (255, 0, 0)).save(out / name)

    write_results(out, tmp_path)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["figure3.json"]

    Image.new("RGB", (8, 8), (0, 0, 255)).save(out / "figure3.png")
    write_results(out, tmp_path)
    with Image.open(tmp_path / FOLDER / PICTURE) as picture:
        red, _, blue = picture.convert("RGB").getpixel((4, 4))  # type: ignore[misc]
    assert blue > 200 > red
    assert f"![Figure 3]({FOLDER}/{PICTURE})" in (tmp_path / PAGE).read_text()


def test_no_figures_make_no_page(tmp_path: Path) -> None:
    assert results_pages(tmp_path) == {}
    with pytest.raises(ConfigInvalidError, match=r"holds no finished table, such as .*table2\.json"):
        write_results(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"table2\.json is no JSON file"),
        ('{"title": "t", "notes": [], "figures": {}}', "was written by another version; run its command"),
        ("[1]", "was written by another version"),
    ],
)
def test_file_that_cannot_be_read_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "table2.json").write_text(content)

    with pytest.raises(ConfigInvalidError, match=message):
        write_results(tmp_path, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()
