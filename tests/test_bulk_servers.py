"""Sharing the work: over threads with made-up workers, over a made-up ComfyUI with real sockets, and over Ray."""

import argparse
import asyncio
import contextlib
import functools
import io
import json
import os
import sys
import threading
import time
import types

import pytest
from fake_comfy import png
from photo_folders import contents, put
from PIL import Image
from writers import left_over

from faceclip.bulk import work
from faceclip.bulk.cell import Made
from faceclip.bulk.grid import read_grid
from faceclip.bulk.ray_pool import LOCAL, connected, ray_workers
from faceclip.bulk.servers import ServerWorker, check_servers
from faceclip.bulk.store import Store
from faceclip.bulk.work import make_all
from faceclip.comfy import Client
from faceclip.comfy import answers as client_answers
from faceclip.comfy.server_errors import ServerError
from faceclip.errors import FaceCLIPError, InputError
from faceclip.eval import benchmark
from faceclip.train.prepare.crops import Filter
from faceclip.train.prepare.ray_blocks import look_on_ray
from faceclip.train.prepare.shard_job import Settings, prepare


@pytest.fixture
def grid(tmp_path):
    (tmp_path / "ada.png").write_bytes(png(1))
    (tmp_path / "bob.png").write_bytes(png(2))
    text = {
        "identities": [{"pictures": ["ada.png"]}, {"pictures": ["bob.png"]}],
        "prompts": ["one", "two", "three"],
        "seeds": [0, 1],
    }
    (tmp_path / "bench.json").write_text(json.dumps(text), "utf-8")
    return read_grid(tmp_path / "bench.json")


class Kept:
    """A store that counts."""

    def __init__(self):
        self.keys, self.lock = [], threading.Lock()

    def __call__(self, cell, data):
        with self.lock:
            self.keys.append(cell.key)

    def all_once(self, grid) -> bool:
        return sorted(self.keys) == sorted(cell.key for cell in grid.cells)


class Fake:
    """A worker that does what `step` does; `alive` is what revive answers."""

    slots = 1

    def __init__(self, name, step=lambda cell: None, alive=True):
        self.name, self.step, self.alive, self.made, self.cancelled = name, step, alive, 0, False

    def make(self, cell):
        self.made += 1
        time.sleep(0.005)
        self.step(cell)
        return Made(b"picture", "PNG", (1, 1))

    def revive(self, wanted):
        return self.alive

    def cancel(self):
        self.cancelled = True


def trouble(*_):
    raise ServerError("it went away")


def test_several_workers_share_the_work(grid):
    kept, seen, workers = Kept(), [], [Fake("a"), Fake("b"), Fake("c")]
    outcome = make_all(grid.cells, workers, kept, lambda done, total: seen.append((done, total)))
    assert kept.all_once(grid) and outcome.made == 12 and not outcome.failed
    assert seen == [(number, 12) for number in range(1, 13)] and min(worker.made for worker in workers) > 0


def test_the_others_do_the_work_of_a_lost_one(grid):
    kept = Kept()
    outcome = make_all(grid.cells, [Fake("lost", trouble, alive=False), Fake("good")], kept)
    assert kept.all_once(grid) and outcome.lost == {"lost": "it went away"}


def test_without_any_worker_left_it_says_so(grid):
    kept, left = Kept(), [3]

    def step(cell):
        left[0] -= 1
        if left[0] < 0:
            trouble()

    with pytest.raises(ServerError, match="(?s)9 of 12 pictures are missing.*a: it went away"):
        make_all(grid.cells, [Fake("a", step, alive=False)], kept)
    assert len(kept.keys) == 3


def test_one_bad_cell_does_not_stop_the_others(grid):
    kept, bad = Kept(), grid.cells[3].key

    def step(cell):
        if cell.key == bad:
            raise InputError("no face")

    outcome = make_all(grid.cells, [Fake("a", step)], kept)
    assert outcome.made == 11 and outcome.failed == {bad: "a: no face"} and bad not in kept.keys


def test_a_cell_that_always_breaks_the_connection_is_given_up(grid):
    bad = grid.cells[3].key

    def step(cell):
        if cell.key == bad:
            trouble()

    outcome = make_all(grid.cells, [Fake("a", step)], Kept())
    assert outcome.made == 11 and list(outcome.failed) == [bad] and "tried 3 times" in outcome.failed[bad]


