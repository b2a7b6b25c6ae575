"""From a prompt to token rows, and what weights and further rows do to the embeddings."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import torch
from golden import golden_face, golden_model, relative_error
from open_clip.tokenizer import SimpleTokenizer

from faceclip import InputError
from faceclip.model import tokenizer
from faceclip.model.prompt import parse_weights, tokenize
from faceclip.model.tokenizer import END, PAD, PREFIX, START

ROOT = Path(__file__).parents[1]
# What tokenizers read differently: endings, letters with two lower cases, marks, entities, white space, special tokens.
PIECES = [" ", "'s", "'S", "'\u017f", "word", "\u0301", "&amp;", "<start_of_text>", "<END_of_text>", "\x1c", "\u212a"]
CAPACITY = {False: 75, True: 69}  # tokens a row has for the prompt, without and with a face
PROMPTS = [
    "",
    " ",
    "a",
    "a chef in a kitchen ",
    "A CHEF  in\ta\n\nkitchen",
    "an id card, id, ID; idea",
    "it's, they're, I'd, we'll, I'm, you've, don't",
    "f/2.8, 85mm, 1/200s, ISO 100, 4k, 3.14159",
    "((masterpiece)), (best quality:1.2), [low], {a|b}",
    "naïve café, Ångström, ſtraße, İstanbul, ΣΊΣΥΦΟΣ",
    "cafe\u0301 in nai\u0308ve form",  # combining marks
    "портрет женщины в саду",
    "一个穿红色外套的男人",
    "写真 ポートレート 사진 صورة תמונה भारत",
    "👩🏽‍🚀 on the 🌕 🇫🇷 ❤️",
    "AT&amp;T &lt;b&gt; &quot;x&quot; &#39;y&#39; &eacute; &amp;amp;lt;",
    "â€œmojibakeâ€\u009d l’Humanité Ã©tÃ©",
    "ﬁne ligatures ﬀ, full width ＡＢＣ, “curly” ‘quotes’ … — –",
    "zero\u200bwidth\u00a0space\u3000wide\ufeffmark",
    "\x1b[31mred\x1b[0m \x07bell \x00nul",
    "lone \ud800 surrogate",
    "<start_of_text> in <end_of_text> the middle",
    "<|startoftext|> <|endoftext|>",
    "\u0301starts with a combining mark",
    "a" * 300,
    "word " * 60,
    "supercalifragilisticexpialidocious " * 30,
    "!?!?!?...;;;---___***" * 20,
    "long, " + "very detailed portrait of a person with red hair and green eyes, " * 12,
]


def reference(prompt, has_face):
    return tuple(SimpleTokenizer()((PREFIX if has_face else "") + prompt, context_length=77)[0].tolist())


@pytest.fixture(scope="module")
def tiny():
    return golden_model("tiny")


@pytest.fixture(scope="module")
def identity(tiny):
    return tiny.encode_identity(golden_face(1)[None])


def words_of(rows, has_face):
    """The tokens of all rows between prefix and end token."""
    first = 1 + (len(tokenizer.prefix_ids()) if has_face else 0)
    return [token for row in rows for token in row.ids[first : row.ids.index(END)]]


# ---- the published ids ----


@pytest.mark.parametrize("has_face", [False, True], ids=["no face", "face"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_ids_are_those_of_open_clip(prompt, has_face):
    (row,) = tokenize(prompt, has_face)
    assert row.ids == reference(prompt, has_face)
    assert row.weights == (1.0,) * 77


def random_text(random: Random) -> str:
    """Up to 40 characters and pieces of some alphabets, lone surrogates among them."""
    alphabets = random.sample(
        [
            lambda: chr(random.randrange(32, 127)),
            lambda: chr(random.randrange(32, 0x250)),
            lambda: chr(random.randrange(0x250, 0xD800)),
            lambda: chr(random.randrange(0xD800, 0x110000)),
            lambda: random.choice(PIECES),
        ],
        random.randrange(1, 6),
    )
    return "".join(random.choice(alphabets)() for _ in range(random.randrange(40)))


def test_ids_of_any_characters_are_those_of_open_clip():
    random, reference = Random(0), SimpleTokenizer()
    for _ in range(int(os.environ.get("FACECLIP_PROMPTS", "5000"))):
        prompt = random_text(random)
        assert tokenizer.encode(prompt) == reference.encode(prompt), ascii(prompt)


def test_the_first_prompt_waits_for_no_large_package():
    code = (
        "import sys; from faceclip.model.prompt import tokenize; tokenize('a chef', True)\n"
        "print(*sorted({'torch', 'timm', 'torchvision', 'open_clip', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_prefix():
    assert len(tokenizer.prefix_ids()) == 75 - CAPACITY[True] == 6
    assert tokenizer.prefix_ids()[tokenizer.identity_offset()] == tokenizer.encode("id")[0]
    assert tokenizer.identity_offset() == 3
    for prompt in ("", "id", "a chef"):
        assert tokenize(prompt, True)[0].ids[1:7] == tokenizer.prefix_ids()
        assert tokenize(prompt, False)[0].ids[1:7] != tokenizer.prefix_ids()


@pytest.mark.parametrize("prompt", [None, 3, b"bytes", ["a"]])
def test_a_prompt_that_is_no_text(prompt):
    with pytest.raises(InputError, match="wanted text"):
        tokenize(prompt, False)


def test_an_unknown_rule_for_long_prompts():
    with pytest.raises(InputError, match="'trim', wanted one of continue, cut"):
        tokenize("a", False, long_prompt="trim")


# ---- weights: the text ----


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        ("a red coat", [("a red coat", 1.0)]),
        ("a (red:1.2) coat", [("a ", 1.0), ("red", 1.2), (" coat", 1.0)]),
        ("a (red) coat", [("a ", 1.0), ("red", 1.1), (" coat", 1.0)]),
        ("((red))", [("red", 1.1 * 1.1)]),
        ("(a (b:1.5) c:0.5)", [("a ", 0.5), ("b", 1.5), (" c", 0.5)]),  # a number counts whatever is around it
        ("(a (b) c:0.5)", [("a ", 0.5), ("b", 0.5 * 1.1), (" c", 0.5)]),
        ("(a:1.0)", [("a", 1.0)]),
        ("a (b:1) c", [("a b c", 1.0)]),  # joined, so that cleaning sees the same text
        ("(a:1.2)(b:1.2)", [("ab", 1.2)]),
        ("(a:0)", [("a", 0.0)]),
        ("(a: 1.5 )", [("a", 1.5)]),
        ("(a:1e0)", [("a", 1.0)]),
        ("(a:b:1.5)", [("a:b", 1.5)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a:)", [("a:", 1.1)]),
        ("(:1.5)", [(":1.5", 1.1)]),
        ("()", []),
        ("a:1.5", [("a:1.5", 1.0)]),
        (r"a \(red:1.2\) coat", [("a (red:1.2) coat", 1.0)]),
        (r"(a \(b\):1.3)", [("a (b)", 1.3)]),
        (r"\\(a)", [("\\(a)", 1.0)]),
        (r"C:\path (b)", [("C:\\path ", 1.0), ("b", 1.1)]),
        ("[a] {b} <c:1.2>", [("[a] {b} <c:1.2>", 1.0)]),
        # Unpaired brackets are text.
        ("smile :) (red:1.2)", [("smile :) ", 1.0), ("red", 1.2)]),
        (":( (red:1.2)", [(":( ", 1.0), ("red", 1.2)]),
        ("(a", [("(a", 1.0)]),
        ("a)", [("a)", 1.0)]),
        (")(", [(")(", 1.0)]),
        ("((a:1.2)", [("(", 1.0), ("a", 1.2)]),
        ("(a (b :( c:1.2)", [("(a (b :", 1.0), (" c", 1.2)]),
        ("(a:1.2))", [("a", 1.2), (")", 1.0)]),
    ],
)
def test_weights_are_read(text, wanted):
    assert parse_weights(text) == wanted


@pytest.mark.parametrize("text", ["(a:-0.1)", "(a:10.1)", "(a:nan)", "(a:inf)", "(a:1e9)", "(" * 30 + "a" + ")" * 30])
def test_weights_out_of_range_are_refused(text):
    with pytest.raises(InputError, match="wanted a number from 0 to 10"):
        parse_weights(text)
    assert tokenize(text, False)  # as ordinary text it is fine


def test_deep_and_many_brackets():
    assert parse_weights("(" * 20000) == [("(" * 20000, 1.0)]
    assert parse_weights(")" * 20000) == [(")" * 20000, 1.0)]
    assert parse_weights("(" * 3000 + "a" + ":1.5)" * 3000) == [("a", 1.5)]


@pytest.mark.parametrize("has_face", [False, True])
@pytest.mark.parametrize("prompt", [p for p in PROMPTS if "(" not in p], ids=str.__len__)
def test_reading_weights_changes_nothing_without_brackets(prompt, has_face):
    assert tokenize(prompt, has_face, weighted=True) == tokenize(prompt, has_face)


@pytest.mark.parametrize("has_face", [False, True])
def test_each_token_has_its_weight(has_face):
    (row,) = tokenize("a (very red:1.5) coat (x:0)", has_face, weighted=True)
    first = 7 if has_face else 1
    assert row.ids == tokenize("a very red coat x", has_face)[0].ids
    assert row.weights[first : first + 5] == (1.0, 1.5, 1.5, 1.0, 0.0)
    assert set(row.weights[:first] + row.weights[first + 5 :]) == {1.0}


# ---- weights: the embeddings ----


@pytest.mark.parametrize("has_face", [False, True], ids=["no face", "face"])
@pytest.mark.parametrize(("neutral", "plain"), [("a (red:1.0) coat", "a red coat"), ("((a:1) b:1.0)", "a b")])
def test_a_weight_of_one_changes_nothing(tiny, identity, neutral, plain, has_face):
    assert tokenize(neutral, has_face, weighted=True) == tokenize(plain, has_face)
    face = identity if has_face else None
    weighted, wanted = tiny.encode_prompt([neutral], face, weighted=True), tiny.encode_prompt([plain], face)
    assert torch.equal(weighted.embeddings, wanted.embeddings)
    assert torch.equal(weighted.pooled, wanted.pooled)


@pytest.mark.parametrize("has_face", [False, True], ids=["no face", "face"])
def test_a_weight_changes_its_own_tokens_only(tiny, identity, has_face):
    face = identity if has_face else None
    weighted = tiny.encode_prompt(["a (red:1.2) coat"], face, weighted=True)
    plain = tiny.encode_prompt(["a red coat"], face)
    empty = tiny.encode_prompt([""], face)
    position = 2 + (len(tokenizer.prefix_ids()) if has_face else 0)
    others = [i for i in range(77) if i != position]
    assert relative_error(weighted.embeddings[:, others], plain.embeddings[:, others]) < 1e-6
    assert relative_error(weighted.pooled, plain.pooled) < 1e-6
    away = plain.embeddings[:, position] - empty.embeddings[:, position]
    assert relative_error(weighted.embeddings[:, position], empty.embeddings[:, position] + 1.2 * away) < 1e-5
    assert relative_error(weighted.embeddings[:, position], plain.embeddings[:, position]) > 1e-3


@pytest.mark.parametrize("has_face", [False, True], ids=["no face", "face"])
def test_a_weight_of_zero_gives_the_empty_prompt_at_its_tokens(tiny, identity, has_face):
    face = identity if has_face else None
    weighted = tiny.encode_prompt(["a (red:0) coat"], face, weighted=True).embeddings[0]
    empty = tiny.encode_prompt([""], face).embeddings[0]
    position = 2 + (len(tokenizer.prefix_ids()) if has_face else 0)
    assert relative_error(weighted[position], empty[position]) < 1e-6
    assert relative_error(weighted[position + 1], empty[position + 1]) > 1e-3


def test_weights_in_a_batch_stay_with_their_prompt(tiny):
    faces = tiny.encode_identity(torch.stack([golden_face(1), golden_face(2)]))
    prompts = ["a (red:1.4) coat", "a blue coat"]
    both = tiny.encode_prompt(prompts, faces, [True, False], weighted=True)
    one = tiny.encode_prompt(prompts[:1], tiny.encode_identity(golden_face(1)[None]), weighted=True)
    two = tiny.encode_prompt(prompts[1:])
    assert relative_error(both.embeddings[0], one.embeddings[0]) < 1e-6
    assert relative_error(both.embeddings[1], two.embeddings[0]) < 1e-6


# ---- long prompts ----


@pytest.mark.parametrize("has_face", [False, True], ids=["no face", "face"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_continued_rows_hold_every_token_once_and_in_order(prompt, has_face):
    rows = tokenize(prompt, has_face, long_prompt="continue")
    tokens = tokenizer.encode((PREFIX if has_face else "") + prompt)[75 - CAPACITY[has_face] :]
    if END not in tokens:
        assert words_of(rows, has_face) == tokens
    if len(tokens) <= CAPACITY[has_face]:
        assert rows == tokenize(prompt, has_face)
    for row in rows:
        assert len(row.ids) == len(row.weights) == 77 and row.ids[0] == START
        if has_face:
            assert row.ids[1:7] == tokenizer.prefix_ids()
        assert set(row.ids[row.ids.index(END) + 1 :]) <= {PAD, *tokens, END}
    if max(map(len, prompt.split()), default=0) < 40:
        for row in rows[:-1]:
            assert tokenizer.ends_word(row.ids[row.ids.index(END) - 1]), "a word was broken"


@pytest.mark.parametrize("has_face", [False, True], ids=["no face", "face"])
def test_the_last_token_that_fits_and_the_first_that_does_not(has_face):
    capacity = CAPACITY[has_face]
    full, over = "cat " * capacity, "cat " * (capacity + 1)
    (row,) = tokenize(full, has_face, long_prompt="continue")
    assert row.ids == reference(full, has_face) and PAD not in row.ids
    first, second = tokenize(over, has_face, long_prompt="continue")
    assert first == row
    assert words_of([second], has_face) == tokenizer.encode("cat")
    assert tokenize(over, has_face) == [row]  # cut, as published


def test_no_word_is_broken_between_rows():
    word = tokenizer.encode("supercalifragilistic")
    assert len(word) > 2
    prompt = "cat " * (CAPACITY[True] - 1) + "supercalifragilistic dog"
    first, second = tokenize(prompt, True, long_prompt="continue")
    assert words_of([first], True) == tokenizer.encode("cat") * (CAPACITY[True] - 1)
    assert words_of([second], True) == word + tokenizer.encode("dog")


@pytest.mark.parametrize("has_face", [False, True], ids=["no face", "face"])
def test_a_word_longer_than_a_row_is_cut_across_rows(has_face):
    word = "qzxj" * 75  # 300 letters that no merge joins into few tokens
    tokens = tokenizer.encode(word)
    assert len(tokens) > CAPACITY[has_face]
    rows = tokenize("a " + word + " b", has_face, long_prompt="continue")
    assert words_of(rows, has_face) == tokenizer.encode("a " + word + " b")
    assert len(words_of(rows[:1], has_face)) == 1 and len(words_of(rows[1:2], has_face)) == CAPACITY[has_face]


def test_weights_go_with_their_tokens_into_further_rows():
    rows = tokenize("cat " * CAPACITY[True] + "(dog:1.3)", True, weighted=True, long_prompt="continue")
    assert [row.weights[7] for row in rows] == [1.0, 1.3]
    assert rows[1].weights[:7] == (1.0,) * 7 and rows[1].weights[8] == 1.0


@pytest.mark.parametrize("has_face", [False, True], ids=["no face", "face"])
def test_embeddings_of_a_continued_prompt(tiny, identity, has_face):
    face, capacity = identity if has_face else None, CAPACITY[has_face]
    parts = ["cat " * capacity, "dog " * capacity, "a red coat"]
    joint = tiny.encode_prompt(["".join(parts)], face, long_prompt="continue")
    assert joint.embeddings.shape == (1, 77 * 3, 96) and joint.pooled.shape == (1, 64)
    alone = [tiny.encode_prompt([part], face) for part in parts]
    for i, part in enumerate(alone):  # each row is what its words alone would give, with the face in it
        assert relative_error(joint.embeddings[:, 77 * i : 77 * (i + 1)], part.embeddings) < 1e-6
    assert relative_error(joint.pooled, alone[0].pooled) < 1e-6
    cut = tiny.encode_prompt(["".join(parts)], face)
    assert torch.equal(cut.embeddings, alone[0].embeddings)


def test_weights_in_the_second_row_change_that_row_only(tiny, identity):
    prompt = "cat " * CAPACITY[True] + "({}:1.3)"
    weighted = tiny.encode_prompt([prompt.format("dog")], identity, weighted=True, long_prompt="continue").embeddings
    plain = tiny.encode_prompt(["cat " * CAPACITY[True] + "dog"], identity, long_prompt="continue").embeddings
    position = 77 + 7
    others = [i for i in range(154) if i != position]
    assert relative_error(weighted[:, others], plain[:, others]) < 1e-6
    assert relative_error(weighted[:, position], plain[:, position]) > 1e-3
