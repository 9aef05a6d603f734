"""The report as tables, plots and a page."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from voices import SAMPLES, BandEncoder

from voiceprint import InvalidArgumentError
from voiceprint.audio.simulate import AS_IS, Condition
from voiceprint.evaluation import Estimate, Report, Settings, evaluate, page, plots
from voiceprint.evaluation.curves import histogram, probit, thin
from voiceprint.evaluation.tables import cost, rate, remarks, tables

pytestmark = pytest.mark.slow

NAMES = ["det.png", "fpir.png", "identification.png", "report.html", "report.json", "scores.png"]


@pytest.fixture(scope="module")
def report() -> Report:
    settings = Settings(
        probe=(AS_IS, Condition("telephone")), durations_s=(1.0,), gallery=(3, 5), splits=5, resamples=30
    )
    return evaluate(SAMPLES, settings, encoder=BandEncoder())


def test_figures_come_with_their_interval() -> None:
    assert rate(Estimate(0.0123, 0.004, 0.031)) == "1.2 % [0.4, 3.1]"
    assert rate(Estimate(0.5)) == "50.0 %"
    assert cost(Estimate(0.1234, 0.1, 0.2)) == "0.123 [0.10, 0.20]"
    assert (rate(None), cost(None)) == ("-", "-")


def test_every_run_and_gallery_has_its_rows(report: Report) -> None:
    made = {table.title: table for table in tables(report)}
    assert list(made) == ["Runs", "Verification", "Identification", "Thresholds"]
    assert [row[:4] for row in made["Runs"].rows] == [
        ("1", "as-is", "as-is", "1 s"),
        ("2", "as-is", "telephone", "1 s"),
    ]
    for title in ("Identification", "Thresholds"):
        assert [row[:2] for row in made[title].rows] == [("1", "3"), ("1", "5"), ("2", "3"), ("2", "5")]
    assert made["Thresholds"].columns[2] == "FPIR at 0.75"
    assert all(len(row) == len(table.columns) for table in made.values() for row in table.rows)


def test_equal_remarks_of_several_runs_are_said_once(report: Report) -> None:
    said = remarks(report)
    assert len(said) == len(set(said))
    assert any("FNIR at FPIR 1 %" in remark and not remark.startswith("Run") for remark in said)


def test_the_page_needs_nothing_beside_it_and_shows_every_table_and_plot(
    report: Report, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    assert sorted(path.name for path in page.write(report, tmp_path / "new/folder")) == NAMES
    text = (tmp_path / "new/folder/report.html").read_text()
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            links.extend(value or "" for name, value in attributes if name in ("src", "href"))

    Links().feed(text)
    assert len(links) == 4
    shown = [base64.b64decode(link.removeprefix("data:image/png;base64,")) for link in links]
    assert shown == [
        (tmp_path / f"new/folder/{n}.png").read_bytes() for n in ("det", "scores", "identification", "fpir")
    ]
    for table in tables(report):
        assert f"<h2>{table.title}</h2>" in text
        for row in table.rows:
            assert all(f"<td>{cell}</td>" in text for cell in row)


def test_the_page_begins_with_the_sessions_and_ends_in_the_recommendation(report: Report) -> None:
    text = page.as_page(report, {})
    places = [
        text.index(part) for part in ("Sessions: 9 of 9 speakers", "<h2>Runs", "<h2>Recommendation for")
    ]
    assert places == sorted(places)
    assert "At your setting (VOICE_SIMILARITY_THRESHOLD=0.75) " in text


def test_rates_are_explained_where_they_stand(report: Report) -> None:
    (verification,) = [table for table in tables(report) if table.title == "Verification"]
    for name in ("EER: ", "minDCF: ", "Cllr: "):
        assert name in verification.explanation


def test_scores_have_an_axis_each_with_the_settings_that_can_be_set(report: Report) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    cosine, other = report.runs
    assert cosine.histogram is not None
    assert cosine.histogram.settings == (("VOICE_SIMILARITY_THRESHOLD=0.75", 0.75),)
    ratios = replace(cosine.histogram, low=-20.0, high=30.0, settings=(("VOICE_TARGET_FPIR=0.01", 4.0),))
    runs = [(1, cosine), (2, replace(other, scorer="llr", histogram=ratios))]
    figure = Figure()
    plots._scores(figure, runs)
    left, right = figure.axes
    assert right.get_xlim() == (-20.0, 30.0)
    assert left.get_xlim() == (cosine.histogram.low, cosine.histogram.high)
    assert [axes.get_xlabel() for axes in (left, right)] == ["cosine", "log-likelihood ratio (llr)"]
    labels = [axes.get_legend().get_texts()[0].get_text() for axes in (left, right)]
    assert labels == ["VOICE_SIMILARITY_THRESHOLD=0.75", "VOICE_TARGET_FPIR=0.01"]


def test_names_of_folders_and_speakers_cannot_put_anything_into_the_page(report: Report) -> None:
    evil = replace(report, folders=("<script>alert(1)</script>",))
    assert "<script>" not in page.as_page(evil, {})


def test_plots_are_drawn_the_same_each_time_and_hold_something(report: Report) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    once, again = plots.draw(report), plots.draw(report)
    assert once == again
    assert list(once) == ["det", "scores", "identification", "fpir"]
    for png in once.values():
        pixels = imread(io.BytesIO(png))
        assert pixels.shape[0] > 400
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20


def test_without_unknown_speakers_there_are_no_plots_of_them(report: Report) -> None:
    pytest.importorskip("matplotlib")
    runs = tuple(replace(run, open_set=(), thresholds=()) for run in report.runs)
    assert list(plots.draw(replace(report, runs=runs))) == ["det", "scores"]


def test_with_one_size_of_gallery_there_is_no_plot_of_how_it_grows(report: Report) -> None:
    pytest.importorskip("matplotlib")
    runs = tuple(replace(run, open_set=run.open_set[:1]) for run in report.runs)
    assert list(plots.draw(replace(report, runs=runs))) == ["det", "scores", "identification"]


def test_a_folder_that_cannot_be_written_is_an_error(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidArgumentError, match="cannot make the folder"):
        page.write(report, tmp_path / "file")
    (tmp_path / "out/report.json").mkdir(parents=True)
    with pytest.raises(InvalidArgumentError, match="cannot write to the folder"):
        page.write(report, tmp_path / "out")


def test_a_report_replaces_a_report_and_no_other_file(report: Report, tmp_path: Path) -> None:
    for path in page.write(report, tmp_path):
        assert path.stat().st_mode & 0o777 == 0o600
    files = {path.name: path.read_bytes() for path in page.write(report, tmp_path)}
    for name in files:
        Path(tmp_path, name).write_bytes(b"a letter")
        with pytest.raises(InvalidArgumentError, match="is there already and is not the"):
            page.write(report, tmp_path)
        assert Path(tmp_path, name).read_bytes() == b"a letter"
        Path(tmp_path, name).unlink()
    page.write(report, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_the_page_is_the_same_each_time(report: Report) -> None:
    assert page.as_page(report, {}) == page.as_page(report, {})
    assert not re.search(r"20\d\d-\d\d-\d\d", page.as_page(report, {})), "no date"


# Curves


def test_probits_are_the_quantiles_of_the_normal_distribution() -> None:
    assert probit([0.5, 0.8413447]) == pytest.approx([0, 1], abs=1e-6)
    assert np.isfinite(probit([0.0, 1.0])).all()


def test_a_thinned_curve_keeps_its_ends_and_its_shape() -> None:
    xs = np.linspace(0, 1, 20_001)
    ys = (1 - xs) ** 3
    points = np.array(thin(xs, ys))
    assert len(points) < 1000
    assert points[0].tolist() == [0, 1]
    assert points[-1].tolist() == [1, 0]
    assert np.interp(xs, points[:, 0], points[:, 1]) == pytest.approx(ys, abs=0.02)
    assert thin(np.array([]), np.array([])) == ()


def test_a_histogram_holds_all_scores() -> None:
    low, high, (some, none) = histogram([np.array([0.1, 0.1, 0.9]), np.array([])])
    assert (low, high) == (0.1, 0.9)
    assert (some[0], some[-1], sum(some)) == pytest.approx((2 / 3, 1 / 3, 1))
    assert set(none) == {0.0}
    assert histogram([np.array([0.5])])[:2] == (0.0, 1.0)
