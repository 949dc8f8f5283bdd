"""Files that commands write: whole or not at all, with the rights that files get, and what is said when it fails."""

import errno
import os
import re
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from minillama import Config, files
from minillama.data.corpora import encode_corpus
from minillama.files import append_text, replacing, replacing_all, write_text
from minillama.training.run import Run
from minillama.training.trainer import Settings

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no rights of this kind")
with_and_without_old = pytest.mark.parametrize("old", [None, "old\n"])


@pytest.fixture
def umask():
    """umask(rights) until the test ends."""
    before = os.umask(0)
    os.umask(before)
    yield os.umask
    os.umask(before)


def by_text(path):
    path.write_text("x")


def by_array(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


def by_safetensors(path):
    save_file({"a": np.zeros(3)}, path)


def by_own_rights(path):
    path.touch(0o600)


def rights(path):
    return stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
@pytest.mark.parametrize("make", [by_text, by_array, by_safetensors, by_own_rights])
def test_a_new_file_has_the_rights_of_any_new_file(tmp_path, umask, mask, make):
    umask(mask)
    with replacing(tmp_path / "a") as new:
        make(new)
    assert rights(tmp_path / "a") == 0o666 & ~mask
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@posix
@pytest.mark.parametrize("before", [0o600, 0o640, 0o664, 0o444])
@pytest.mark.parametrize("make", [by_text, by_safetensors])
def test_a_file_keeps_the_rights_of_the_one_that_it_replaces(tmp_path, umask, before, make):
    umask(0o022)
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(before)
    with replacing(tmp_path / "a") as new:
        make(new)
    assert rights(tmp_path / "a") == before


@posix
def test_all_files_of_a_run_have_the_same_rights(tmp_path, umask):
    umask(0o027)
    (tmp_path / "a.txt").write_text("some text " * 50)
    corpus = encode_corpus(tmp_path / "a.txt", "char")
    config = Config(corpus.tokenizer.vocab_size, dim=8, layers=1, heads=1, context=8)
    Run.start(tmp_path / "run", config, Settings(steps=2, eval_every=1), corpus, 1).train(quiet=True)
    found = {path.name: rights(path) for path in (tmp_path / "run").iterdir()}
    assert len(found) > 4 and set(found.values()) == {0o640}, found


FULL_DISKS = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
]


@with_and_without_old
@pytest.mark.parametrize("failure", FULL_DISKS)
def test_a_full_disk_speaks_of_old_content_only_where_there_is_some(tmp_path, old, failure):
    if old is not None:
        write_text(tmp_path / "a", old)
    with pytest.raises(OSError, match="the disk is full") as failed:
        with replacing(tmp_path / "a") as new:
            new.write_text("half")
            raise failure
    assert ("keeps its old content" if old else "was not written") in str(failed.value)
    assert [path.read_text() for path in tmp_path.iterdir()] == ([old] if old else [])


@with_and_without_old
def test_text_is_appended_whole_or_not_at_all(tmp_path, monkeypatch, old):
    path = tmp_path / "a"
    if old is not None:
        write_text(path, old)

    class Filling:
        """A file on a disk that has room for three more bytes."""

        def __init__(self, file):
            self.file, self.room = file, 3

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = self.file.write(data[: self.room])
            self.room -= written
            return written

    with monkeypatch.context() as patch:
        patch.setattr(files, "open", lambda *given, **options: Filling(open(*given, **options)), raising=False)
        with pytest.raises(OSError, match="the disk is full") as failed:
            append_text(path, "a row\n")
    assert ("keeps its old content" if old else "was not written") in str(failed.value)
    assert path.exists() == (old is not None) and (old is None or path.read_text() == old)
    append_text(path, "é\n")
    assert path.read_bytes() == (old or "").encode() + "é\n".encode()


@pytest.mark.parametrize("write", [write_text, append_text])
def test_a_place_that_cannot_be_written_is_named(tmp_path, write):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write .*" + re.escape(str(Path("file") / "a"))):
        write(tmp_path / "file" / "a", "text")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a system that has the name of any bytes")
def test_names_that_are_not_utf8_are_written(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    write_text(path, "text")
    append_text(path, "more")
    with replacing(path) as new:
        save_file({"a": np.zeros(3)}, new)
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff"]


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_files_that_belong_together_are_replaced_together(tmp_path):
    folder = tmp_path / "model"
    for name in ("a", "b", "own"):
        write_text(folder / name, "old")
    write_text(folder / ".4711.new" / "a", "half")  # of a process that was killed
    with replacing_all(folder, ["a", "b", "c"]) as new:
        write_text(new / "a", "new")
        write_text(new / "c", "new")
        assert files_in(folder)["a"] == "old"
    assert files_in(folder) == {"a": "new", "c": "new", "own": "old"}


@with_and_without_old
def test_where_one_of_several_files_cannot_be_written_all_stay(tmp_path, old):
    folder = tmp_path / "model"
    if old is not None:
        write_text(folder / "a", old)
    before = files_in(tmp_path)
    with pytest.raises(OSError, match="the disk is full") as failed:
        with replacing_all(folder, ["a", "b"]) as new:
            write_text(new / "a", "new")
            with replacing(new / "b"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(folder / "b") in str(failed.value)  # and not the name that it had for the time being
    assert files_in(tmp_path) == before and folder.exists() == (old is not None)
