"""Zero-phase smoothing: stillness becomes still, motion keeps its time and its depth."""

import cv2
import numpy as np
import pytest

from prn_blender.prn.smooth import noise_of, rotation_vectors, rotations_of, smooth

FPS = 30.0


def test_noise_on_a_still_signal_falls_to_a_quarter():
    values = np.random.default_rng(0).normal(0, 1, (300, 4))
    result = smooth(values, FPS, 0.1)
    assert np.diff(result, axis=0).std() < 0.25 * np.diff(values, axis=0).std()
    np.testing.assert_allclose(result.mean(0), values.mean(0), atol=0.05)


def test_a_blink_keeps_its_depth_and_its_time():
    step = np.arange(200)
    blink = np.clip(1 - np.abs(step - 100) / 3.0, 0, 1)[:, None]  # shut for a fifth of a second
    noisy = blink + np.random.default_rng(1).normal(0, 0.02, blink.shape)
    result = smooth(noisy, FPS, 0.06)
    assert result.max() > 0.9 and abs(int(result.argmax()) - 100) <= 0
    assert np.diff(result[:80], axis=0).std() < 0.35 * np.diff(noisy[:80], axis=0).std()


def test_no_lag_on_a_steady_motion():
    ramp = np.linspace(0, 5, 120)[:, None] * [1.0, -2.0]
    np.testing.assert_allclose(smooth(ramp, FPS, 0.1), ramp, atol=1e-6)
    wave = np.sin(np.arange(150) / FPS * 2 * np.pi * 3)[:, None]  # three a second: consonants
    result = smooth(wave, FPS, 0.08)
    assert np.abs(result[10:-10]).max() > 0.9 and np.abs(result - wave)[10:-10].max() < 0.1


def test_groups_are_followed_together():
    rng = np.random.default_rng(2)
    step = np.arange(100)
    values = np.stack([np.where(step > 50, 1.0, 0.0) + rng.normal(0, 0.01, 100), rng.normal(0, 0.01, 100)], 1)
    together = smooth(values, FPS, 0.1, np.zeros(2, int))
    assert abs(together[49, 0]) < 0.35 and abs(together[52, 0] - 1) < 0.35


def test_who_never_stands_still_is_followed_by_what_noise_can_be_at_most():
    rng = np.random.default_rng(6)
    dance = np.repeat(rng.normal(0, 5, (60, 2)), 3, 0)[1:]          # elsewhere every tenth of a second
    noise = rng.normal(0, 0.1, dance.shape)
    assert np.abs(smooth(dance + noise, FPS, 0.1) - dance).max() > 3
    assert np.abs(smooth(dance + noise, FPS, 0.1, most=0.15) - dance).max() < 0.6
    # And what does stand still is none the less still.
    assert smooth(noise, FPS, 0.1, most=0.15).std() == pytest.approx(smooth(noise, FPS, 0.1).std(), rel=0.02)


def test_what_a_single_frame_says_is_no_motion():
    rng = np.random.default_rng(5)
    values = rng.normal(0, 0.01, (80, 1))
    values[40] += 0.9
    assert np.abs(smooth(values, FPS, 0.08)).max() < 0.05


def test_off_and_short():
    values = np.random.default_rng(3).normal(0, 1, (50, 3))
    np.testing.assert_array_equal(smooth(values, FPS, 0), values)
    for count in (1, 2, 3, 4):
        assert np.isfinite(smooth(values[:count], FPS, 0.1)).all()
    assert smooth(values[:, :0], FPS, 0.1).shape == (50, 0)


def test_noise_is_told_from_motion():
    step = np.arange(300) / FPS
    values = np.stack([3 * np.sin(2 * step), 3 * np.sin(2 * step) + np.random.default_rng(4).normal(0, 0.1, 300)], 1)
    quiet, noisy = noise_of(values)
    assert quiet < 0.02 and 0.08 < noisy < 0.12


def test_rotations_far_round_come_back():
    turns = np.array([cv2.Rodrigues(np.array([0.3, angle, 0.1]))[0] for angle in np.linspace(-1.4, 1.4, 20)])
    np.testing.assert_allclose(rotations_of(*rotation_vectors(turns)), turns, atol=1e-9)
