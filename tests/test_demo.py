"""The demo's parts that need neither a network nor a ComfyUI: commands, prompts, client and server object."""

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from faceclip.comfy import server
from faceclip.comfy.client import Client
from faceclip.comfy.demo import WORKFLOW
from faceclip.comfy.environment import PACK_ROOT
from faceclip.comfy.server import ComfyServer, link_pack
from faceclip.comfy.server_errors import ExecutionFailed, PromptRejected, ServerError
from faceclip.comfy.workflow import SMALL_FILES, SMALL_SETTINGS, fill_in, use_aligned_face


def command(*arguments: str, options: tuple[str, ...] = (), **variables: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "COMFYUI_PATH")}
    return subprocess.run(
        [sys.executable, *options, "-m", "faceclip", *arguments],
        cwd=PACK_ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestCommand:
    def test_works_with_a_bare_python(self):
        # -S leaves out every installed package.
        done = command("demo", "--help", options=("-S",))
        assert done.returncode == 0, done.stderr
        assert "--output" in done.stdout

    def test_lists_the_commands(self):
        listing = command("--help").stdout
        assert "demo" in listing and "convert" in listing

    def test_an_error_is_one_message_without_a_traceback(self, tmp_path):
        done = command("demo", options=("-S",), COMFYUI_PATH=str(tmp_path))
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: COMFYUI_PATH is {tmp_path}, which is no ComfyUI: it has no main.py")
        assert "Traceback" not in done.stderr

    def test_a_missing_output_folder_is_told_before_anything_is_made(self, tmp_path):
        done = command("demo", "--output", str(tmp_path / "no" / "x.png"), FACECLIP_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 1 and "there is no folder" in done.stderr
        assert not (tmp_path / "cache").exists()


class TestPrompt:
    @pytest.fixture
    def portrait(self):
        return json.loads(WORKFLOW.read_text("utf-8"))

    @staticmethod
    def inputs(prompt, class_type):
        return [node["inputs"] for node in prompt.values() if node["class_type"] == class_type]

    def test_files_and_sizes_are_filled_in(self, portrait):
        filled = fill_in(portrait, SMALL_FILES, SMALL_SETTINGS)
        for class_type, file in SMALL_FILES.items():
            (inputs,) = self.inputs(filled, class_type)
            assert file in inputs.values(), class_type
        (sampling,) = self.inputs(filled, "FaceCLIPSampling")
        assert all(sampling[name] == SMALL_SETTINGS[name] for name in ("width", "height", "steps"))
        assert json.loads(WORKFLOW.read_text("utf-8")) == portrait, "the prompt given was changed"

    def test_without_a_detector_a_crop_takes_its_place(self, portrait):
        prompt = use_aligned_face(portrait, "face.png")
        classes = [node["class_type"] for node in prompt.values()]
        assert "FaceCLIPAlignFace" not in classes and "FaceCLIPDetectorLoader" not in classes
        assert self.inputs(prompt, "LoadImage") == [{"image": "face.png"}], "the photo feeds nothing any more"
        links = [v for node in prompt.values() for v in node["inputs"].values() if isinstance(v, list)]
        assert all(link[0] in prompt for link in links)

    def test_a_preview_of_the_crops_is_kept(self):
        prompt = {
            "a": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
            "b": {"class_type": "FaceCLIPAlignFace", "inputs": {"image": ["a", 0], "margin": 1.0}},
            "c": {"class_type": "PreviewImage", "inputs": {"images": ["b", 1]}},
            "d": {"class_type": "PreviewImage", "inputs": {"images": ["a", 0]}},
            "e": {"class_type": "FaceCLIPEncodeIdentity", "inputs": {"face": ["b", 0]}},
        }
        changed = use_aligned_face(prompt, "face.png")
        loader = changed["b"]["inputs"]["image"]
        assert changed["c"]["inputs"]["images"] == loader
        assert changed["d"] == prompt["d"] and changed["a"] == prompt["a"]


@pytest.fixture
def answering():
    """A web server that gives one answer to everything: `answering(status, body)` returns its client."""
    servers = []

    def start(status: int, body: dict | str) -> Client:
        text = body if isinstance(body, str) else json.dumps(body)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST

            def log_message(self, *_):
                pass

        web = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        servers.append(web)
        return Client(f"http://127.0.0.1:{web.server_port}/")

    yield start
    for web in servers:
        web.shutdown()
        web.server_close()


class TestClient:
    def test_a_refused_prompt_names_every_node(self, answering):
        problem = {
            "type": "value_not_in_list",
            "message": "Value not in list",
            "details": "file: 'x'",
            "extra_info": {},
        }
        body = {
            "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt failed", "details": ""},
            "node_errors": {"4": {"errors": [problem], "class_type": "FaceCLIPLoader", "dependent_outputs": ["9"]}},
        }
        with pytest.raises(PromptRejected) as refused:
            answering(400, body).queue({})
        assert refused.value.node_errors == body["node_errors"]
        assert refused.value.messages() == ["Value not in list file: 'x'"]
        assert "Prompt failed\n  node 4, FaceCLIPLoader: Value not in list (file: 'x')" in str(refused.value)

    @pytest.mark.parametrize("body", ["no JSON", {"nothing": "known"}])
    def test_another_answer_is_an_error_of_the_server(self, answering, body):
        with pytest.raises(ServerError, match="answered 400 to /prompt"):
            answering(400, body).queue({})

    def test_nobody_there(self):
        with pytest.raises(ServerError, match="is ComfyUI running there"):
            Client(f"http://127.0.0.1:{server.free_port()}").system_stats()

    def test_an_unknown_node_has_no_information(self, answering):
        assert answering(200, {}).object_info("Nope") == {}

    def test_a_failure_carries_what_the_user_sees(self):
        data = {"node_id": "3", "node_type": "T", "exception_type": "ValueError", "exception_message": "no face\n"}
        assert str(ExecutionFailed(data)) == "node 3, T: ValueError: no face"


SERVING = """
import http.server, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
print("serving", flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVING


class TestServer:
    @pytest.fixture
    def host(self, tmp_path):
        """Makes a ComfyServer around a main.py with the given text."""

        def make(text: str, **options) -> ComfyServer:
            folder = tmp_path / "host"
            folder.mkdir()
            (folder / "main.py").write_text(text)
            return ComfyServer(folder, tmp_path / "base", pack=None, **options)

        return make

    def test_runs_inside_the_block_only(self, host):
        with host(SERVING) as running:
            assert running.is_running()
            assert running.client.system_stats() == {}
        assert not running.is_running()
        assert "serving" in running.log_text()

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_is_stopped_after_an_error_or_ctrl_c(self, host, error):
        running = host(SERVING)
        with pytest.raises(error), running:
            process = running._process
            raise error
        assert process.poll() is not None

    def test_one_that_does_not_want_to_stop_is_stopped(self, host, monkeypatch):
        monkeypatch.setattr(server, "STOP_TIMEOUT", 0.3)
        with host(STUBBORN) as running:
            process = running._process
        assert process.poll() is not None

    def test_one_that_ends_at_once_says_why(self, host):
        running = host("raise SystemExit('no such option')")
        with pytest.raises(ServerError, match="exit code 1.*\n.*no such option"):
            running.start()

    def test_one_that_never_answers_is_given_up(self, host):
        running = host("import time; print('thinking', flush=True); time.sleep(600)")
        started = time.monotonic()
        with pytest.raises(ServerError, match="did not answer .* within 1 s(?s:.*)thinking"):
            running.start(timeout=1)
        assert not running.is_running() and time.monotonic() - started < 30

    def test_a_folder_without_a_host(self, tmp_path):
        with pytest.raises(ServerError, match="no main.py there"):
            ComfyServer(tmp_path, tmp_path / "base").start()

    def test_it_sees_no_network_and_not_our_import_path(self, host, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", str(PACK_ROOT))
        text = (
            "import os; print({k: os.environ.get(k) for k in ('PYTHONPATH', 'HF_HUB_OFFLINE', 'MINE')}, flush=True)\n"
        )
        with host(text + SERVING, environment={"MINE": "x"}) as running:
            assert "{'PYTHONPATH': None, 'HF_HUB_OFFLINE': '1', 'MINE': 'x'}" in running.log_text()


class TestLink:
    @pytest.fixture
    def pack(self, tmp_path):
        pack = tmp_path / "pack"
        (pack / "tests").mkdir(parents=True)
        (pack / "__init__.py").write_text("first")
        return pack

    def test_the_pack_is_linked_and_linked_again(self, tmp_path, pack):
        for _ in range(2):
            place = link_pack(tmp_path, pack)
            assert place == tmp_path / "custom_nodes" / "ComfyUI-FaceCLIP"
            assert (place / "__init__.py").read_text() == "first"

    def test_where_links_cannot_be_made_it_is_copied_anew(self, tmp_path, pack, monkeypatch):
        monkeypatch.setattr(Path, "symlink_to", _refuse)
        for text in ("first", "second"):
            (pack / "__init__.py").write_text(text)
            place = link_pack(tmp_path, pack)
            assert (place / "__init__.py").read_text() == text
            assert not (place / "tests").exists()

    def test_an_installation_of_the_users_is_never_removed(self, tmp_path, pack):
        theirs = tmp_path / "custom_nodes" / "ComfyUI-FaceCLIP" / "mine.py"
        theirs.parent.mkdir(parents=True)
        theirs.touch()
        with pytest.raises(ServerError, match="was not made by this command"):
            link_pack(tmp_path, pack)
        assert theirs.exists()


def _refuse(*_, **__):
    raise OSError("links are not allowed")
