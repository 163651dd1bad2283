"""What is drawn of the rows of metrics.jsonl: curves, bands, and nothing of what is not there."""

import math
import sys

import numpy as np
import pytest

from tinygrad_llm.runs import plots
from tinygrad_llm.runs.plots import Panel, plot_alignments, plot_panels

pytest.importorskip("matplotlib")
PANELS = [
    Panel("score", {"eval/score": "score", "eval/true": "true score"}),
    Panel("KL", {"eval/kl": "held out"}),
    Panel("entropy", {"policy/entropy": "PPO", "entropy": "GRPO"}, (0, None)),
]
ROWS = [{"step": 5 * i, "eval/score": i / 2, "eval/score_interval": 0.25, "entropy": 1.0 - i / 4} for i in range(3)]


@pytest.fixture
def figures(monkeypatch):
    drawn, write = [], plots._write

    def spy(figure, path):
        drawn.append(figure)
        write(figure, path)

    monkeypatch.setattr(plots, "_write", spy)
    return drawn


def test_curves_and_bands(figures, tmp_path):
    assert plot_panels(tmp_path / "a.png", ROWS, PANELS)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    score, entropy = figures[0].axes  # there is no KL
    assert (score.get_ylabel(), entropy.get_ylabel()) == ("score", "entropy")
    (line,) = score.lines
    np.testing.assert_array_equal(line.get_xydata(), [[0, 0], [5, 0.5], [10, 1.0]])
    (band,) = score.collections
    low, high = (extreme(band.get_paths()[0].vertices[:, 1]) for extreme in (np.min, np.max))
    assert (low, high) == (-0.25, 1.25)
    assert [line.get_label() for line in (*score.lines, *entropy.lines)] == ["score", "GRPO"]
    assert entropy.get_ylim()[0] == 0


@pytest.mark.parametrize("strange", [math.nan, math.inf, None, "x", [], 10**400])
def test_what_is_no_number_is_left_out(figures, tmp_path, strange):
    rows = [*ROWS, {"step": 15, "eval/score": strange, "eval/score_interval": 0.5, "eval/kl": strange}]
    assert plot_panels(tmp_path / "a.png", rows, PANELS)
    assert len(figures[0].axes) == 2
    assert len(figures[0].axes[0].lines[0].get_xydata()) == 3


def test_a_run_of_which_nothing_is_known_yet(figures, tmp_path):
    assert plot_panels(tmp_path / "a.png", [{"step": 0}], PANELS)
    assert (tmp_path / "a.png").exists()


def test_where_texts_have_looked(figures, tmp_path):
    weights = np.random.RandomState(0).dirichlet(np.ones(3), 2)  # (2, 3)
    pairs = [(["a", "$b$", "c_{d"], ["A", "$B"], weights), (["e"], ["E"], np.ones((1, 1)))]
    assert plot_alignments(tmp_path / "a.png", pairs)
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    first, second = figures[0].axes
    np.testing.assert_array_equal(first.images[0].get_array(), weights)
    assert [label.get_text() for label in first.get_xticklabels()] == ["a", r"\$b\$", "c_{d"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["A", r"\$B"]
    assert second.images[0].get_array().shape == (1, 1)


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not plot_panels(tmp_path / "a.png", ROWS, PANELS)
    assert not (tmp_path / "a.png").exists()
