"""The cartoon people: the same for the same numbers, captions that tell the truth, data that is whole or remade."""

import itertools
import re

import numpy as np
import pytest

from faceclip.errors import InputError
from faceclip.train.small.cartoons import character, dataset, scene
from faceclip.train.small.cartoons.render import render

NOTHING = "no accessories"


def picture(number: int, seed: int, **words: str):
    return render(character.identity(number), scene.scene(seed).with_attributes(**words))


def test_there_are_enough_people_and_each_number_is_another_one():
    assert character.IDENTITIES >= 10**5
    numbers = [*range(3000), *range(character.IDENTITIES - 3000, character.IDENTITIES)]
    assert len({character.identity(n).cues for n in numbers}) == len(numbers)
    for number in (-1, character.IDENTITIES):
        with pytest.raises(InputError, match="numbers go from 0"):
            character.identity(number)


def test_neighbours_have_little_in_common():
    people = [character.identity(n).cues for n in range(1000)]
    shared = [sum(a == b for a, b in zip(one, two, strict=True)) for one, two in itertools.pairwise(people)]
    assert np.mean(shared) < 0.35 * len(character.CUES)
    for i, words in enumerate(character.CUES.values()):
        assert {cues[i] for cues in people} == set(range(len(words)))


def test_same_numbers_give_the_same_picture():
    first, again = picture(123, 45), picture(123, 45)
    assert np.array_equal(first.pixels, again.pixels) and np.array_equal(first.landmarks, again.landmarks)
    assert first.pixels.shape == (128, 128, 3) and first.pixels.dtype == np.uint8
    assert first.landmarks.shape == (5, 2) and first.landmarks.dtype == np.float32
    assert scene.caption(scene.scene(45), 45) == scene.caption(scene.scene(45), 45)


def test_people_and_scenes_do_not_change_from_release_to_release():
    """Shipped weights were trained on these: a change needs a new dataset.VERSION and new weights."""
    assert character.identity(7).cues == (2, 6, 0, 3, 2, 1, 0, 0, 0, 2, 1)
    assert character.people(3, 1) == [14640248, 20646556, 3876665]
    assert scene.scene(7).values == (3, 1, 1, 2, 4, 1, 1, 2)
    assert scene.caption(scene.scene(7), 7) == (
        "A picture of a character in sunset light, with glasses, with the head turned right, pastel drawing, in an "
        "orange tank top, in a forest, with an angry face."
    )


@pytest.mark.parametrize("name", list(scene.ATTRIBUTES))
def test_every_attribute_is_seen(name):
    drawn = [picture(5, 3, **{name: word}).pixels.astype(int) for word in scene.ATTRIBUTES[name]]
    for one, two in itertools.combinations(drawn, 2):
        assert (np.abs(one - two).max(axis=-1) > 40).sum() > 60  # px that are clearly another colour


@pytest.mark.parametrize("name", list(character.CUES))
def test_every_cue_is_seen(name):
    """Among people who differ in one cue alone; in full light and with nothing on the head."""
    place = scene.scene(3).with_attributes(
        light="daylight", style="flat cartoon", accessory=NOTHING, pose="facing forward", expression="serious"
    )
    person, i = character.identity(5), list(character.CUES).index(name)
    drawn = []
    for value in range(len(character.CUES[name])):
        cues = (*person.cues[:i], value, *person.cues[i + 1 :])
        drawn.append(render(character.Character(5, cues, person.jitter), place).pixels.astype(int))
    for one, two in itertools.combinations(drawn, 2):
        assert (np.abs(one - two).max(axis=-1) > 25).sum() >= 12


def test_held_out_people_and_scenes_stay_apart():
    train, kept = character.people(500, 1), character.people(200, 1, held_out_people=True)
    assert not any(map(character.held_out, train)) and all(map(character.held_out, kept))
    assert len(set(train)) == 500 and len(set(kept)) == 200
    share = np.mean([character.held_out(n) for n in range(20000)])
    assert 0.045 < share < 0.055
    assert not any(scene.scene(seed).held_out for seed in range(300))
    assert all(scene.scene(seed, held_out=True).held_out for seed in range(300))


@pytest.mark.parametrize("pose", scene.ATTRIBUTES["pose"])
def test_landmarks_lie_on_the_face(pose):
    """Pupils are the darkest and eyes the whitest spots: both are found where the landmarks say."""
    for number in range(12):
        person = character.identity(number)
        drawn = picture(
            number, number, pose=pose, light="daylight", style="flat cartoon", accessory=NOTHING, expression="serious"
        )
        left, right, nose, mouth_left, mouth_right = drawn.landmarks
        assert left[0] < nose[0] + 8 and nose[0] - 8 < right[0] and left[0] < right[0] - 15
        assert mouth_left[1] > nose[1] > left[1] and mouth_left[0] < mouth_right[0]
        for x, y in (left, right):
            around = drawn.pixels[round(y) - 1 : round(y) + 2, round(x) - 2 : round(x) + 3].astype(int)
            assert around.sum(axis=-1).min() < 150, (number, person.description)
            wide = drawn.pixels[round(y) - 5 : round(y) + 6, round(x) - 9 : round(x) + 10].astype(int)
            assert wide.min(axis=-1).max() > 200


