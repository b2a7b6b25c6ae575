"""Pictures with their likeness, and the chart, in both renderers of two front ends."""

import graphs

from faceclip.comfy.workflow import SMALL_FILES
from workflows import build

SCORES = "[...document.querySelectorAll('.faceclip-score')].filter((e) => e.getClientRects().length)"
COMPARED = {
    "identity": ["identity", 0],
    "detector": ["detector", 0],
    "faceclip": ["faceclip", 0],
    "judge": "FaceCLIP's face encoder",
    "min_score": 0.6,
}
LAYOUT = {
    "rows": [
        [
            {
                "title": "Compare",
                "color": "#888",
                "columns": [
                    ["photo", "nobody", "batch"],
                    ["detector", "align", "faceclip", "identity"],
                    ["best", "show"],
                    ["like", "value", "chart"],
                ],
            }
        ]
    ]
}


def workflow(view, count: int) -> dict:
    """Nobody and the person, compared; the best of them; and a chart of one value."""
    prompt = {
        "photo": {"class_type": "LoadImage", "inputs": {"image": "astronaut.png"}},
        "nobody": {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 999}},
        "batch": {"class_type": "ImageBatch", "inputs": {"image1": ["nobody", 0], "image2": ["photo", 0]}},
        "faceclip": {
            "class_type": "FaceCLIPLoader",
            "inputs": {"file": SMALL_FILES["FaceCLIPLoader"], "precision": "auto"},
        },
        **graphs.detected(),
        "identity": {
            "class_type": "FaceCLIPEncodeIdentity",
            "inputs": {"faceclip": ["faceclip", 0], "face": ["align", 0]},
        },
        "like": {"class_type": "FaceCLIPSimilarity", "inputs": {**COMPARED, "image": ["photo", 0]}},
        "best": {"class_type": "FaceCLIPPickBest", "inputs": {**COMPARED, "image": ["batch", 0], "count": count}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["best", 0]}},
        "value": {"class_type": "PrimitiveFloat", "inputs": {"value": 0.5}},
        "chart": {
            "class_type": "FaceCLIPLikenessChart",
            "inputs": {"similarity": ["like", 0], "swept": ["value", 0], "label": f"strength {count}"},
        },
    }
    return build.build("compare", prompt, LAYOUT, view.run("return await (await fetch('/object_info')).json()"))


def test_pictures_are_compared_by_eye(view, yunet_name, tmp_path_factory):
    view.open(workflow(view, 1 + view.nodes2), "compare")
    view.queue()
    view.wait(f"return {SCORES}.length === 3", 120)
    badges = view.run(f"return {SCORES}.map((e) => e.innerText.trim())")
    assert sorted(badges)[-1] == "no face" + (" ✓" if view.nodes2 else "")
    assert "1.000 ✓" in badges and "1.000" in badges
    view.wait(f"return {SCORES}.every((e) => e.querySelector('img').naturalWidth > 0)")
    view.wait("return document.querySelector('.faceclip-chart img')?.naturalWidth === 768")
    view.screenshot(tmp_path_factory.getbasetemp() / f"compare {view.nodes2} {view.url[-4:]}.png")
    # In the order they came, then the best first.
    best = (
        "const [c] = [...document.querySelectorAll('.faceclip-comparison')]"
        ".filter((e) => e.querySelectorAll('.faceclip-score').length === 2);"
    )
    order = best + "return [...c.querySelectorAll('figcaption')].map((e) => e.innerText.split(' ')[0])"
    assert view.run(order) == ["no", "1.000"]
    view.driver.execute_script(best + "return c.querySelector('button')").click()
    assert view.run(order) == ["1.000", "no"]
    # Gone with their inputs.
    view.set("FaceCLIPPickBest", "min_score", 0.7)
    view.wait(f"return {SCORES}.length === 1")
