"""Cartoon people by number: what stays the same about a person in every picture."""

import math
from dataclasses import dataclass

import numpy as np

from ....errors import InputError

# What tells people apart, the strongest cues first. Each person is one choice per entry.
CUES: dict[str, tuple[str, ...]] = {
    "skin": ("porcelain", "peach", "golden", "tan", "brown", "deep"),
    "hair_colour": ("black", "brown", "blonde", "ginger", "silver", "pink", "blue", "green"),
    "hair_style": ("crop", "part", "spiky", "afro", "long", "bob", "topknot", "pigtails", "mohawk", "curls"),
    "face_shape": ("round", "long", "square", "heart"),
    "facial_hair": ("none", "moustache", "goatee", "beard"),
    "eye_colour": ("brown", "blue", "green", "amber", "violet"),
    "marks": ("none", "freckles", "mole", "blush", "scar"),
    "eye_size": ("small", "medium", "large"),
    "brows": ("thin", "thick", "joined"),
    "nose": ("button", "long", "wide", "pointed"),
    "lips": ("plain", "red", "plum"),
}
_SIZES = tuple(len(words) for words in CUES.values())
IDENTITIES: int = math.prod(_SIZES)
_MULTIPLIERS = (7368787, 4256233, 9737333)  # none shares a factor with IDENTITIES (2, 3, 5)
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Character:
    """One person. `cues`: index into each entry of CUES. `jitter`: eight numbers from -1 to 1, small differences of
    form and colour that no cue names."""

    number: int
    cues: tuple[int, ...]
    jitter: tuple[float, ...]

    def __getattr__(self, name: str) -> str:
        if name not in CUES:
            raise AttributeError(name)
        return CUES[name][self.cues[list(CUES).index(name)]]

    @property
    def description(self) -> dict[str, str]:
        return {name: words[i] for (name, words), i in zip(CUES.items(), self.cues, strict=True)}


def identity(number: int) -> Character:
    """The person with this number, 0 to IDENTITIES - 1; neighbours have nothing in common. InputError beyond."""
    if not 0 <= number < IDENTITIES:
        raise InputError(f"Person {number} is not known; numbers go from 0 to {IDENTITIES - 1}.")
    jitter = random((11, number)).uniform(-1.0, 1.0, 8)
    return Character(int(number), _digits(_scramble(int(number))), tuple(float(x) for x in jitter))


def held_out(number: int) -> bool:
    """True for one person in twenty: kept for measuring, never trained on."""
    return mix(29, number) % 20 == 0


def people(count: int, seed: int, held_out_people: bool = False) -> list[int]:
    """`count` different people in random order, all held out or none."""
    rng, chosen = random((13, seed)), {}
    while len(chosen) < count:
        for number in rng.integers(0, IDENTITIES, 4 * count + 64).tolist():
            if held_out(number) == held_out_people and len(chosen) < count:
                chosen[number] = None
    return list(chosen)


def random(key: tuple[int, ...]) -> np.random.Generator:
    """Random numbers that depend on the key alone, equal on every machine."""
    return np.random.Generator(np.random.PCG64(mix(*key)))


def mix(*numbers: int) -> int:
    """One 63 bit number out of several, well stirred (splitmix64's finaliser after each)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ (int(number) & _WORD)) * 0xBF58476D1CE4E5B9 & _WORD
        state = (state ^ (state >> 30)) * 0x94D049BB133111EB & _WORD
        state = (state ^ (state >> 27)) + 0x9E3779B97F4A7C15 & _WORD
        state ^= state >> 31
    return state >> 1


def _digits(value: int) -> tuple[int, ...]:
    digits = []
    for size in reversed(_SIZES):
        value, digit = divmod(value, size)
        digits.append(digit)
    return tuple(reversed(digits))


def _scramble(value: int) -> int:
    """A fixed permutation: multiply and add modulo the count, then read the digits from the other end; three times."""
    for multiplier in _MULTIPLIERS:
        value = (value * multiplier + 12345) % IDENTITIES
        turned = 0
        for digit, size in zip(reversed(_digits(value)), reversed(_SIZES), strict=True):
            turned = turned * size + digit
        value = turned
    return value
