"""Figures against values worked out by hand and by scikit-learn."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from inference import InputError
from training.metrics import (
    Answered,
    Bin,
    abstain,
    accuracy_change,
    calibration_error,
    decide,
    intervals,
    measure,
    reliability,
    wilson,
)


def test_single_label_figures_equal_scikit_learns():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(4), size=200).astype(np.float32)
    true = generator.integers(0, 3, size=200)  # the fourth label never occurs, but is predicted
    given = probabilities.argmax(axis=1)

    metrics = measure(probabilities, np.eye(4, dtype=bool)[true], ["a", "b", "c", "d"])

    expected = precision_recall_fscore_support(true, given, labels=range(4), zero_division=0)
    np.testing.assert_allclose([m.precision for m in metrics.labels], expected[0])
    np.testing.assert_allclose([m.recall for m in metrics.labels], expected[1])
    np.testing.assert_allclose([m.f1 for m in metrics.labels], expected[2])
    assert [m.support for m in metrics.labels] == expected[3].tolist()
    assert metrics.accuracy == pytest.approx(accuracy_score(true, given))
    assert metrics.macro_f1 == pytest.approx(expected[2].mean())
    counted = confusion_matrix(true, given, labels=range(4))
    assert [count for count, _, _ in metrics.mistakes(99)] == sorted(counted[~np.eye(4, dtype=bool)], reverse=True)[
        : np.count_nonzero(counted[~np.eye(4, dtype=bool)])
    ]
    assert np.array_equal(metrics.confusion, confusion_matrix(true, given, labels=range(4)))


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_that_are_no_numbers_are_refused(multi_label):
    probabilities = np.full((3, 2), 0.5, dtype=np.float32)
    probabilities[1] = np.nan

    with pytest.raises(InputError, match="scores of 1 of 3 rows are not numbers"):
        measure(probabilities, np.eye(3, 2, dtype=bool), ["a", "b"], multi_label=multi_label)


def test_no_interval_reaches_past_what_is_possible():
    _, low, high = accuracy_change(np.array([False]), np.array([True]))
    assert -1 <= low < high == 1


def test_multi_label_figures_use_the_thresholds():
    probabilities = np.array([[0.6, 0.2], [0.6, 0.4], [0.1, 0.1]], dtype=np.float32)
    truth = np.array([[1, 0], [1, 1], [0, 0]], dtype=bool)

    assert measure(probabilities, truth, ["a", "b"], multi_label=True).accuracy == pytest.approx(2 / 3)
    lowered = measure(probabilities, truth, ["a", "b"], multi_label=True, thresholds=(0.5, 0.3))
    assert lowered.accuracy == 1
    assert lowered.confusion is None


def test_calibration_error_is_the_gap_of_confidence_to_accuracy():
    """Of four decisions at 0.9 three are right (gap 0.15); of two at 0.6 both are (gap 0.4)."""
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.6, 0.6], dtype=np.float32)
    correct = np.array([1, 1, 1, 0, 1, 1], dtype=bool)

    assert calibration_error(confidence, correct) == pytest.approx((4 * 0.15 + 2 * 0.4) / 6, abs=1e-6)


@pytest.mark.parametrize(
    ("gained", "lost", "rows", "expected"),
    [
        (0, 0, 98, (0.0, -0.0196, 0.0196)),  # no difference in few rows is no proof
        (0, 0, 9998, (0.0, -0.000196, 0.000196)),
        (3, 1, 400, (0.005, -0.00592, 0.01587)),
        (0, 10, 400, (-0.025, -0.04086, -0.00889)),
    ],
)
def test_a_change_of_accuracy_has_the_interval_of_paired_rows(gained, lost, rows, expected):
    before, after = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    after[:gained] = True
    before[gained : gained + lost] = True
    before[-50:] = after[-50:] = True  # what both have right says nothing of their difference

    assert accuracy_change(before, after) == pytest.approx(expected, abs=1e-5)


def test_what_is_given_follows_the_thresholds_or_the_best():
    probabilities = np.array([[0.5, 0.2, 0.3], [0.4, 0.4, 0.2]], dtype=np.float32)

    assert decide(probabilities).tolist() == [[True, False, False], [True, False, False]]
    assert decide(probabilities, multi_label=True).tolist() == [[True, False, False], [False, False, False]]
    several = decide(probabilities, multi_label=True, thresholds=(0.6, 0.2, 0.3))
    assert several.tolist() == [[False, True, True], [False, True, False]]


def test_bins_hold_confidence_accuracy_and_rows():
    bins = reliability(np.array([0.95, 0.97, 1.0, 0.01], dtype=np.float32), np.array([1, 1, 0, 0], dtype=bool))

    assert len(bins) == 15
    assert bins[-1] == Bin(3, pytest.approx(0.97333, abs=1e-4), pytest.approx(2 / 3))
    assert bins[0] == Bin(1, pytest.approx(0.01), 0)
    assert bins[7] == Bin(0, 0, 0)


def test_the_bootstrap_of_accuracy_has_the_width_of_the_binomial():
    """1,000 rows of which 900 are right: the standard error is sqrt(.9 * .1 / 1000), whatever makes the interval."""
    truth = np.eye(2, dtype=bool)[np.zeros(1000, dtype=int)]
    decided = np.eye(2, dtype=bool)[(np.arange(1000) < 100).astype(int)]

    found = intervals(decided, truth)

    expected = 1.96 * np.sqrt(0.9 * 0.1 / 1000)
    assert found.accuracy == pytest.approx((0.9 - expected, 0.9 + expected), abs=0.004)
    assert found == intervals(decided, truth), "the seed is fixed"


@pytest.mark.parametrize(
    ("rows", "right", "ends"), [(1, True, (0.207, 1)), (10, False, (0, 0.278)), (500, True, (0.992, 1))]
)
def test_rows_that_are_all_right_or_all_wrong_leave_room_for_others(rows, right, ends):
    """No draw of them has any other; Wilson's ends are rows / (rows + 1.96²) and 1."""
    truth = np.eye(2, dtype=bool)[np.zeros(rows, dtype=int)]
    assert intervals(truth if right else ~truth, truth).accuracy == pytest.approx(ends, abs=1e-3)


