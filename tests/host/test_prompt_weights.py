"""Prompt weights mean what they mean in the host's own text encoders."""

import json
import os
import subprocess
import sys

import pytest

from faceclip.model.prompt import parse_weights

PROMPTS = [
    "",
    "a red coat",
    "a (red:1.2) coat",
    "a (red) coat",
    "((red)) (((blue))) coat",
    "(a (b:1.5) c:0.5)",
    "(a (b) c:0.5)",
    "(a ((b) c (d:1.3)) e:0.7) f",
    "((a:1.5):2)",
    "(a:1.0) b",
    "a (b:1) c",
    "(a:1.2)(b:1.2)",
    "(a:0)(b: 1.5 )(c:1e0)",
    "(a:b:1.5) (a:b) (a:)",
    "(:1.5)",
    "() a ()",
    "a:1.5",
    r"a \(red:1.2\) coat",
    r"(a \(b\):1.3) \(",
    r"\\(a\\) (b)",
    r"C:\path (b)",
    "[a] {b} <c:1.2>",
    "(multi\nline, text:1.25), (日本:1.1) é",
]
# Run inside the host, and joined here: the host keeps neighbours of equal weight apart.
CODE = """
import json, sys
import comfy.options
comfy.options.enable_args_parsing()
from comfy import sd1_clip
read = lambda text: [(sd1_clip.unescape_important(piece), weight) for piece, weight in
                     sd1_clip.token_weights(sd1_clip.escape_important(text), 1.0)]
print("ANSWER" + json.dumps([read(text) for text in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def host_weights(comfyui):
    done = subprocess.run(
        [sys.executable, "-c", CODE, "--cpu"],
        cwd=comfyui,
        env={**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": ""},
        input=json.dumps(PROMPTS),
        capture_output=True,
        text=True,
        timeout=120,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert answers, done.stdout + done.stderr
    return dict(zip(PROMPTS, json.loads(answers[0].removeprefix("ANSWER")), strict=True))


def joined(pieces):
    result = []
    for text, weight in pieces:
        if result and result[-1][1] == weight:
            result[-1] = (result[-1][0] + text, weight)
        elif text:
            result.append((text, weight))
    return result


@pytest.mark.parametrize("prompt", PROMPTS)
def test_weights_are_read_as_the_host_reads_them(host_weights, prompt):
    assert parse_weights(prompt) == joined(host_weights[prompt])
