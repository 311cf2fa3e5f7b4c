"""Random people in hm08's identity targets, and random expressions in the ARKit shapes.

Draws weights only; what they do to the mesh is in `training.face_kit`. The distributions are made up to be wide, not
measured from anybody: a network that must read every face should have seen more than the average ones.
"""
from __future__ import annotations

import numpy as np

from prn_blender.prn.arkit import ARKIT_NAMES

_RACES, _GENDERS = ("african", "asian", "caucasian"), ("female", "male")


def random_identity(rng: np.random.Generator, names: list[str]) -> dict[str, float]:
    """Weights of identity targets for one random person.

    Age, gender, ancestry, muscle and weight blend MakeHuman's corner persons (weights sum to one); every local
    target is drawn from N(0, 0.3), left and right mostly together, with a small asymmetry.
    """
    weights: dict[str, float] = {}

    def blend(parts: list[tuple[float, str]]) -> None:
        for weight, name in parts:
            if weight > 1e-4 and name in known:
                weights[name] = weights.get(name, 0) + weight

    known = set(names)
    race = rng.dirichlet([0.6] * 3)
    male = rng.beta(0.7, 0.7)
    ages = ("baby", "child", "young", "old")
    position = rng.choice([rng.uniform(0.6, 1.4), rng.uniform(1.4, 2), rng.uniform(2, 3)], p=[0.12, 0.38, 0.5])
    age = np.clip(1 - np.abs(position - np.arange(4)), 0, 1)
    muscle, weight = rng.beta(2, 2, 2)
    levels = ("min", "average", "max")
    muscle_at = np.clip(1 - np.abs(2 * muscle - np.arange(3)), 0, 1)
    weight_at = np.clip(1 - np.abs(2 * weight - np.arange(3)), 0, 1)
    for g, gender in enumerate(_GENDERS):
        share = male if g else 1 - male
        for a, age_name in enumerate(ages):
            blend([(share * age[a] * race[r], f"macrodetails/{name}-{gender}-{age_name}")
                   for r, name in enumerate(_RACES)])
            blend([(share * age[a] * muscle_at[m] * weight_at[w],
                    f"macrodetails/universal-{gender}-{age_name}-{levels[m]}muscle-{levels[w]}weight")
                   for m in range(3) for w in range(3)])
    values: dict[str, float] = {}
    for name in names:
        folder, local = name.split("/", 1)
        if folder == "macrodetails":
            continue
        if folder == "asym":
            weights[name] = abs(rng.normal(0, 0.12)) * (rng.random() < 0.3)
            continue
        pair, sign = _axis(local)
        unsided = pair[2:] if pair.startswith(("l-", "r-")) else pair
        key = f"{folder}/{unsided}"
        if key not in values:
            values[key] = rng.normal(0, 0.3)
        value = values[key] * sign
        if unsided != pair:
            value += rng.normal(0, 0.06)
        if value > 0:
            weights[name] = min(value, 1.0)
    return weights


_OPPOSITES = (("-decr", "-incr"), ("-down", "-up"), ("-in", "-out"), ("-backward", "-forward"),
              ("-compress", "-uncompress"), ("-convex", "-concave"))


def _axis(name: str) -> tuple[str, int]:
    """A target's name without its direction, and the direction: nose-hump-incr -> (nose-hump, 1)."""
    for negative, positive in _OPPOSITES:
        if name.endswith(positive):
            return name.removesuffix(positive), 1
        if name.endswith(negative):
            return name.removesuffix(negative), -1
    return name, 1


_PAIRS = [(name, name.replace("Left", "Right")) for name in ARKIT_NAMES
          if "Left" in name and name not in ("jawLeft", "mouthLeft")]
_INDEX = {name: i for i, name in enumerate(ARKIT_NAMES)}


