"""Downloads from a server that breaks off, lies, ignores what it is asked, is slow, or has something else."""

import errno
import hashlib
import json
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from minillama.__main__ import main
from minillama.data import downloads as module
from minillama.data import fetch as receiving
from minillama.data.downloads import DOWNLOADS, Download, download
from minillama.data.fetch import File, fetch

CONTENT = np.random.default_rng(0).bytes(700_000)  # a few reads
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A server of one file that behaves as the attributes say; asked are the headers of the requests so far."""

    content, etag, status = CONTENT, '"v1"', 200
    ranges = True  # whether it knows what Range means
    announced = None  # Content-Length, where it is not the right one; 0 for none
    breaks_after = None  # bytes of the body
    silence = 0.0  # seconds before the body
    wrong_range = False
    moved = False  # whether it sends on to another address, as Hugging Face does

    def __init__(self):
        self.asked, self.paths, self.stopped = [], [], threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(dict(self.headers))
                server.paths.append(self.path)
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, request):
        if self.moved and not request.path.startswith("/moved"):
            request.send_response(302)
            request.send_header("Location", "/moved" + request.path)
            request.end_headers()
            return
        if self.status != 200:
            request.send_error(self.status)
            return
        body, start = self.content, 0
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        same = request.headers.get("If-Range", self.etag) == self.etag
        if wanted and self.ranges and same:
            start = int(wanted[1])
            if start >= len(body):
                request.send_error(416)
                return
            request.send_response(206)
            first = start - 1 if self.wrong_range else start
            request.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        else:
            request.send_response(200)
        if self.etag:
            request.send_header("ETag", self.etag)
        body = body[start:]
        if self.announced != 0:
            request.send_header("Content-Length", str(self.announced or len(body)))
        request.end_headers()
        self.stopped.wait(self.silence)
        try:
            request.wfile.write(body[: self.breaks_after])
        except ConnectionError:
            pass

    def close(self):
        self.stopped.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = Server()
    yield server
    server.close()


@pytest.fixture
def file(server):
    return File("model.bin", f"{server.address}/model.bin", len(CONTENT), DIGEST)


def get(file, folder, **options):
    fetch(file, folder, **{"timeout": 5, "quiet": True, **options})
    return (folder / file.name).read_bytes()


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_file_is_received_whole(file, server, tmp_path):
    assert get(file, tmp_path / "new" / "folder") == CONTENT
    assert names(tmp_path / "new" / "folder") == ["model.bin"]
    assert "Range" not in server.asked[0]


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"', None])
def test_what_broke_off_goes_on_where_it_was(etag, file, server, tmp_path):
    server.breaks_after, server.etag = 300_000, etag
    for have in (300_000, 600_000):
        with pytest.raises(
            ConnectionError, match=f"broke off .* after {have:,} bytes .* kept in .*model.bin.part.*again"
        ):
            get(file, tmp_path)
        assert (tmp_path / "model.bin.part").read_bytes() == CONTENT[:have] and not (tmp_path / "model.bin").exists()
    assert get(file, tmp_path) == CONTENT and names(tmp_path) == ["model.bin"]
    assert [headers.get("Range") for headers in server.asked] == [None, "bytes=300000-", "bytes=600000-"]
    assert [headers.get("If-Range") for headers in server.asked[1:]] == [etag if etag == '"v1"' else None] * 2


def test_a_server_that_sends_on_is_followed(file, server, tmp_path):
    server.moved, server.breaks_after = True, 300_000
    with pytest.raises(ConnectionError, match="goes on from there"):
        get(file, tmp_path)
    del server.breaks_after
    assert get(file, tmp_path) == CONTENT
    assert server.paths == ["/model.bin", "/moved/model.bin"] * 2
    assert server.asked[3]["Range"] == "bytes=300000-" and server.asked[3]["If-Range"] == '"v1"'


def test_a_file_that_changed_meanwhile_begins_anew(file, server, tmp_path):
    file = file._replace(size=None, sha256=None)
    server.breaks_after, server.content, server.etag = 300_000, b"old" * 200_000, '"old"'
    with pytest.raises(ConnectionError, match="goes on from there"):
        get(file, tmp_path)
    del server.breaks_after, server.content, server.etag
    assert get(file, tmp_path) == CONTENT
    assert server.asked[1]["If-Range"] == '"old"'


def test_where_nothing_shows_what_belongs_together_it_begins_anew(file, server, tmp_path):
    file = file._replace(sha256=None)
    server.breaks_after, server.etag = 300_000, None
    with pytest.raises(ConnectionError, match="it begins anew"):
        get(file, tmp_path)
    del server.breaks_after
    assert get(file, tmp_path) == CONTENT and "Range" not in server.asked[1]


def test_a_server_that_ignores_ranges_sends_all_again(file, server, tmp_path, capsys):
    server.breaks_after, server.ranges = 300_000, False
    with pytest.raises(ConnectionError):
        get(file, tmp_path)
    del server.breaks_after
    assert get(file, tmp_path, quiet=False) == CONTENT
    assert "Range" in server.asked[1] and "sends it from its beginning" in capsys.readouterr().err


def test_a_wrong_part_is_not_used(file, server, tmp_path):
    (tmp_path / "model.bin.part").write_bytes(CONTENT[:1000])
    (tmp_path / "model.bin.part.etag").touch()
    server.wrong_range = True
    assert get(file, tmp_path) == CONTENT
    assert [headers.get("Range") for headers in server.asked] == ["bytes=1000-", None]


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_that_is_whole_or_too_long(length, file, server, tmp_path):
    (tmp_path / "model.bin.part").write_bytes((CONTENT + b"12345")[:length])
    (tmp_path / "model.bin.part.etag").touch()
    assert get(file, tmp_path) == CONTENT
    assert len(server.asked) == (length > len(CONTENT))


def test_parts_records_and_rejects_of_others_are_left_alone(file, server, tmp_path):
    (tmp_path / "model.bin.part").write_bytes(CONTENT[:1000])  # as a browser leaves it
    with pytest.raises(FileExistsError, match="model.bin.part was not begun here.* move it away"):
        get(file, tmp_path)
    assert (tmp_path / "model.bin.part").read_bytes() == CONTENT[:1000] and not server.asked
    (tmp_path / "model.bin.part").unlink()
    (tmp_path / "model.bin.sha256").write_text("mine")
    with pytest.raises(FileExistsError, match="model.bin.sha256 is there already; nothing was changed. Move it away"):
        get(file._replace(sha256=None), tmp_path)
    (tmp_path / "model.bin.rejected").write_text("mine too")
    with pytest.raises(ValueError, match="kept as .*model.bin.rejected-2"):
        get(file._replace(sha256="0" * 64), tmp_path)
    assert (tmp_path / "model.bin.rejected").read_text() == "mine too"
    assert (tmp_path / "model.bin.sha256").read_text() == "mine"


def test_a_part_that_is_longer_than_what_the_server_has_now(file, server, tmp_path):
    (tmp_path / "model.bin.part").write_bytes(bytes(len(CONTENT)))
    (tmp_path / "model.bin.part.etag").write_text('"v1"')
    assert get(file._replace(size=None), tmp_path) == CONTENT
    assert [headers.get("Range") for headers in server.asked] == [f"bytes={len(CONTENT)}-", None]


@pytest.mark.parametrize("announced", [len(CONTENT) + 10, len(CONTENT) - 10])
def test_a_length_that_is_not_the_files_is_refused_before_it_is_received(announced, file, server, tmp_path):
    server.announced = announced
    with pytest.raises(
        ValueError, match=rf"{announced:,} bytes .*has 700,000.* put the file model.bin at .*http://127"
    ):
        get(file, tmp_path)
    assert names(tmp_path) == []


def test_a_length_that_is_a_lie(file, server, tmp_path):
    server.announced = len(CONTENT) + 10
    unknown = file._replace(size=None, sha256=None)
    with pytest.raises(ConnectionError, match="the server ended the connection.*700,000 bytes"):
        get(unknown, tmp_path)
    server.announced = 0  # none: the end of the connection is the end of the file
    assert get(file, tmp_path / "a") == CONTENT
    server.content = CONTENT + bytes(500_000)
    with pytest.raises(ValueError, match="it is another file"):
        get(file, tmp_path / "b")
    server.content = CONTENT[:1000]
    with pytest.raises(ConnectionError, match="1,000 bytes"):
        get(file, tmp_path / "c")


def test_wrong_bytes_are_kept_apart(file, server, tmp_path):
    server.content = bytes(len(CONTENT))
    wrong = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(ValueError, match=f"sha256 is {wrong}, not {DIGEST}.*kept as .*rejected, and not used"):
        get(file, tmp_path)
    assert names(tmp_path) == ["model.bin.rejected"]
    del server.content
    assert get(file, tmp_path) == CONTENT


@pytest.mark.parametrize(
    "status, words",
    [
        (404, "does not have it; it may have moved"),
        (401, "no password is sent"),
        (403, "with a browser"),
        (429, "too many requests"),
        (418, "refuses"),
        (503, "try again later"),
    ],
)
def test_refusals_are_explained(status, words, file, server, tmp_path):
    server.status = status
    with pytest.raises(OSError, match=rf"{words}.* \(HTTP {status}\)\. By hand: put the file model.bin at .*from"):
        get(file, tmp_path)
    assert names(tmp_path) == []


def test_a_server_that_is_silent_is_not_waited_for(file, server, tmp_path):
    server.silence = 60
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="broke off .*timed out.* after 0 bytes"):
        get(file, tmp_path, timeout=0.2)
    assert time.monotonic() - start < 5


def test_without_a_network_it_says_where_to_put_the_file(file, server, tmp_path):
    server.close()
    with pytest.raises(
        ConnectionError, match="cannot reach 127.0.0.1:.* By hand: put the file model.bin at .*model.bin"
    ):
        get(file, tmp_path / "new" / "folder")
    assert names(tmp_path) == []  # no folder is left behind


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk(file, server, tmp_path):
    (tmp_path / "model.bin.part").symlink_to("/dev/full")
    (tmp_path / "model.bin.part.etag").touch()
    with pytest.raises(OSError, match="the disk is full; what was received is kept in .*part") as caught:
        get(file, tmp_path)
    assert caught.value.errno == errno.ENOSPC


def test_a_folder_that_cannot_be_made(file, server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write"):
        get(file, tmp_path / "file")


# Names


@pytest.fixture
def known(file, monkeypatch):
    unknown = file._replace(name="tok.bin", address="https://example.org/a/tok.bin", sha256=None)
    made = Download((file, unknown), ("sample", "{folder}/model.bin"))
    monkeypatch.setitem(module.DOWNLOADS, "tiny", made)
    return made


def test_the_command_receives_checks_and_says_how_to_go_on(known, server, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["download", "tiny", "--mirror", server.address + "/m/"]) == 0
    out, err = capsys.readouterr()
    assert server.paths == ["/m/model.bin", "/m/a/tok.bin"]
    folder = tmp_path / "downloads" / "tiny"
    assert names(folder) == ["model.bin", "tok.bin", "tok.bin.sha256"]
    assert (folder / "tok.bin.sha256").read_text() == f"{DIGEST}  tok.bin\n"
    assert "model.bin: received, sha256 as expected" in out and f"sha256 {DIGEST}, which was not known" in out
    assert out.endswith(f"go on with: minillama sample {os.path.join('downloads', 'tiny', 'model.bin')}\n")
    assert "model.bin: 100%" in err
    assert main(["download", "tiny", "--mirror", server.address]) == 0
    assert capsys.readouterr().out.count("was there already") == 2 and len(server.paths) == 2


def test_what_to_do_by_hand_names_every_file_that_is_not_there(known, server, tmp_path, capsys):
    folder, address = tmp_path / "new" / "tiny", server.address
    server.close()

    def told():
        assert main(["download", "tiny", "--out", str(folder), "--mirror", address]) == 1
        return capsys.readouterr().err.split("By hand: ")[1]

    model = f"the file model.bin at {folder / 'model.bin'}, from {address}/model.bin"
    other = f"the file tok.bin at {folder / 'tok.bin'}, from {address}/a/tok.bin"
    assert told() == f"put {model}; and {other}\n" and names(tmp_path) == []
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(CONTENT)
    assert told() == f"put {other}\n"
    (folder / "model.bin").rename(folder / "tok.bin")
    assert told() == f"put {model}\n" and names(folder) == ["tok.bin"]


def test_another_file_in_the_place_is_not_touched(known, server, tmp_path):
    def again():
        return download("tiny", tmp_path, server.address, quiet=True)

    again()
    for name, content, words in [
        ("model.bin", b"mine", "with 4 bytes and not 700,000; move it away"),
        ("model.bin", bytes(len(CONTENT)), f"not {DIGEST}; move it away"),
        ("tok.bin", bytes(len(CONTENT)), f"not {DIGEST}; move it away"),  # known since it was received
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=words):
            again()
        assert (tmp_path / name).read_bytes() == content
        (tmp_path / name).write_bytes(CONTENT)
    again()


def test_ctrl_c_keeps_what_was_received(known, server, tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "fetch", interrupt)
    assert main(["download", "tiny", "--out", str(tmp_path)]) == 130
    assert "the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["stories"], "no download 'stories'; did you mean stories260K, stories15M"),
        (["hf:model"], "hf:OWNER/REPO"),
        (["hf:a/../b"], "hf:OWNER/REPO"),
        (["hf:a/.."], "hf:OWNER/REPO"),
        (["stories15M", "--mirror", "file:///etc"], "a mirror is an address such as https://"),
        (["stories15M", "--mirror", "example.org"], "received 'example.org'"),
        (["stories15M", "--mirror", "http://[::1"], "received 'http://[::1'"),
        (["stories15M", "--mirror", "http://a b"], "received 'http://a b'"),
    ],
)
def test_mistakes_are_explained(arguments, words, capsys):
    assert main(["download", *arguments]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", DOWNLOADS)
def test_the_table(name):
    for file in DOWNLOADS[name].files:
        assert file.address.startswith("https://") and re.fullmatch("[0-9a-f]{64}", file.sha256) and file.size > 0


@pytest.mark.parametrize(
    "name, path",
    [
        ("stories260K", "models/stories260K/stories260K.bin"),
        ("stories260K", "models/stories260K/tok512.bin"),
        ("stories15M", "models/llama2-tokenizer.bin"),
        ("tinyshakespeare", "data/tinyshakespeare.txt"),
    ],
)
def test_the_digests_are_those_of_the_files(name, path, assets):
    data = (assets / path).read_bytes()
    known = {(file.size, file.sha256) for file in DOWNLOADS[name].files}
    assert (len(data), hashlib.sha256(data).hexdigest()) in known


@pytest.mark.parametrize(
    "name, shape",
    [
        ("stories15M", (288, 768, 6, 6, 256)),
        ("stories42M", (512, 1376, 8, 8, 1024)),
        ("stories110M", (768, 2048, 12, 12, 1024)),
    ],
)
def test_the_sizes_follow_from_the_shapes(name, shape):
    from minillama import Config
    from minillama.catalogue.sizes import parameter_count

    dim, ffn, layers, heads, context = shape
    config = Config(32000, dim=dim, ffn=ffn, layers=layers, heads=heads, context=context, tied=True)
    rotation = context * config.head_dim  # cos and sin of each pair: llama2.c's first format holds them too
    assert DOWNLOADS[name].files[0].size == 4 * (7 + parameter_count(config)["total"] + rotation)


# Repositories on Hugging Face


@pytest.fixture
def repository(server, monkeypatch):
    def listed(*rows):
        listing = json.dumps([{"type": "file", **row} for row in rows]).encode()
        answer = server.answer

        def by_path(request):
            server.content = listing if request.path.startswith("/api/") else CONTENT
            answer(request)

        monkeypatch.setattr(server, "answer", by_path)

    return listed


WEIGHTS = {"path": "model-00001-of-00001.safetensors", "size": len(CONTENT), "lfs": {"oid": DIGEST}}


def test_a_repository_is_received_as_far_as_a_model_needs_it(repository, server, tmp_path):
    others = [
        {"path": name, "size": 9} for name in ("README.md", "a/config.json", "config.json/../x", "config.json.old")
    ]
    repository({"path": "config.json", "size": len(CONTENT)}, *others, WEIGHTS)
    folder, done, then = download("hf:owner/some.model-1", tmp_path, server.address, quiet=True)
    assert server.paths == [
        "/api/models/owner/some.model-1/tree/main",
        "/owner/some.model-1/resolve/main/config.json",
        "/owner/some.model-1/resolve/main/model-00001-of-00001.safetensors",
    ]
    assert names(tmp_path) == ["config.json", "config.json.sha256", WEIGHTS["path"]]
    assert then == f"minillama info {tmp_path}" and [(file.sha256, digest) for file, digest, _ in done] == [
        (None, DIGEST),
        (DIGEST, DIGEST),
    ]


def test_repositories_that_are_no_models(repository, server, tmp_path):
    repository({"path": "config.json", "size": 9}, {"path": "pytorch_model.bin", "size": 9})
    with pytest.raises(ValueError, match="no model.safetensors.*pickled"):
        download("hf:owner/model", tmp_path, server.address)
    server.status = 404
    with pytest.raises(OSError, match=r"HTTP 404.*put config.json, tokenizer and .*huggingface.co/owner/model into"):
        download("hf:owner/model", tmp_path, server.address)


@pytest.mark.parametrize(
    "content",
    [b"<html>", b"{}", b"[3]", b'[{"path": 3}]', b'[{"path": "config.json"}]', b"[" * 100_000, b"\xff",
     b'[{"path": "model.safetensors", "size": 9, "lfs": {"oid": "../x"}}]', b'[{"path": "config.json", "size": "9"}]'],
)  # fmt: skip
def test_listings_that_are_none(content, server, tmp_path):
    server.content = content
    words = "no model.safetensors" if content == b"{}" else "does not answer with a list of files"
    with pytest.raises(ValueError, match=words):
        download("hf:owner/model", tmp_path, server.address)
    assert names(tmp_path) == []


def test_a_record_of_ones_own_is_what_the_file_is_held_against(known, server, tmp_path, capsys):
    folder = tmp_path / "tiny"
    arguments = ["download", "tiny", "--out", str(folder), "--mirror", server.address]
    assert main(arguments) == 0
    (folder / "tok.bin").write_bytes(b"damaged")
    assert main(arguments) == 1 and "move it away" in capsys.readouterr().err
    (folder / "tok.bin").unlink()
    assert main(arguments) == 0 and (folder / "tok.bin").read_bytes() == CONTENT
    (folder / "tok.bin").unlink()
    (folder / "tok.bin.sha256").write_text(f"{'0' * 64}  tok.bin\n")
    assert main(arguments) == 1 and "gave other bytes than expected" in capsys.readouterr().err


def test_two_processes_do_not_write_one_part(file, server, tmp_path, monkeypatch):
    """Another process received the file between this one's look at the part and its own writing."""
    ask = receiving.ask

    def late(*arguments):
        response = ask(*arguments)
        (tmp_path / "model.bin.part").write_bytes(CONTENT[:100])
        return response

    monkeypatch.setattr(receiving, "ask", late)
    with pytest.raises(OSError, match="was written by another process in the meantime"):
        get(file, tmp_path)
    assert (tmp_path / "model.bin.part").read_bytes() == CONTENT[:100]