def test_when_nothing_works_it_stops_early(grid):
    def step(cell):
        raise FaceCLIPError("wrong workflow")

    worker = Fake("a", step)
    with pytest.raises(FaceCLIPError, match="first 5 pictures all failed.*wrong workflow"):
        make_all(grid.cells, [worker], Kept())
    assert worker.made == 5


def test_a_fault_while_storing_reaches_the_caller(grid):
    def keep(cell, data):
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        make_all(grid.cells, [Fake("a"), Fake("b")], keep)


def test_ctrl_c_cancels_and_keeps_what_is_done(grid, monkeypatch):
    kept, held = Kept(), threading.Event()

    def step(cell):
        if cell.key == grid.cells[4].key:
            held.wait(10)

    class Stopped(Fake):
        def cancel(self):
            super().cancel()
            held.set()

    worker = Stopped("a", step)

    def interrupt(self, timeout=None):  # what Ctrl-C does to the main thread's wait
        deadline = time.monotonic() + 5
        while len(kept.keys) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_all(grid.cells, [worker], kept)
    assert worker.cancelled and len(kept.keys) == 4 and worker.made == 5


def test_a_store_keeps_whole_pictures_only(tmp_path, grid):
    store, (first, second) = Store(tmp_path / "s"), grid.cells[:2]
    with pytest.raises(InputError, match="no whole picture"):
        store.put(first.key, png()[:-40])
    left_over(tmp_path / "s" / f"{second.key}.png")
    assert len(store.missing(grid.cells)) == 12
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "BMP")
    assert store.put(first.key, buffer.getvalue()).suffix == ".png"
    assert len(Store(tmp_path / "s").missing(grid.cells)) == 11
    assert [path.name for path in (tmp_path / "s").iterdir()] == [f"{first.key}.png"]


# --- a made-up ComfyUI


def worker_for(server, grid, **options):
    return ServerWorker(server.url, **options)


def test_two_servers_make_a_grid(comfy, grid, tmp_path):
    servers, store = [comfy(seconds=0.02), comfy(seconds=0.02)], Store(tmp_path / "pictures")
    workers = [worker_for(server, grid) for server in servers]
    check_servers([server.url for server in servers])
    outcome = make_all(grid.cells, workers, lambda cell, made: store.put(cell.key, made.data))
    assert outcome.made == 12 and not store.missing(grid.cells)
    asked = [prompt for server in servers for prompt in server.prompts]
    assert sorted(map(json.dumps, asked)) == sorted(json.dumps(cell.api) for cell in grid.cells)
    for server in servers:
        assert server.prompts and len(server.uploads) <= 2
        for folder, name, data in server.uploads:
            path = next(c.uploads[f"{folder}/{name}"] for c in grid.cells if f"{folder}/{name}" in c.uploads)
            assert data == path.read_bytes()


def test_a_broken_connection_is_tried_again(comfy, grid):
    server, kept = comfy(), Kept()
    server.break_next = 2
    outcome = make_all(grid.cells, [worker_for(server, grid)], kept)
    assert kept.all_once(grid) and outcome.made == 12 and len(server.prompts) == 14


def test_a_server_that_is_gone_leaves_its_work_to_the_other(comfy, grid):
    gone, there, kept = comfy(), comfy(), Kept()
    gone.close()
    time.sleep(0.2)
    outcome = make_all(grid.cells, [worker_for(gone, grid, patience=0.1), worker_for(there, grid)], kept)
    assert kept.all_once(grid) and set(outcome.lost) <= {gone.url}
    with pytest.raises(ServerError):
        check_servers([gone.url])


@pytest.mark.parametrize(("fail", "words"), [("reject", "invalid prompt"), ("nothing", "gives no picture")])
def test_what_the_server_says_is_passed_on(comfy, grid, fail, words):
    with pytest.raises(FaceCLIPError, match=f"(?s)first 5.*{words}"):
        make_all(grid.cells, [worker_for(comfy(fail=fail), grid)], Kept())


def test_too_slow_a_picture_is_cancelled_there(comfy, grid):
    server = comfy(seconds=30)
    with pytest.raises(ServerError, match="not finished"):
        worker_for(server, grid, timeout=0.3).make(grid.cells[0])
    assert len(server.interrupted) == 1 and server.deleted == server.interrupted