def test_a_turned_head_moves_its_landmarks():
    ahead, left, right = (picture(9, 9, pose=pose).landmarks for pose in scene.ATTRIBUTES["pose"])
    assert (left[:, 0] < ahead[:, 0] - 3).all() and (right[:, 0] > ahead[:, 0] + 3).all()


def test_captions_tell_what_is_drawn_and_nothing_else():
    silent = dict.fromkeys(scene.ATTRIBUTES, 0)
    for seed in range(400):
        place, told = scene.scene(seed), scene.said(seed)
        text = scene.caption(place, seed)
        assert "  " not in text and ", ," not in text and text[0].isupper()
        for name, words in scene.ATTRIBUTES.items():
            found = [word for word in words if re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)]
            assert found == ([place.attributes[name]] if told[name] else []), text
            silent[name] += not told[name]
    assert all(0.04 < count / 400 < 0.17 for count in silent.values()), silent
    assert len({scene.caption(scene.scene(1), seed) for seed in range(100)}) > 60


def test_an_unknown_word_is_named_with_the_known_ones():
    with pytest.raises(InputError, match="garment='coat' is not known, wanted one of: t-shirt"):
        scene.scene(1).with_attributes(garment="coat")


@pytest.fixture(scope="module")
def people():
    return character.people(3, 4)


@pytest.fixture
def built(tmp_path, people):
    return dataset.build(tmp_path / "small", people, 2, seed=8, processes=1)


def test_dataset_holds_what_the_renderer_draws(built, people):
    assert len(built) == 6
    assert built.person.tolist() == [n for n in people for _ in range(2)]
    assert built.label.tolist() == [0, 0, 1, 1, 2, 2]
    for i in range(6):
        key = dataset.sample_seed(8, people[i // 2], i % 2)
        drawn = render(character.identity(people[i // 2]), scene.scene(key))
        assert np.array_equal(built.pictures[i].transpose(1, 2, 0), drawn.pixels)
        assert np.array_equal(built.landmarks[i], drawn.landmarks)
        assert built.attributes[i].tolist() == list(scene.scene(key).values)
        assert built.cues[i].tolist() == list(character.identity(people[i // 2]).cues)
        assert built.said[i].tolist() == list(scene.said(key).values())
        assert built.captions[i] == scene.caption(scene.scene(key), key)


def test_crops_are_those_of_the_library(built):
    import torch

    from faceclip.faces.align import align

    for i in range(6):
        whole = align(built.pictures[i].transpose(1, 2, 0).astype(np.float32) / 255, built.landmarks[i], 448)
        small = torch.nn.functional.interpolate(
            torch.from_numpy(whole).permute(2, 0, 1)[None], (112, 112), mode="bilinear"
        )
        assert np.abs(small[0].numpy() - built.crops[i] / 255).max() < 2.1 / 255


def test_dataset_has_the_tokens_of_its_captions(built):
    from faceclip.model.prompt import tokenize

    for i, text in enumerate(built.captions):
        assert tuple(built.ids[i]) == tokenize(text, False)[0].ids
        assert tuple(built.joint_ids[i]) == tokenize(text, True)[0].ids
        assert built.joint_ids[i, -1] == 0  # nothing was cut


def test_two_processes_draw_the_same(tmp_path, built, people, monkeypatch):
    monkeypatch.setattr(dataset, "_CHUNK", 4)
    again = dataset.build(tmp_path / "two", people, 2, seed=8, processes=2)
    for name, values in built.arrays.items():
        assert np.array_equal(values, getattr(again, name)), name
    assert again.captions == built.captions


def test_same_recipe_is_used_again_and_another_is_drawn_anew(tmp_path, people):
    folder = tmp_path / "small"
    dataset.build(folder, people, 2, seed=8, processes=1)
    before = (folder / "pictures.npy").stat().st_mtime_ns
    dataset.build(folder, people, 2, seed=8, processes=1)
    assert (folder / "pictures.npy").stat().st_mtime_ns == before
    other = dataset.build(folder, people, 2, seed=9, processes=1)
    assert (folder / "pictures.npy").stat().st_mtime_ns != before
    assert not np.array_equal(other.landmarks, dataset.build(tmp_path / "first", people, 2, 8, 1).landmarks)
    held = dataset.build(folder, people, 2, seed=9, processes=1, held_out_scenes=True)
    assert all(scene.Scene(tuple(values), (0.0,) * 6).held_out for values in held.attributes.tolist())
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_damage_is_noticed_and_mended(tmp_path, people, caplog):
    folder = tmp_path / "small"
    good = np.array(dataset.build(folder, people, 2, seed=8, processes=1).crops)
    with (folder / "crops.npy").open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 255]))
    with pytest.raises(InputError, match=r"crops\.npy is damaged"):
        dataset.load(folder)
    assert np.array_equal(dataset.build(folder, people, 2, seed=8, processes=1).crops, good)
    assert "is damaged" in caplog.text
    (folder / "ids.npy").unlink()
    with pytest.raises(InputError, match=r"ids\.npy is missing"):
        dataset.load(folder)
    (folder / "recipe.json").write_text("{")
    with pytest.raises(InputError, match=r"recipe\.json cannot be read"):
        dataset.load(folder)


def test_no_people_make_no_data(tmp_path):
    with pytest.raises(InputError, match="0 people in 2 scenes"):
        dataset.build(tmp_path, [], 2, seed=1)
