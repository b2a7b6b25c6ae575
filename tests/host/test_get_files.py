"""The panel that brings the published files, in a real browser, from a stand-in hub on loopback."""

import json
import os
import socket
import time
import urllib.error
import urllib.request

import pytest
from browser import Page

from faceclip.install import published
from workflows.build import FOLDER, title_of

OPEN = "app.extensionManager.command.execute('FaceCLIP.GetFiles')"
SFACE, YUNET = published.SFACE, published.YUNET
OFFERED = (published.ENCODER, published.UNET, published.VAE, YUNET, SFACE)
BLOCK = 10 * 2**20  # what the hub's client writes at once


@pytest.fixture
def page(empty, page_of):
    return page_of(empty, nodes2=False).show()


def serve(hub, file, content: bytes, **behaviour) -> None:
    hub.files = {f"/{file.repo}/resolve/main/{file.path}": content}
    hub.etag, hub.pause_at = file.sha256, None
    hub.asked.clear()
    for name, value in behaviour.items():
        setattr(hub, name, value)


def open_panel(page) -> None:
    page.run(f"await {OPEN}")
    page.find(".faceclip-files")


def row(key: str, part: str) -> str:
    return f".faceclip-files [data-file={key}] {part}"


def accept_and_download(page, key: str) -> None:
    assert not page.find(row(key, "button")).is_enabled(), "not before the licence is accepted"
    page.find(row(key, "input")).click()
    page.find(row(key, "button")).click()


def says(page, key: str, text: str, timeout: float = 60) -> None:
    page.wait(
        f"return document.querySelector({row(key, '.faceclip-state')!r})?.textContent.includes({text!r})", timeout
    )


def post(server, body: dict, **headers: str):
    request = urllib.request.Request(
        f"{server.url}/faceclip/download", json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return json.load(answer)


def folder_of(server, file):
    return server.base_directory / "models" / file.folder


def test_a_template_without_its_files_offers_the_panel(page):
    text = (FOLDER / f"{title_of('portrait')}.json").read_text("utf-8")
    workflow = json.loads(text)
    del workflow["extra"]["faceclip"]  # as saved by a user: it stays what it is
    page.open(workflow, "without files")
    assert "face_clip_encoder.pt" in page.find(".faceclip-offer").text
    page.find(".faceclip-offer button").click()
    listed = page.find(".faceclip-files").text
    for file in OFFERED:
        assert file.name in listed and file.licence in listed and f"models/{file.folder}" in listed
    shown = page.driver.find_elements("css selector", ".faceclip-files strong")
    assert [name.text.split()[0] for name in shown] == [file.name for file in OFFERED]


def test_a_file_arrives_whole_in_its_folder(page, empty, hub, yunet_path, tmp_path_factory):
    serve(hub, YUNET, yunet_path.read_bytes())
    open_panel(page)
    accept_and_download(page, "yunet")
    says(page, "yunet", "Here as")
    page.screenshot(tmp_path_factory.getbasetemp() / "get the files.png")
    assert (folder_of(empty, YUNET) / YUNET.name).read_bytes() == yunet_path.read_bytes()


def test_a_second_click_a_closed_page_and_a_stop_leave_one_download_that_goes_on(page, empty, hub):
    serve(hub, SFACE, bytes(SFACE.size), pause_at=BLOCK + 2**20)
    open_panel(page)
    accept_and_download(page, "sface")
    says(page, "sface", "of 37 MB")
    asked = len(hub.ranges)
    post(empty, {"key": "sface", "accepted": True})  # another click, from another tab
    page.reload()
    open_panel(page)
    says(page, "sface", "of 37 MB")
    assert len(hub.ranges) == asked == 1
    page.find(row("sface", "button")).click()
    hub.pause_at = None  # the line goes on, and with it the block that is under way
    says(page, "sface", "Stopped at")
    (part,) = folder_of(empty, SFACE).glob(".*.incomplete")
    assert BLOCK <= part.stat().st_size < SFACE.size
    assert not (folder_of(empty, SFACE) / SFACE.name).exists()
    here = part.stat().st_size
    accept_and_download(page, "sface")  # goes on; what comes is not the published file
    says(page, "sface", "is not the published")
    assert hub.ranges[-1] == f"bytes={here}-"
    assert list(folder_of(empty, SFACE).iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_a_full_disk_is_said(page, empty, hub):
    serve(hub, SFACE, bytes(SFACE.size))
    part = folder_of(empty, SFACE) / f".{SFACE.name}.{SFACE.sha256[:12]}.incomplete"
    part.symlink_to("/dev/full")
    open_panel(page)
    accept_and_download(page, "sface")
    says(page, "sface", "disk is full")
    part.unlink(missing_ok=True)


def test_elsewhere_the_panel_shows_the_command_and_the_server_refuses(empty, hub, chromium):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing; tells this machine's own address
        address = probe.getsockname()[0]
    page = Page(chromium, empty.url.replace("127.0.0.1", address)).show()
    open_panel(page)
    assert "python -m faceclip download sface" in page.find(".faceclip-files").text
    assert not page.driver.find_elements("css selector", ".faceclip-files input")
    status = page.run(
        "return (await fetch('/faceclip/download', { method: 'POST', headers: { 'Content-Type': 'application/json' },"
        " body: JSON.stringify({ key: 'sface', accepted: true }) })).status"
    )
    assert status == 403


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"key": "sface"}, {}, 400),
        ({"key": "sface", "accepted": "yes"}, {}, 400),
        ({"key": "../../etc", "accepted": True}, {}, 400),
        ({"key": ["sface"], "accepted": True}, {}, 400),
        ({"key": "dit", "accepted": True}, {}, 400),  # published, but not one of the panel's
        ({"key": "sface", "accepted": True}, {"Origin": "http://evil.example"}, 403),
        ({"key": "sface", "accepted": True}, {"X-Forwarded-For": "203.0.113.9"}, 403),
        ({"key": "sface", "accepted": True}, {"Content-Type": "text/plain"}, 400),
    ],
)
def test_what_is_not_a_persons_own_wish_downloads_nothing(empty, hub, body, headers, status):
    serve(hub, SFACE, bytes(SFACE.size))
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(empty, body, **headers)
    assert refused.value.code == status
    time.sleep(0.2)
    assert not hub.asked
