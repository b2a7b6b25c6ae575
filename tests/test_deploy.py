"""What deploy/ holds is whole and fits: nothing of it was run, as no Docker and no cluster is here."""

import re
import shutil
import subprocess
import sys

import pytest

from faceclip.__main__ import COMMANDS
from faceclip.comfy.environment import PACK_ROOT

yaml = pytest.importorskip("yaml", reason="PyYAML comes with ComfyUI")
DEPLOY = PACK_ROOT / "deploy"
INSTRUCTIONS = {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "CMD"}
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile*"))


def instructions(path) -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_is_whole(path):
    found = instructions(path)
    assert found[0][0] == "FROM" and {name for name, _ in found} <= INSTRUCTIONS
    assert ":" in found[0][1] and not found[0][1].endswith(":latest"), "a version that stays"
    for name, rest in found:
        if name == "COPY":
            assert (PACK_ROOT / rest.split()[0]).exists(), rest
    users = [rest for name, rest in found if name == "USER"]
    assert users and users[-1] != "root", "a server of strangers' graphs does not run as root"
    assert "Not run where it was written" in path.read_text("utf-8")
    if shutil.which("hadolint"):
        subprocess.run(["hadolint", path], check=True)


def test_the_image_starts_the_server_that_the_manifest_asks():
    commands = [rest for name, rest in instructions(DEPLOY / "Dockerfile") if name == "CMD"]
    assert "8188" in commands[-1] and "/data" in commands[-1]
    parts = manifest()
    server = parts["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]
    assert server["ports"][0]["containerPort"] == 8188
    assert {mount["mountPath"] for mount in server["volumeMounts"]} == {"/data", "/data/models"}


def manifest() -> dict[str, dict]:
    found = list(yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text("utf-8")))
    assert all(part["apiVersion"] and part["metadata"]["name"] for part in found)
    return {part["kind"]: part for part in found}


def test_the_manifest_fits_itself():
    parts = manifest()
    assert set(parts) == {"Service", "StatefulSet", "NetworkPolicy", "ConfigMap", "RayJob"}
    service, servers, job = parts["Service"], parts["StatefulSet"]["spec"], parts["RayJob"]["spec"]
    labels = servers["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == servers["selector"]["matchLabels"] == labels
    assert parts["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    names = [f"http://comfyui-{number}.{service['metadata']['name']}:8188" for number in range(servers["replicas"])]
    assert parts["ConfigMap"]["data"]["servers.txt"].split() == names, "as many servers as there are"
    groups = [job["rayClusterSpec"]["headGroupSpec"], *job["rayClusterSpec"]["workerGroupSpecs"]]
    for spec in [servers["template"]["spec"], *(group["template"]["spec"] for group in groups)]:
        volumes = {volume["name"] for volume in spec.get("volumes", ())}
        for container in spec["containers"]:
            assert container["image"] and container["resources"]["limits"]
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes


def test_what_hands_the_work_out_needs_no_torch():
    code = "import sys, faceclip.bulk.command, faceclip.bulk.ray_pool; print({'torch', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACK_ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_job_is_a_command_of_ours():
    import argparse
    import shlex
    from importlib import import_module

    program, *rest = shlex.split(manifest()["RayJob"]["spec"]["entrypoint"])
    assert program == "python" and rest[:3] == ["-m", "faceclip", "make"]
    parser = argparse.ArgumentParser()
    import_module(COMMANDS["make"][0], "faceclip").add_arguments(parser)
    assert parser.parse_args(rest[3:]).ray == "auto"