def test_stopping_interrupts_our_prompt_only(comfy, grid):
    server = comfy(seconds=30)
    worker, raised = worker_for(server, grid), []

    def make():
        try:
            worker.make(grid.cells[0])
        except FaceCLIPError as error:
            raised.append(error)

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not (server.running and worker._all and worker._all[0].prompt_id) and time.monotonic() < deadline:
        time.sleep(0.01)
    ours, server.running = server.running, "somebody else's"
    worker.cancel()
    assert server.interrupted == [] and server.deleted == [ours]
    server.running = ours
    worker.cancel()
    thread.join(10)
    assert server.interrupted == [ours] and "cancelled" in str(raised[0])


def test_a_stop_while_a_prompt_is_being_queued_still_cancels_it(comfy, grid):
    server = comfy(seconds=30)
    worker = worker_for(server, grid)
    worker.cancel()
    with pytest.raises(ServerError, match="stopped"):
        worker.make(grid.cells[0])
    assert set(server.deleted) == set(server.interrupted) and len(set(server.deleted)) == 1


def test_the_client_asks_again_and_queues_once(comfy):
    """While a proxy says that the server is not up: questions and uploads are sent again, a prompt is not."""
    server = comfy()
    server.away_until = time.monotonic() + 0.25
    with pytest.raises(ServerError, match="answered 503"):
        Client(server.url).queue({})
    assert Client(server.url).system_stats() == {}
    server.away_until = time.monotonic() + 0.25
    assert Client(server.url).upload_image(png(), "a.png", "b") == "b/a.png" and len(server.uploads) == 1
    server.away_until = time.monotonic() + 0.25
    with pytest.raises(ServerError, match="answered 503"):
        Client(server.url, retries=0).system_stats()
    assert not server.prompts


def test_an_address_is_checked():
    with pytest.raises(InputError, match="http://127.0.0.1:8188"):
        ServerWorker("localhost")


# --- servers that are none, old, or mad: each costs at most its own cell or its own worker


def text(body, content_type="application/json"):
    """An answer with this text, to whatever is asked."""

    async def answer(request):
        from aiohttp import web

        return web.Response(text=body, content_type=content_type)

    return answer


def body(data):
    async def answer(request):
        from aiohttp import web

        return web.Response(body=data)

    return answer


async def endless(request):
    from aiohttp import web

    answer = web.StreamResponse()
    await answer.prepare(request)
    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
        while True:
            await answer.write(b"and so on " * 10_000)
    return answer


async def cut_short(request):
    """Says that there is more to come, and goes."""
    from aiohttp import web

    answer = web.StreamResponse(headers={"Content-Length": "1000000"})
    await answer.prepare(request)
    await answer.write(b"the beginning")
    request.transport.close()
    return answer


async def no_socket(request):
    from aiohttp import web

    return web.Response(text="<html>a socket? here?</html>", content_type="text/html")


async def mad_socket(request):
    from aiohttp import web

    socket = web.WebSocketResponse()
    await socket.prepare(request)
    for message in ("[1, 2]", '"x"', '{"type": 3, "data": 4}', "{" * 10_000):
        await socket.send_str(message)
    return socket


HTML = text("<html><body>Welcome to nginx!</body></html>", "text/html")
MAD = {
    "html everywhere": (
        dict.fromkeys(["post_upload", "post_prompt", "get_history", "get_view"], HTML),
        "Welcome to nginx",
    ),
    "html for a picture": ({"get_view": HTML}, "Welcome to nginx"),
    "a cut picture": ({"get_view": body(png()[:-30])}, "no whole picture"),
    "no picture": ({"get_view": body(b"")}, "it is empty"),
    "an endless picture": ({"get_view": endless}, "and so on"),
    "a broken off picture": ({"get_view": cut_short}, "the beginning"),
    "an endless table": ({"get_history": endless}, "and so on"),
    "a list": ({"post_prompt": text("[1, 2, 3]")}, "[1, 2, 3]"),
    "a number": ({"get_history": text("5")}, "begins with '5'"),
    "brackets": ({"get_history": text("[" * 100_000)}, "is no JSON"),
    "an old answer": ({"post_prompt": text('{"number": 7, "node_errors": {}}')}, '"number": 7'),
    "an id of numbers": ({"post_prompt": text('{"prompt_id": 7}')}, '"prompt_id": 7'),
    "no name": ({"post_upload": text('{"filename": "x"}')}, '"filename"'),
    "outputs of a list": ({"get_history": text('{"ID": {"outputs": [1]}}')}, None),
    "no socket": ({"get_ws": no_socket}, "no websocket"),
    "a mad socket": ({"get_ws": mad_socket, "post_prompt": text('{"prompt_id": "p"}')}, "is no JSON"),
}