def random_expression(rng: np.random.Generator) -> np.ndarray:
    """(52,) ARKit weights in 0..1: from nothing to strong, with the couplings faces have.

    Opposites exclude each other, left and right go mostly together, gaze is shared by both eyes, and the kinds that
    matter most in photographs (smiles, open mouths, closed eyes, raised and lowered brows) come often.
    """
    w = np.zeros(len(ARKIT_NAMES), np.float32)

    def put(name: str, value: float) -> None:
        w[_INDEX[name]] = max(w[_INDEX[name]], value)

    def both(stem: str, value: float, difference: float = 0.12) -> None:
        one_sided = rng.random() < 0.1
        put(stem + "Left", np.clip(value * (1 + rng.normal(0, difference)), 0, 1))
        put(stem + "Right", 0 if one_sided else np.clip(value * (1 + rng.normal(0, difference)), 0, 1))

    if rng.random() < 0.12:
        return w
    strength = rng.uniform(0.3, 1.0)
    # A sparse handful of single shapes, so that every shape is seen alone and in odd company.
    for name in rng.choice(ARKIT_NAMES, size=rng.poisson(2.5), replace=True):
        if not name.startswith("eyeLook"):
            put(name, rng.uniform(0, 0.8) * strength)
    for left, right in _PAIRS:
        if w[_INDEX[left]] + w[_INDEX[right]] > 0 and rng.random() < 0.75:
            w[_INDEX[left]] = w[_INDEX[right]] = max(w[_INDEX[left]], w[_INDEX[right]])
    kind = rng.random()
    if kind < 0.30:
        smile = rng.uniform(0.2, 1) * strength
        both("mouthSmile", smile)
        both("cheekSquint", smile * rng.uniform(0.2, 0.8))
        both("eyeSquint", smile * rng.uniform(0, 0.7))
        both("mouthUpperUp", smile * rng.uniform(0, 0.6))
        both("mouthLowerDown", smile * rng.uniform(0, 0.5))
        put("jawOpen", smile * rng.uniform(0, 0.4))
    elif kind < 0.50:
        opening = rng.beta(1.2, 1.6)
        put("jawOpen", opening)
        both("mouthLowerDown", opening * rng.uniform(0, 0.7))
        both("mouthUpperUp", opening * rng.uniform(0, 0.5))
        put("mouthFunnel", opening * rng.uniform(0, 0.6) * (rng.random() < 0.5))
        both("mouthStretch", opening * rng.uniform(0, 0.5))
        if rng.random() < 0.5:
            put("browInnerUp", opening * rng.uniform(0, 1))
            both("browOuterUp", opening * rng.uniform(0, 1))
            both("eyeWide", opening * rng.uniform(0, 1))
    elif kind < 0.60:
        put("mouthPucker", rng.uniform(0.2, 1))
        put("mouthFunnel", rng.uniform(0, 0.5))
    elif kind < 0.72:
        anger = rng.uniform(0.2, 1) * strength
        both("browDown", anger)
        both("eyeSquint", anger * rng.uniform(0, 0.8))
        both("noseSneer", anger * rng.uniform(0, 0.8))
        both("mouthFrown", anger * rng.uniform(0, 0.7))
        both("mouthPress", anger * rng.uniform(0, 0.7))
    elif kind < 0.80:
        put("browInnerUp", rng.uniform(0.2, 1))
        both("browOuterUp", rng.uniform(0, 1))
        both("mouthFrown", rng.uniform(0, 0.7))
    if rng.random() < 0.22:
        both("eyeBlink", rng.choice([1.0, rng.uniform(0.3, 1.0)]), 0.04)
    if w[_INDEX["jawOpen"]] > 0.05 and rng.random() < 0.12:
        put("mouthClose", w[_INDEX["jawOpen"]] * rng.uniform(0.5, 1))
    horizontal, vertical = rng.normal(0, 0.3), rng.normal(0, 0.25)
    for side, sign in (("Left", 1), ("Right", -1)):
        put("eyeLookOut" + side, np.clip(horizontal * sign, 0, 0.9))
        put("eyeLookIn" + side, np.clip(-horizontal * sign, 0, 0.9))
        put("eyeLookUp" + side, np.clip(vertical, 0, 0.9))
        put("eyeLookDown" + side, np.clip(-vertical, 0, 0.9))
    for one, other in (("eyeBlink", "eyeWide"), ("mouthSmile", "mouthFrown"), ("browDown", "browOuterUp")):
        for side in ("Left", "Right"):
            if w[_INDEX[one + side]] > 0.3:
                w[_INDEX[other + side]] *= 0.2
    if w[_INDEX["jawLeft"]] > 0:
        w[_INDEX["jawRight"]] = 0
    if w[_INDEX["mouthLeft"]] > 0:
        w[_INDEX["mouthRight"]] = 0
    return np.clip(w, 0, 1)


