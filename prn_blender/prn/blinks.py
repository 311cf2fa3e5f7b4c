"""Eyes that are shut, and blinks that close them: a network trained on photographs calls shut lids half shut, because its labels do.

MediaPipe's score of a shut eye is about a half. From there on an eye is shut (`shut`), in a photograph and in a take. In a take a blink is
told, besides, by how fast it comes and goes, and nearly every blink closes the eye. Pure numbers.
"""

from __future__ import annotations

import numpy as np

from .arkit import ARKIT_NAMES

LIDS = [ARKIT_NAMES.index(name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
# The network's weight of a blink from which an eye is likelier shut than not, and from which it is shut (looked at on photographs kept
# out of training; 88 % of their shut eyes lie above the first, 60 % above the second, and 1.6 % and 0.4 % of the others).
_LIKELY, _SHUT = 0.46, 0.56
# Seconds in which a blink closes and opens an eye, at the most, and how far the weight of one
# of the lids has to rise and fall meanwhile. What stays up longer is a squint, or eyes that are kept shut.
_CLOSES, _OPENS, _RISE = 0.25, 0.35, 0.25
_OTHER = 0.12  # how far the other lid has to move to be part of the blink, and no wink


def shut(weights: np.ndarray) -> np.ndarray:
    """(..., 2) of each eye, left and right, how much of what a network's ARKit weights (..., 52) leave open is shut after all, 0..1."""
    return np.clip((weights[..., LIDS] - _LIKELY) / (_SHUT - _LIKELY), 0, 1)


def closed(weights: np.ndarray) -> np.ndarray:
    """ARKit weights (..., 52) with shut eyes shut."""
    weights = weights.copy()
    weights[..., LIDS] += shut(weights) * (1 - weights[..., LIDS])
    return weights


def completed(weights: np.ndarray, fps: float) -> np.ndarray:
    """ARKit weights (N, 52) whose blinks reach 1; in between, and what is no blink, as they were."""
    weights = weights.copy()
    lids = weights[:, LIDS]
    before, after = max(2, round(_CLOSES * fps)), max(2, round(_OPENS * fps))
    strongest = lids.max(1)
    for top in range(1, len(weights) - 1):
        if strongest[top] < _RISE or strongest[top] != strongest[max(0, top - after):top + after + 1].max():
            continue
        first, last = max(0, top - before), min(len(weights) - 1, top + after)
        # On each side the nearest frame in which the eye is as open as it gets there.
        start = top - int(np.argmin(strongest[first:top + 1][::-1]))
        end = top + int(np.argmin(strongest[top:last + 1]))
        rises = [float(lid[start:end + 1].max() - max(lid[start], lid[end])) for lid in lids.T]
        if max(rises) < _RISE:
            continue
        for column, lid, rise in zip(LIDS, lids.T, rises):
            if rise >= _OTHER:
                # Above what it comes from and goes back to, so that nothing jumps.
                open_eye = np.linspace(lid[start], lid[end], end - start + 1)
                part = np.maximum(lid[start:end + 1] - open_eye, 0)
                grown = open_eye + part * ((1 - open_eye) / part.max())
                weights[start:end + 1, column] = np.clip(np.maximum(grown, lid[start:end + 1]), 0, 1)
    return weights
