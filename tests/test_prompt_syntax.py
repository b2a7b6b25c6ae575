"""Words that do something elsewhere are named; brackets that are no weights get advice; absurd lengths are refused."""

import time

import pytest

from faceclip import InputError
from faceclip.model.prompt import MAX_CHARACTERS, MAX_ROWS, MAX_WORD, parse_weights, tokenize
from faceclip.model.syntax import notices, weights

FOREIGN = {
    "embedding:negativeXL_D, ugly": "Textual inversion cannot work here",
    "ugly, (Embedding:bad/hands-5:1.2)": "Textual inversion cannot work here",
    "<lora:film:0.8> a man": "A LoRA is loaded by a node",
    "a man <lyco:film:1:0.5>": "A LoRA is loaded by a node",
    "a {red|blue|{green|black}} coat": "ComfyUI's page chooses one",
    "a __colour/warm__ coat": "no wildcard file is looked up",
    "a cat BREAK a dog": "BREAK is an ordinary word here",
    "a cat AND a dog": "Conditioning (Combine) joins two prompts",
    "a street ADDCOMM a man ADDCOL a dog": "Regions are set by nodes",
    "a man MASK(0 0.5, 0 1)": "Regions are set by nodes",
    "a [cat:dog:0.5] in a park": "(word:0.9) weakens",
    "a [blurry] park": "(word:0.9) weakens",
    "a (red)1.3 coat": "A weight stands inside of the brackets",
    "a (red)++ coat": "A weight stands inside of the brackets",
    "a coat --ar 3:2 --v 6": "settings of a picture stand in the nodes",
    "coat::2 hat::-1": "settings of a picture stand in the nodes",
}


@pytest.mark.parametrize("prompt", FOREIGN)
def test_words_that_do_something_elsewhere_are_named(prompt):
    (told,) = notices(prompt)
    assert FOREIGN[prompt] in told and ("plain words" in told or "ordinary word" in told)


def test_each_kind_is_told_once_with_what_was_seen():
    first, second = notices("embedding:a, embedding:b, embedding:c, embedding:d <lora:x:1>")
    assert first.startswith("embedding:a, embedding:b, embedding:c and more is read as plain words.")
    assert second.startswith("<lora:x:1> is read")


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "A woman in a blue denim shirt, on a rocky desert plateau.",
        "(red:1.2) coat, ((gold)) ring",
        "SHOUTED WORDS AND MORE",
        "a well-known actor - 50 % smile; 3:2, f/1.8 @ 85mm, at 18:30",
        "half < full > nothing",
        r"a \(round\) table",
    ],
)
def test_plain_prompts_get_no_notice(prompt):
    assert notices(prompt) == []


@pytest.mark.parametrize(
    ("prompt", "said", "advised"),
    [
        ("a (red:1.2) coat", "Weighed: red 1.2.", False),
        ("Cristiano (born 1985)", "Weighed: born 1985 1.1.", True),
        ("a (16:9) screen", "Weighed: 16 9.", True),
        ("a smile :)", "A bracket without a partner", True),
        (r"a \(round\) table", None, False),
        ("no brackets", None, False),
    ],
)
def test_what_brackets_do_is_told_and_how_to_write_them_literally(prompt, said, advised):
    told = " ".join(weights(prompt))
    assert (said or "") in told and (said is not None) == bool(told)
    assert (r"write \( and \)" in told) == advised


@pytest.mark.parametrize("prompt", ["open at (18:30)", "a (x:11) b"])
def test_the_advice_of_a_weight_out_of_range_works(prompt):
    with pytest.raises(InputError, match=r"write \\\( and \\\)"):
        tokenize(prompt, False, weighted=True)
    literal = prompt.replace("(", r"\(").replace(")", r"\)")
    assert parse_weights(literal) == [(prompt, 1.0)]


def test_a_prompt_of_absurd_length_is_refused_at_the_documented_number_of_chunks():
    fits = "cat " * (75 * MAX_ROWS)
    assert len(tokenize(fits, False, long_prompt="continue")) == MAX_ROWS
    with pytest.raises(InputError, match=f"fills {MAX_ROWS + 1} chunks of 77 tokens; at most {MAX_ROWS}") as error:
        tokenize(fits + "cat", False, long_prompt="continue")
    assert len(tokenize(fits + "cat", False, long_prompt="cut")) == 1
    shorter = int(str(error.value).partition("about ")[2].partition(" char")[0].replace(",", ""))
    assert len(tokenize((fits + "cat")[:shorter], False, long_prompt="continue")) <= MAX_ROWS  # the advice works


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("x " * 100_000, "200,000 characters; at most 50,000"),
        ("a " + "ab" * 1001, "2,002 letters"),
        ("日" * 2001, "2,001 letters"),
    ],
)
def test_what_no_prompt_can_be_is_refused_at_once(prompt, said):
    start = time.process_time()
    for long_prompt in ("continue", "cut"):
        with pytest.raises(InputError, match=said):
            tokenize(prompt, False, long_prompt=long_prompt)
    assert time.process_time() - start < 0.5


def test_the_longest_words_that_are_read_take_no_time_to_speak_of():
    start = time.process_time()
    tokenize("".join(chr(97 + i * 7919 % 26) for i in range(MAX_WORD)), False, long_prompt="continue")
    assert len("a " * (MAX_CHARACTERS // 2)) == MAX_CHARACTERS
    assert time.process_time() - start < 5