def random_shapes(rng: np.random.Generator) -> np.ndarray:
    """(52,) ARKit weights in 0..1: some shapes of any strength together, as `random_expression` seldom has them; the eyes look straight on."""
    w = np.zeros(len(ARKIT_NAMES), np.float32)
    names = [name for name in ARKIT_NAMES if not name.startswith("eyeLook") and name != "tongueOut"]
    for name in rng.choice(names, 1 + rng.poisson(3), replace=False):
        w[_INDEX[name]] = rng.beta(1.2, 1.5)
    for left, right in ((_INDEX[left], _INDEX[right]) for left, right in _PAIRS):
        if w[left] + w[right] > 0 and rng.random() < 0.8:
            w[left] = w[right] = max(w[left], w[right])
            w[left] *= rng.uniform(0.8, 1)
    if rng.random() < 0.4:
        w[_INDEX["jawOpen"]] = max(w[_INDEX["jawOpen"]], rng.beta(1, 2.5))
    return w


# What a mouth does for sounds: ARKit shapes (both sides) and the range that each is drawn from; a shape given by "jaw" is that share of jawOpen.
_SOUNDS = (
    {"jawOpen": (0.2, 0.9), "mouthLowerDown": ("jaw", 0.2, 0.9), "mouthUpperUp": ("jaw", 0, 0.5)},                      # a
    {"jawOpen": (0.1, 0.5), "mouthFunnel": (0.2, 1), "mouthLowerDown": ("jaw", 0, 0.6)},                                # o, sh
    {"jawOpen": (0, 0.25), "mouthPucker": (0.3, 1), "mouthFunnel": (0, 0.4)},                                           # u, w
    {"mouthPress": (0.1, 0.7), "mouthRollLower": (0, 0.5), "mouthRollUpper": (0, 0.5)},                                 # m, b, p
    {"jawOpen": (0.05, 0.25), "mouthRollLower": (0.15, 0.7), "mouthUpperUp": (0.05, 0.6)},                              # f, v
    {"jawOpen": (0.05, 0.4), "mouthStretch": (0.1, 0.8), "mouthLowerDown": (0, 0.4)},                                   # e
    {"jawOpen": (0.05, 0.4), "mouthSmile": (0.1, 0.7), "mouthUpperUp": (0, 0.4)},                                       # i
    {"jawOpen": (0.02, 0.2), "mouthFunnel": (0, 0.4), "mouthLowerDown": (0.1, 0.5), "mouthUpperUp": (0, 0.4)},          # s
    {"jawOpen": (0.1, 0.4), "mouthClose": ("jaw", 0.3, 1)})                                                             # a jaw that drops behind shut lips
# What the rest of a face does meanwhile.
_MOODS = (
    {"mouthSmile": (0.2, 0.9), "cheekSquint": (0, 0.8), "eyeSquint": (0, 0.5)},
    {"browInnerUp": (0.2, 1), "browOuterUp": (0, 0.9)},
    {"browDown": (0.2, 1), "noseSneer": (0, 0.5), "eyeSquint": (0, 0.4)},
    {"mouthFrown": (0.1, 0.7), "browInnerUp": (0, 0.6), "mouthShrugLower": (0, 0.5)})


def random_speech(rng: np.random.Generator) -> np.ndarray:
    """(52,) ARKit weights in 0..1: somebody who speaks, on the way from one sound to the next, in some mood or none, now and then with shut eyes."""
    w = np.zeros(len(ARKIT_NAMES), np.float32)

    def put(shapes: dict[str, tuple], share: float) -> None:
        jaw = 0.0
        for stem, (*of_jaw, low, high) in shapes.items():
            value = rng.uniform(low, high) * (jaw if of_jaw else share)
            jaw = value if stem == "jawOpen" else jaw
            # A crooked mouth now and then.
            sides = (stem,) if stem in _INDEX else (stem + "Left", stem + "Right")
            for name, tilt in zip(sides, np.exp(rng.normal(0, 0.08, 2) * (len(sides) > 1))):
                w[_INDEX[name]] = min(max(w[_INDEX[name]], value * tilt), 1)

    before, after = rng.choice(len(_SOUNDS), 2)
    way = rng.random()
    put(_SOUNDS[before], 1 - way * rng.random())
    put(_SOUNDS[after], way * rng.random())
    if rng.random() < 0.6:
        put(_MOODS[rng.integers(len(_MOODS))], rng.random())
    if rng.random() < 0.12:
        w[[_INDEX["eyeBlinkLeft"], _INDEX["eyeBlinkRight"]]] = rng.random()
    return w
