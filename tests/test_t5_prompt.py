"""FaceT5's tokens against transformers' own tokenizers, on prompts of every kind."""

import gzip
import os
import random
from pathlib import Path

import pytest

from faceclip import InputError
from faceclip.model import t5_prompt
from faceclip.model.t5_prompt import END, PAD, tokenize

PROMPTS = [
    "",
    " ",
    "a chef in a kitchen",
    "  two   spaces\tand\na new line  ",
    "naïve café, Straße, Ωμέγα, Привет, 東京の人, العربية, हिन्दी, e\u0301 as two signs",
    "🎨🧑‍🍳 a painter 👍🏽, 🇫🇷",
    "ﬁne ﬂow ½ ² ™ … “quotes” — dash",
    "(film grain:1.2), [brackets], {a|b}, <extra_id_0> and </s> as text",
    "zero\u200bwidth and \ufeff mark and \u0007 bell",
    "WITH CAPITALS and numbers 1234567890 and 3.14159",
    "word " * 600,
    "extraordinarily-long-hyphenated-" * 100,
    "\U0001f600" * 700,
    "&amp; &lt;b&gt; html",
]


@pytest.fixture(scope="module")
def tokenizer_folder() -> Path:
    path = os.environ.get("COMFYUI_PATH")
    folder = Path(path or "") / "comfy" / "text_encoders" / "t5_tokenizer"
    if not path or not folder.is_dir():
        pytest.skip("COMFYUI_PATH names no ComfyUI, whose tokenizer is FLUX's")
    return folder


@pytest.fixture(scope="module")
def reference(tokenizer_folder):
    transformers = pytest.importorskip("transformers")
    return transformers.T5TokenizerFast.from_pretrained(tokenizer_folder)


def test_the_vocabulary_is_the_one_the_host_ships(tokenizer_folder):
    assert gzip.decompress(t5_prompt.VOCABULARY_FILE.read_bytes()) == (tokenizer_folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("text", PROMPTS, ids=lambda text: ascii(text[:20]))
def test_ids_equal_transformers(reference, text):
    wanted = reference(text, padding="max_length", truncation=True, max_length=512).input_ids
    assert list(tokenize(text)[0].ids) == wanted


def test_ids_equal_transformers_on_random_unicode(reference):
    chance = random.Random(0)
    signs = [*range(32, 127), *range(160, 1000), *range(8192, 12000), *range(0x1F300, 0x1F700)]
    for _ in range(300):
        text = "".join(chr(chance.choice(signs)) for _ in range(40))
        wanted = reference(text, padding="max_length", truncation=True, max_length=512).input_ids
        assert list(tokenize(text)[0].ids) == wanted, ascii(text)


@pytest.mark.parametrize("text", PROMPTS, ids=lambda text: ascii(text[:20]))
def test_clip_ids_equal_the_hosts_clip_l(tokenizer_folder, text):
    transformers = pytest.importorskip("transformers")
    clip = transformers.CLIPTokenizerFast.from_pretrained(tokenizer_folder.parent.parent / "sd1_tokenizer")
    wanted = clip(text, truncation=True, max_length=77).input_ids
    assert list(tokenize(text)[0].clip_ids[: len(wanted)]) == wanted


def test_a_row_ends_with_the_end_token_and_pads():
    row = tokenize("a chef")[0]
    assert len(row.ids) == len(row.weights) == 512 and row.ids.count(END) == 1
    assert set(row.ids[row.ids.index(END) + 1 :]) == {PAD}
    full = tokenize("word " * 600)[0]
    assert full.ids[-1] == END and PAD not in full.ids
    assert len(row.clip_ids) == 77


@pytest.mark.parametrize(
    ("text", "plain", "heavy"),
    [
        ("a (red:1.3) coat", "a red coat", ["▁red"]),
        ("(red:1.3) coat", "red coat", ["▁red"]),
        ("a coat (red:1.3)", "a coat red", ["▁red"]),
        ("a (dark red:1.3) coat", "a dark red coat", ["▁dark", "▁red"]),
        ("night(fall:1.3) in Paris", "nightfall in Paris", ["fall"]),
        ("por(trait:1.3) of a cat", "portrait of a cat", []),  # one token, weighed by its beginning
        ("a \\(red\\) (coat:1.3)", "a (red) coat", ["▁coat"]),
    ],
)
def test_weights_leave_the_tokens_of_the_plain_text(text, plain, heavy):
    row = tokenize(text, weighted=True)[0]
    assert row.ids == tokenize(plain)[0].ids and row.clip_ids == tokenize(plain)[0].clip_ids
    words = [t5_prompt._tokenizer().id_to_token(token) for token in row.ids]
    assert [word for word, weight in zip(words, row.weights, strict=True) if weight != 1.0] == heavy
    assert tokenize(text)[0].ids != row.ids  # unweighted, brackets are text


def test_what_is_no_prompt_is_refused():
    with pytest.raises(InputError, match="NoneType"):
        tokenize(None)
    with pytest.raises(InputError, match="long_prompt is 'wrap'"):
        tokenize("a", long_prompt="wrap")
    with pytest.raises(InputError, match="0 to 10"):
        tokenize("(a:11)", weighted=True)