@pytest.mark.parametrize("name", MAD)
def test_a_mad_server_costs_itself_and_never_the_grid(comfy, grid, monkeypatch, name):
    monkeypatch.setattr(client_answers, "LONGEST_ANSWER", 2**20)
    answers, words = MAD[name]
    mad, good, kept = comfy(answers=answers), comfy(seconds=0.05), Kept()
    workers = [worker_for(mad, grid, patience=0.1, timeout=5), worker_for(good, grid)]
    outcome = make_all(grid.cells, workers, kept)
    assert kept.all_once(grid) and not outcome.failed and set(outcome.lost) <= {mad.url}
    assert len(good.prompts) == len(grid.cells)
    if words:
        with pytest.raises(FaceCLIPError) as caught:
            worker_for(mad, grid, timeout=5).make(grid.cells[0])
        assert words in str(caught.value) and len(str(caught.value)) < 1000, caught.value


@pytest.mark.parametrize("status", [400, 404, 500])
@pytest.mark.parametrize(
    "answer", ["<html>no</html>", '{"error": 5}', '{"error": {"message": 3}, "node_errors": [1]}', ""]
)
def test_a_server_that_only_says_no(comfy, grid, answer, status):
    async def refuse(request):
        from aiohttp import web

        return web.Response(text=answer, status=status)

    mad, good, kept = comfy(answers={"post_prompt": refuse}), comfy(seconds=0.05), Kept()
    outcome = make_all(grid.cells, [worker_for(mad, grid, patience=0.1), worker_for(good, grid)], kept)
    assert kept.all_once(grid) and not outcome.failed


def test_a_server_that_refuses_everything_is_given_up_and_its_cells_go_to_others(grid):
    def refuse(cell):
        raise FaceCLIPError("an old version")

    kept, bad = Kept(), Fake("bad", refuse)
    outcome = make_all(grid.cells, [bad, Fake("good", lambda cell: time.sleep(0.05))], kept)
    assert kept.all_once(grid) and not outcome.failed and bad.made <= 5
    assert not outcome.lost or "first 5 pictures all failed" in outcome.lost["bad"]


def test_a_server_in_trouble_over_three_pictures_in_a_row_is_given_up(grid):
    kept, bad = Kept(), Fake("bad", trouble)
    outcome = make_all(grid.cells, [bad, Fake("good", lambda cell: time.sleep(0.05))], kept)
    assert kept.all_once(grid) and not outcome.failed and outcome.lost == {"bad": "it went away"} and bad.made == 3


def test_servers_that_cannot_be_used_are_named_and_the_others_go_on(comfy):
    there, page, old = comfy(), comfy(answers={"get_object_info": HTML}), comfy(answers={"get_object_info": text("{}")})
    problems = check_servers([there.url, page.url, old.url])
    assert problems.keys() == {page.url, old.url}
    assert "Welcome to nginx" in problems[page.url] and "no ComfyUI-FaceCLIP" in problems[old.url]
    with pytest.raises(ServerError, match="(?s)Welcome to nginx.*no ComfyUI-FaceCLIP"):
        check_servers([page.url, old.url])


# --- Ray


def dying_worker(marker, url):
    """A worker whose process dies at its third picture, once."""
    state = types.SimpleNamespace(made=0)

    def make(cell, read):
        state.made += 1
        if state.made == 3 and url == "http://a":
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os._exit(1)
        time.sleep(0.05)
        return Made(read(next(iter(cell.uploads))) + cell.key.encode() + str(os.getpid()).encode(), "PNG", (1, 1))

    return types.SimpleNamespace(name=url, look_back=False, make=make, revive=lambda wanted: True, cancel=lambda: None)


