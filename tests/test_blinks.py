"""Shut eyes are shut and blinks close, and nothing else does."""

import numpy as np

from prn_blender.prn.blinks import LIDS, closed, completed, shut

FPS = 30.0


def take(*events: tuple[int, float, float, float]) -> np.ndarray:
    """(120, 52) weights; an event: its frame, peak and half width in frames, and the share that the other lid has of it."""
    weights, step = np.full((120, 52), 0.05), np.arange(120)
    for frame, peak, width, share in events:
        bump = peak * np.clip(1 - np.abs(step - frame) / width, 0, 1)
        weights[:, LIDS[0]] += bump
        weights[:, LIDS[1]] += share * bump
    return weights


def test_an_eye_of_which_the_network_is_surer_than_not_is_shut():
    weights = np.full((5, 52), 0.1)
    weights[:, LIDS[0]] = 0.2, 0.46, 0.51, 0.56, 0.9
    np.testing.assert_allclose(shut(weights)[:, 0], [0, 0, 0.5, 1, 1], atol=1e-9)
    after = closed(weights)
    np.testing.assert_allclose(after[:, LIDS[0]], [0.2, 0.46, 0.755, 1, 1])
    others = np.delete(np.arange(52), LIDS[0])
    assert (after[:, others] == 0.1).all() and weights[3, LIDS[0]] == 0.56       # what was given stays
    np.testing.assert_allclose(closed(weights[2]), after[2])                    # one face's as well


def test_a_blink_closes_both_eyes_and_the_rest_stays():
    before = take((60, 0.4, 4, 0.8))
    after = completed(before, FPS)
    np.testing.assert_allclose(after[60, LIDS], 1)
    assert (after[:55] == before[:55]).all() and (after[66:] == before[66:]).all()
    others = np.delete(np.arange(52), LIDS)
    assert (after[:, others] == before[:, others]).all()
    # Closing and opening as it did, only farther.
    assert (np.diff(after[56:61, LIDS[0]]) > 0).all() and (np.diff(after[60:65, LIDS[0]]) < 0).all()
    assert (after >= before).all()


def test_two_blinks_in_a_row():
    after = completed(take((50, 0.5, 4, 1), (66, 0.45, 4, 1)), FPS)
    np.testing.assert_allclose(after[[50, 66]][:, LIDS], 1)
    assert after[58, LIDS[0]] < 0.1


def test_a_wink_leaves_the_other_eye_open():
    after = completed(take((60, 0.5, 4, 0.1)), FPS)
    assert after[60, LIDS[0]] > 0.999 and after[60, LIDS[1]] < 0.2


def test_squints_flutter_and_eyes_kept_shut_stay_as_they_are():
    squint = take()
    squint[30:80, LIDS] = 0.5
    flutter = take(*((frame, 0.15, 3, 1) for frame in range(20, 100, 8)))
    slow = take((60, 0.5, 25, 1))
    for before in (squint, flutter, slow, take()):
        np.testing.assert_array_equal(completed(before, FPS), before)


def test_a_blink_out_of_a_squint_goes_back_to_it():
    before = take((60, 0.4, 4, 1))
    before[30:90, LIDS] += 0.3
    after = completed(before, FPS)
    np.testing.assert_allclose(after[60, LIDS], 1)
    np.testing.assert_array_equal(after[70:85], before[70:85])


def test_a_blink_at_the_end_and_other_rates():
    for fps in (24.0, 60.0):
        width = 4 * fps / 30
        assert completed(take((60, 0.4, width, 1)), fps)[60, LIDS[0]] > 0.999
    before = take((119, 0.4, 4, 1))  # not over yet: nobody knows
    np.testing.assert_array_equal(completed(before, FPS), before)
