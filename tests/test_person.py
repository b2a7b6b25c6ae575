"""Several references, blends and strength: neutral settings give the published output exactly."""

import pytest
import torch
from golden import golden_face, golden_model, relative_error

from faceclip import InputError
from faceclip.identity.person import Person, blend, find_outliers, make_person, person_conditioning
from faceclip.model.encoder import Identity

TEXT = "a chef in a (white:1.3) kitchen"


@pytest.fixture(scope="module")
def model():
    return golden_model("tiny")


def person_of(model, *seeds, **options) -> Person:
    crops = [golden_face(seed) for seed in seeds]
    return make_person(model.encode_identity(torch.stack(crops)), crops, min_similarity=-1.0, **options)[0]


def equal(a, b) -> bool:
    return torch.equal(a.embeddings, b.embeddings) and torch.equal(a.pooled, b.pooled)


def test_many_references_of_a_long_prompt_take_no_more_memory_than_a_few(model):
    """The same as all in one pass, which the rows of the model's layers show to be gone."""
    text = "a (red:1.3) coat, " + "in a park with tall old trees, " * 10
    person = person_of(model, *range(1, 11))
    rows = []
    hook = model.face_clip_g.ln_final.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    try:
        found = person_conditioning(model, text, person, weighted=True, long_prompt="continue")
    finally:
        hook.remove()
    assert max(rows) <= 16 and found.embeddings.shape[1] == 2 * 77
    whole = model.encode_prompt([text] * 10, person.identity, weighted=True, long_prompt="continue", alone=True)
    assert torch.allclose(found.embeddings[0], whole.embeddings.mean(0), atol=1e-5)
    assert torch.allclose(found.pooled[0], whole.pooled.mean(0), atol=1e-5)


def test_one_reference_is_exactly_the_published_output(model):
    published = model.encode_prompt([TEXT], model.encode_identity(golden_face(1)[None]))
    assert equal(person_conditioning(model, TEXT, person_of(model, 1)), published)


def test_no_person_is_exactly_the_text_alone(model):
    assert equal(person_conditioning(model, TEXT, None), model.encode_prompt([TEXT]))


def test_references_are_averaged_after_the_fuser(model):
    alone = [person_conditioning(model, TEXT, person_of(model, seed)) for seed in (1, 2, 3)]
    together = person_conditioning(model, TEXT, person_of(model, 1, 2, 3))
    assert relative_error(together.embeddings, sum(a.embeddings for a in alone) / 3) < 1e-6
    assert relative_error(together.pooled, sum(a.pooled for a in alone) / 3) < 1e-6


def test_weights_shift_the_mean_and_zero_leaves_a_reference_out(model):
    one, two = (person_conditioning(model, TEXT, person_of(model, seed)) for seed in (1, 2))
    mixed = person_conditioning(model, TEXT, person_of(model, 1, 2, weights=[3, 1]))
    assert relative_error(mixed.embeddings, 0.75 * one.embeddings + 0.25 * two.embeddings) < 1e-6
    only = person_conditioning(model, TEXT, person_of(model, 1, 2, weights=[1, 0]))
    assert relative_error(only.embeddings, one.embeddings) < 1e-6


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_bad_weights_are_refused(model, weights):
    with pytest.raises(InputError, match="wanted"):
        person_of(model, 1, 2, weights=weights)


def test_blend_ends_are_exactly_the_two_and_the_middle_lies_between(model):
    one, two = person_of(model, 1), person_of(model, 2)
    assert blend(one, two, 0.0) is one and blend(one, two, 1.0) is two
    half = person_conditioning(model, TEXT, blend(one, two, 0.5)).embeddings
    mean = (person_conditioning(model, TEXT, one).embeddings + person_conditioning(model, TEXT, two).embeddings) / 2
    assert relative_error(half, mean) < 1e-6
    chain = blend(blend(one, two, 0.5), person_of(model, 3), 0.2)
    assert chain.shares == pytest.approx((0.4, 0.4, 0.2))


def test_a_blend_over_encoders_or_out_of_range_is_refused(model):
    one = person_of(model, 1)
    with pytest.raises(InputError, match="from 0"):
        blend(one, one, 1.2)
    other = Person(one.identity, one.shares, one.thumbnails, encoder="b")
    with pytest.raises(InputError, match="different face encoders"):
        blend(Person(one.identity, one.shares, one.thumbnails, encoder="a"), other, 0.5)


def test_strength_is_a_line_with_exact_ends(model):
    person = person_of(model, 1)
    base = model.encode_prompt([TEXT], None, identity_free=True)
    full = person_conditioning(model, TEXT, person, 1.0)
    assert equal(person_conditioning(model, TEXT, person, 0.0), base)
    for strength in (0.5, 1.5):
        wanted = base.embeddings + strength * (full.embeddings - base.embeddings)
        assert relative_error(person_conditioning(model, TEXT, person, strength).embeddings, wanted) < 1e-6
    assert relative_error(full.embeddings, base.embeddings) > 1e-2


def test_identity_free_keeps_the_tokens_and_depends_on_no_face(model):
    plain = model.encode_prompt([TEXT], None)
    base = model.encode_prompt([TEXT], None, identity_free=True)
    spelled = model.encode_prompt(["Photo of a id person. " + TEXT], None)
    assert equal(base, spelled) and not equal(base, plain)


@pytest.mark.parametrize("strength", [-0.1, 2.1, float("nan")])
def test_a_strength_out_of_range_is_refused(model, strength):
    with pytest.raises(InputError, match="from 0 to 2"):
        person_conditioning(model, TEXT, person_of(model, 1), strength)


def _faces_with_cosines() -> tuple[Identity, list[torch.Tensor]]:
    """Three references of one person and one of another, by construction of their embeddings."""
    identity = golden_model("tiny").encode_identity(torch.stack([golden_face(s) for s in range(4)]))
    width = identity.l.class_token.shape[1]
    basis = torch.eye(width)
    identity.l.class_token.copy_(
        torch.stack([basis[0], basis[0] + 0.3 * basis[1], basis[0] + 0.3 * basis[2], basis[5]])
    )
    return identity, [golden_face(s) for s in range(4)]


def test_a_wrong_person_among_the_references_is_refused_dropped_or_kept():
    identity, crops = _faces_with_cosines()
    with pytest.raises(InputError, match=r"Reference 4 does not look like(.|\n)*similarity(.|\n)*not like the others"):
        make_person(identity, crops)
    dropped, table = make_person(identity, crops, outliers="drop")
    assert len(dropped) == 3 and dropped.shares == pytest.approx((1 / 3,) * 3) and "Left out: reference 4" in table
    kept, table = make_person(identity, crops, outliers="keep")
    assert len(kept) == 4 and "not like the others" in table


def test_of_two_that_disagree_neither_is_dropped():
    assert find_outliers(torch.eye(2), 0.2) == [0, 1]
    identity, crops = _faces_with_cosines()
    with pytest.raises(InputError, match="References 1, 2 do not look like"):
        make_person(Identity.cat([_pick(identity, 0), _pick(identity, 3)]), [crops[0], crops[3]], outliers="drop")


def _pick(identity, row):
    from faceclip.identity.person import select

    return select(identity, [row])


def test_thumbnails_are_small_pictures_of_the_references(model):
    person = person_of(model, 1, 2)
    assert person.thumbnails.shape == (2, 3, 112, 112) and person.thumbnails.dtype == torch.uint8
    assert relative_error(person.thumbnails[0] / 255.0, torch.nn.functional.avg_pool2d(golden_face(1), 4)) < 1e-2
