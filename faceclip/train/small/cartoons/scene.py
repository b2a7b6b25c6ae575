"""What a picture shows besides the person: eight attributes, and the caption that tells them."""

from dataclasses import dataclass, replace

import numpy as np

from ....errors import InputError
from .character import random

# The words stand in captions as they are here.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "garment": ("t-shirt", "hoodie", "suit", "tank top", "striped sweater"),
    "colour": ("red", "orange", "yellow", "green", "blue", "purple", "white", "black"),
    "background": ("beach", "forest", "city", "mountains", "library", "space", "brick wall", "sea floor"),
    "pose": ("facing forward", "turned left", "turned right"),
    "expression": ("smiling", "serious", "surprised", "sad", "angry"),
    "accessory": ("no accessories", "glasses", "straw hat", "headphones", "scarf", "crown"),
    "light": ("daylight", "sunset light", "moonlight"),
    "style": ("flat cartoon", "ink comic", "pastel drawing"),
}
NAMES = tuple(ATTRIBUTES)
UNSAID = 0.1  # how often a caption leaves an attribute out
# Pairs that training never sees: each garment before one background, each accessory with one colour.
_HELD_OUT_PAIRS = frozenset(
    {("garment", i, "background", (3 * i + 1) % 8) for i in range(5)}
    | {("accessory", i, "colour", (5 * i + 2) % 8) for i in range(6)}
)
_PLACES = {
    "beach": ("at the beach", "on a beach"),
    "forest": ("in a forest", "in front of a forest"),
    "city": ("in the city", "in front of a city"),
    "mountains": ("in the mountains", "in front of mountains"),
    "library": ("in a library",),
    "space": ("in space", "in outer space"),
    "brick wall": ("in front of a brick wall", "by a brick wall"),
    "sea floor": ("on the sea floor", "at the sea floor"),
}


@dataclass(frozen=True)
class Scene:
    """`values`: index into each entry of ATTRIBUTES. `jitter`: six numbers from -1 to 1: place (x, y), size and tilt
    of the head, place of the background, turn of the head. No caption tells them."""

    values: tuple[int, ...]
    jitter: tuple[float, ...]

    def __getattr__(self, name: str) -> str:
        if name not in ATTRIBUTES:
            raise AttributeError(name)
        return ATTRIBUTES[name][self.values[NAMES.index(name)]]

    @property
    def attributes(self) -> dict[str, str]:
        return {name: words[i] for (name, words), i in zip(ATTRIBUTES.items(), self.values, strict=True)}

    @property
    def held_out(self) -> bool:
        """True where a pair of attributes is one that training never sees."""
        at = dict(zip(NAMES, self.values, strict=True))
        return any(at[a] == i and at[b] == j for a, i, b, j in _HELD_OUT_PAIRS)

    def with_attributes(self, **words: str) -> "Scene":
        """The same scene with other attributes, e.g. garment="hoodie". InputError for a word that is not known."""
        values = list(self.values)
        for name, word in words.items():
            if word not in ATTRIBUTES.get(name, ()):
                known = ", ".join(ATTRIBUTES.get(name, NAMES))
                raise InputError(f"{name}={word!r} is not known, wanted one of: {known}.")
            values[NAMES.index(name)] = ATTRIBUTES[name].index(word)
        return replace(self, values=tuple(values))


def scene(seed: int, held_out: bool = False) -> Scene:
    """A random scene. held_out: one with a pair of attributes that never comes otherwise."""
    rng = random((17, seed))
    sizes = np.array([len(words) for words in ATTRIBUTES.values()])
    jitter = tuple(float(x) for x in rng.uniform(-1.0, 1.0, 6))
    while True:
        drawn = Scene(tuple(int(i) for i in rng.integers(0, sizes)), jitter)
        if drawn.held_out == held_out:
            return drawn


def said(seed: int) -> dict[str, bool]:
    """Which attributes the caption with this seed tells."""
    return dict(zip(NAMES, (random((19, seed)).random(len(NAMES)) >= UNSAID).tolist(), strict=True))


def caption(scene: Scene, seed: int) -> str:
    """One of many ways to put the scene into English; what `said(seed)` leaves out is not told."""
    told, rng = said(seed), random((23, seed))
    words = {name: word if told[name] else "" for name, word in scene.attributes.items()}

    def pick(*choices: str) -> str:
        return choices[int(rng.integers(len(choices)))]

    style_first = words["style"] and rng.random() < 0.6
    kind = words["style"] if style_first else pick("picture", "portrait", "drawing")
    person = pick("person", "character", "figure")
    mood_first = words["expression"] and rng.random() < 0.6
    subject = _article(f"{words['expression']} {person}" if mood_first else person)
    opening = pick(f"{_article(kind)} of {subject}", subject if not style_first else f"{_article(kind)}: {subject}")
    clauses = [
        _clothes(words, pick),
        _accessory(words["accessory"], pick),
        pick(words["pose"], f"with the head {words['pose']}") if words["pose"] else "",
        pick(*_PLACES[words["background"]]) if words["background"] else "",
        pick(f"in {words['light']}", f"lit by {words['light']}") if words["light"] else "",
        "" if mood_first or not words["expression"] else f"with {_article(words['expression'])} face",
        "" if style_first or not words["style"] else pick(f"drawn as {_article(words['style'])}", words["style"]),
    ]
    clauses = [clause for clause in clauses if clause]
    order = rng.permutation(len(clauses))
    text = ", ".join([opening, *(clauses[i] for i in order)])
    text = text if rng.random() < 0.5 else text.replace(",", "", 1)
    return text[0].upper() + text[1:] + pick(".", "")


def _clothes(words: dict[str, str], pick) -> str:
    garment, colour = words["garment"], words["colour"]
    if not garment:
        return f"{pick('wearing', 'dressed in')} {colour} clothes" if colour else ""
    return f"{pick('wearing', 'in', 'dressed in')} {_article(f'{colour} {garment}'.strip())}"


def _accessory(word: str, pick) -> str:
    if word in ("", "no accessories"):
        return word and pick("with no accessories", "no accessories")
    return f"with {word if word.endswith('s') else _article(word)}"


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