@pytest.mark.parametrize(("right", "rows"), [(97, 100), (1, 2), (0, 7), (7, 7), (2900, 3080)])
def test_the_interval_of_an_accuracy_is_wilsons(right, rows):
    expected = binomtest(right, rows).proportion_ci(method="wilson")
    assert wilson(right / rows, rows) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_bootstrap_equals_one_that_measures_every_resample():
    """Sums of weighted columns are a shortcut; measuring the drawn rows anew is what they stand for."""
    generator = np.random.default_rng(1)
    probabilities = generator.dirichlet(np.ones(4), size=60).astype(np.float32)
    truth = np.eye(4, dtype=bool)[generator.integers(0, 3, size=60)]

    found = intervals(decide(probabilities), truth, resamples=50)

    draws = np.random.default_rng(0).integers(60, size=(50, 60))
    measured = [measure(probabilities[draw], truth[draw], "abcd") for draw in draws]
    middle = [np.quantile([m.macro_f1 for m in measured], end) for end in (0.025, 0.975)]
    assert found.macro_f1 == pytest.approx(tuple(middle))
    f1 = [[m.labels[i].f1 for m in measured if m.labels[i].support or m.labels[i].precision] for i in range(3)]
    for ends, values in zip(found.f1, f1, strict=False):
        assert ends == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_a_label_that_is_nowhere_has_no_interval():
    truth = np.array([[1, 0, 0], [0, 1, 0]] * 10, dtype=bool)

    found = intervals(truth, truth)

    assert found.f1 == ((1, 1), (1, 1), None)
    assert found.macro_f1 == (1, 1)


def test_resampling_in_parts_changes_nothing(monkeypatch):
    truth = np.eye(3, dtype=bool)[np.random.default_rng(0).integers(0, 3, size=50)]
    whole = intervals(truth[::-1], truth)
    monkeypatch.setattr("training.resampling.DRAWN_AT_ONCE", 500)

    assert intervals(truth[::-1], truth) == whole


def test_abstaining_trades_coverage_for_precision():
    confidence = np.array([0.9, 0.5, 0.7, 0.7], dtype=np.float32)
    correct = np.array([1, 0, 1, 0], dtype=bool)

    assert abstain(confidence, correct, [0, float(np.float32(0.7)), 0.8, 0.95]) == (
        Answered(0.0, 1.0, 0.5),
        Answered(float(np.float32(0.7)), 0.75, pytest.approx(2 / 3)),
        Answered(0.8, 0.25, 1.0),
        Answered(0.95, 0.0, None),
    )