@pytest.fixture(scope="module")
def ray_here():
    ray = pytest.importorskip("ray", reason="ray is not installed (it is an optional extra of the evaluation)")
    variables = pytest.MonkeyPatch()
    variables.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's processes cannot import a test file: what they need of it travels as code.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(connected(LOCAL))
        except ServerError:  # Ray gives itself 30 s, which a busy machine may not give it; then it is quicker
            ray.shutdown()
            stack.enter_context(connected(LOCAL))
        yield ray
    variables.undo()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_ray_prepares_the_same_shards_as_one_process(ray_here, tmp_path, photos, yunet_path):
    """`prepare --ray`, here because Ray takes long to start."""
    pytest.importorskip("webdataset", reason="training's own requirements are not installed")
    folder = tmp_path / "photos"
    for number in range(4):
        put(folder, f"{number}.png", image=Image.fromarray(photos["astronaut"][:, number * 8 :]))
    settings = Settings(yunet_path, Filter(min_side=100, resolution=0, min_face=40), photos_per_shard=2)
    alone = prepare([folder], tmp_path / "alone", settings)
    told = []
    looked = functools.partial(look_on_ray, LOCAL)
    shared = prepare([folder], tmp_path / "ray", settings, progress=lambda *done: told.append(done), run_jobs=looked)
    assert alone == shared and told[-1] == (4, 4) and shared.samples == 4
    assert contents(tmp_path / "alone") == contents(tmp_path / "ray")


@pytest.mark.parametrize("urls", [("http://a", "http://b"), ("http://a",)])
def test_ray_makes_every_cell_once_though_an_actor_dies(ray_here, grid, tmp_path, urls):
    kept, marker, results = Kept(), tmp_path / "died", {}

    def keep(cell, data):
        kept(cell, data)
        results[cell.key] = data.data

    factory = functools.partial(dying_worker, str(marker))
    with ray_workers(LOCAL, urls, factory) as workers:
        outcome = make_all(grid.cells, workers, keep)
    assert marker.exists(), "no actor died"
    assert kept.all_once(grid) and outcome.made == 12 and not outcome.failed and not outcome.lost
    processes = {data.split(key.encode())[1] for key, data in results.items()}
    # The dead actor's, and whoever went on: the other one, the one in its place, or both.
    assert 2 <= len(processes) <= len(urls) + 1
    for cell in grid.cells:
        (photo,) = cell.uploads.values()
        assert results[cell.key].startswith(photo.read_bytes() + cell.key.encode())


def test_ray_passes_on_whose_fault_it_was(ray_here, comfy, grid):
    good, bad, kept = comfy(), comfy(fail="reject"), Kept()
    with ray_workers(LOCAL, [good.url]) as (worker,):
        make_all(grid.cells[:2], [worker], kept)
        assert len(kept.keys) == 2 and len(good.prompts) == 2 and len(good.uploads) == 1
    with ray_workers(LOCAL, [bad.url]) as (worker,):
        with pytest.raises(FaceCLIPError, match="invalid prompt") as caught:
            worker.make(grid.cells[0])
        assert not isinstance(caught.value, ServerError)


@pytest.mark.parametrize("through", [(), ("--ray", LOCAL)])
def test_the_command_makes_pictures(request, comfy, grid, tmp_path, through, capsys):
    if through:
        request.getfixturevalue("ray_here")
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    servers = [comfy(), comfy()]
    addresses = [part for server in servers for part in ("--server", server.url)]
    command = [str(tmp_path / "bench.json"), "--out", str(tmp_path / "out"), *addresses, *through]
    assert benchmark.run(parser.parse_args(command)) == 0
    assert sum(len(server.prompts) for server in servers) == 12
    assert (
        not Store(tmp_path / "out" / benchmark.PICTURES).missing(grid.cells)
        and (tmp_path / "out" / benchmark.PAGE).is_file()
    )
    assert "12 pictures to make." in capsys.readouterr().out
    assert benchmark.run(parser.parse_args(command)) == 0
    assert sum(len(server.prompts) for server in servers) == 12, "nothing was missing, so nothing was made"


def test_stop_waits_only_so_long(grid, monkeypatch):
    monkeypatch.setattr(work, "_STOP_SECONDS", 0.2)
    never = threading.Event()
    kept = Kept()

    def step(cell):
        if cell.key == grid.cells[1].key:
            never.wait(20)
        else:
            raise OSError("a fault of ours")

    started = time.monotonic()
    with pytest.raises(OSError, match="ours"):
        make_all([grid.cells[1], *grid.cells[2:]], [Fake("held", step), Fake("faulty", step)], kept)
    assert time.monotonic() - started < 5 and kept.keys == []
    never.set()
