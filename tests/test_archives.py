"""Archives are unpacked as they were packed, or not at all, and never beside their folder."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.archive_files import compressed, entry, finished, packed, zstd

from llmengine_core import archives, tar
from llmengine_core.archives import BadArchive, Stopped, extract

KINDS = ("tar", "tar.gz", "tar.zst")


def tree(folder: Path) -> dict[str, bytes | None]:
    """What is in a folder: content by name, None for folders; anything else is an error."""
    found: dict[str, bytes | None] = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        assert stat.S_ISDIR(mode) or stat.S_ISREG(mode), path
        assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX | 0o111) or stat.S_ISDIR(mode)
        found[path.relative_to(folder).as_posix()] = None if path.is_dir() else path.read_bytes()
    return found


def unpacked(content: bytes, folder: Path) -> dict[str, bytes | None]:
    (folder / "archive").write_bytes(content)
    extract(folder / "archive", folder / "target")
    return tree(folder / "target")


def refused(content: bytes, folder: Path) -> BadArchive:
    """Why it is; nothing is left, inside or outside."""
    folder.mkdir(exist_ok=True)
    before = tree(folder.parent)
    (folder / "archive").write_bytes(content)
    with pytest.raises(BadArchive) as caught:
        extract(folder / "archive", folder / "target")
    (folder / "archive").unlink()
    assert tree(folder.parent) == before
    return caught.value


# -- what is packed comes out ------------------------------------------------------------------------------------

names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=40
).filter(lambda name: name not in (".", "..") and not name.startswith("._") and len(name.encode()) <= 255)
trees = st.recursive(
    st.binary(max_size=3000), lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=8
).filter(lambda made: isinstance(made, dict))


def flat(made: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, bytes | None]]:
    for name, content in made.items():
        path = f"{above}{name}"
        yield path, None if isinstance(content, dict) else content
        if isinstance(content, dict):
            yield from flat(content, f"{path}/")


def without_top(made: dict[str, bytes | None]) -> dict[str, bytes | None]:
    """The same from the innermost folder on that holds it all."""
    while (
        len(tops := {path.partition("/")[0] for path in made}) == 1 and made[top := next(iter(tops))] is None
    ):
        made = {path.removeprefix(f"{top}/"): content for path, content in made.items() if path != top}
    return made


@given(made=trees, form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_m04_any_tree_comes_out_as_it_was_packed(
    made: dict[str, Any], form: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = dict(flat(made))
    assume_fits = all(len(path.encode()) <= 90 for path in files) or form != tarfile.USTAR_FORMAT
    content = packed(files, form=form if assume_fits else tarfile.PAX_FORMAT)
    folder = tmp_path_factory.mktemp("tree")
    if not any(each is not None for each in files.values()):
        assert refused(content, folder / "in").reason == (
            "it holds no files" if files else "it is no archive"
        )
        return
    assert unpacked(content, folder) == without_top(files)


@pytest.mark.parametrize("kind", KINDS)
def test_m04_every_kind_is_known_by_its_content(kind: str, tmp_path: Path) -> None:
    files = {"m": None, "m/config.json": b"{}", "m/model.bin": os.urandom(3 << 20), "m/empty": b""}
    content = compressed(packed(files), kind)
    assert tar.kind_of(content[:512]) == kind
    assert unpacked(content, tmp_path) == without_top(files)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_compressed_streams_may_come_in_several_parts(tmp_path: Path) -> None:
    files = {"a": os.urandom(100_000), "b": bytes(2_000_000)}
    whole = packed(files)
    halves = whole[:70_001], whole[70_001:]
    skipped = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"noise"
    for number, content in enumerate(
        (
            b"".join(map(gzip.compress, halves)),
            b"".join(map(gzip.compress, halves)) + bytes(1000),
            skipped + zstd().compress(halves[0]) + skipped + zstd().compress(halves[1]),
        )
    ):
        (tmp_path / str(number)).mkdir()
        assert unpacked(content, tmp_path / str(number)) == files


def test_only_names_and_content_are_taken(tmp_path: Path) -> None:
    content = finished(
        entry("./", kind=b"5", mode=0o777),
        entry("./run", b"#!/bin/sh", mode=0o7777),
        entry("./._run", b"a Mac's"),
        entry("./deep/er/file", b"x", mode=0),
        entry("./folder/", b"", kind=b"0"),
    )
    assert unpacked(content, tmp_path) == {
        "run": b"#!/bin/sh",
        "deep": None,
        "deep/er": None,
        "deep/er/file": b"x",
        "folder": None,
    }


def test_large_files_are_written_in_pieces_and_progress_is_told(tmp_path: Path) -> None:
    content = compressed(packed({"model": bytes(40 << 20)}), "tar.gz")
    (tmp_path / "archive").write_bytes(content)
    told: list[tuple[int, int | None]] = []
    extract(
        tmp_path / "archive", tmp_path / "target", on_bytes=lambda done, total: told.append((done, total))
    )
    assert told[-1] == (len(content), len(content))
    assert (tmp_path / "target" / "model").stat().st_size == 40 << 20


# -- what would leave its folder, or isn't a file -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([entry("../evil", b"x")], "outside its folder"),
        ([entry("a/../../evil", b"x")], "outside its folder"),
        ([entry("a/..", kind=b"5")], "outside its folder"),
        ([entry("/tmp/evil", b"x")], "outside its folder"),
        ([entry("//evil", b"x")], "outside its folder"),
        ([entry("..\\evil", b"x")], "a backslash"),
        ([entry("C:\\evil", b"x")], "a backslash"),
        ([entry("new\nline", b"x")], "a control character"),
        ([entry("link", kind=b"2", link="/etc")], "a symbolic link: 'link'"),
        ([entry("link", kind=b"2", link="."), entry("link/evil", b"x")], "a symbolic link"),
        ([entry("a", b"x"), entry("b", kind=b"1", link="a")], "a hard link: 'b'"),
        ([entry("b", kind=b"1", link="../../etc/passwd")], "a hard link"),
        ([entry("null", kind=b"3")], "a device"),
        ([entry("sda", kind=b"4")], "a device"),
        ([entry("pipe", kind=b"6")], "a pipe"),
        ([entry("hole", kind=b"S")], "a sparse file"),
        ([entry("volume", kind=b"M")], "another volume"),
        ([entry("list", kind=b"D")], "incremental backup"),
        ([entry("odd", kind=b"Z")], "unknown type 'Z'"),
        ([entry("a", b"x"), entry("a", b"y")], "more than once"),
        ([entry("a", b"x"), entry("./a", b"y")], "more than once"),
        ([entry("a", b"x"), entry("a/b", b"y")], "more than once"),
        ([entry("a/b", b"x"), entry("a", b"y")], "more than once"),
        ([entry("a", b"x"), entry("a", kind=b"5")], "more than once"),
        ([entry("a" * 256, b"x", long=True)], "names have at most 255 bytes"),
        ([entry("/".join(["ab"] * 500), b"x", long=True)], "names have at most 255 bytes"),
        ([entry("a/" * 17 + "b", b"x")], "at most 16 deep"),
        ([entry(b"\xff\xfe", b"x")], "no UTF-8"),
        ([entry("././@PaxHeader", b"13 path=../e\n", kind=b"x"), entry("fine", b"x")], "outside its folder"),
        ([entry("././@LongLink", b"../../evil\0", kind=b"L"), entry("fine", b"x")], "outside its folder"),
        ([entry("g", b"10 path=e\n", kind=b"g"), entry("fine", b"x")], "to all files"),
        ([entry("x", b"22 GNU.sparse.major=1\n", kind=b"x"), entry("fine", b"x")], "a sparse file"),
        ([entry("x", b"99 path=e\n", kind=b"x"), entry("fine", b"x")], "extended header can't be read"),
        ([entry("x", b"no\n", kind=b"x"), entry("fine", b"x")], "is no size"),
        ([entry("L", b"name\0", kind=b"L")] * 6 + [entry("fine", b"x")], "more than 4 headers"),
        ([entry("L", kind=b"L", size=2 << 30)], "claims 2,147,483,648 bytes; at most 1,048,576"),
        ([entry("x", kind=b"x", size=1 << 40)], "at most 1,048,576 are read"),
        ([entry("x", size=-5)], "is no size"),
        ([entry(".", kind=b"5")], "it holds no files"),
        ([entry("._mac", b"x")], "it holds no files"),
    ],
)
def test_m04_what_must_not_be_unpacked_is_refused_whole(
    members: list[bytes], reason: str, tmp_path: Path
) -> None:
    for number, first in enumerate(([], [entry("first", b"x" * 70_000)])):
        if first and "no files" in reason:
            continue
        content = compressed(finished(*first, *members), KINDS[(len(reason) + number) % 3])
        assert reason in refused(content, tmp_path / "in").reason


def test_links_say_how_to_pack_without_them(tmp_path: Path) -> None:
    mend = refused(finished(entry("link", kind=b"2", link="a")), tmp_path / "in").mend
    assert mend == "pack it again with `tar --dereference --hard-dereference -cf`"


def test_a_million_empty_members_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tar.MOST_MEMBERS == 10_000
    monkeypatch.setattr(tar, "MOST_MEMBERS", 500)
    content = b"".join(entry(f"f{number}") for number in range(tar.MOST_MEMBERS + 1))
    found = refused(compressed(finished(content), "tar.zst"), tmp_path / "in")
    assert found.reason == "it holds more than 500 files and folders; it is no checkpoint"


@pytest.mark.parametrize("kind", ["tar.gz", "tar.zst"])
def test_a_bomb_is_left_when_it_shows(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO_FROM", 4 << 20)
    content = compressed(packed({"zeros": bytes(64 << 20)}), kind)
    assert len(content) < 1_000_000
    written: list[int] = []
    real = os.write

    def write(file: int, piece: bytes) -> int:
        written.append(len(piece))
        return real(file, piece)

    monkeypatch.setattr(os, "write", write)
    reason = refused(content, tmp_path / "in").reason
    assert "at most 100 times its size is believed" in reason
    assert sum(written) < len(content) * 100 + (8 << 20)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.zst"])
def test_parts_of_nothing_are_no_archive(kind: str, tmp_path: Path) -> None:
    content = packed({"a": b"x"})
    nothing = b"\x50\x2a\x4d\x18\0\0\0\0" if kind == "tar.zst" else gzip.compress(b"")
    inside = compressed(content[:512], kind) + nothing * 200_000 + compressed(content[512:], kind)
    began = time.process_time()
    assert "parts, which hold next to nothing" in refused(inside, tmp_path / "in").reason
    assert time.process_time() - began < 1


@pytest.mark.parametrize("kind", ["tar.gz", "tar.zst"])
def test_an_archive_may_be_compressed_in_parts(kind: str, tmp_path: Path) -> None:
    files = {"a": os.urandom(3 << 20), "b": bytes(5 << 20)}
    content = packed(files)
    size = 64 << 10
    inside = [compressed(content[at : at + size], kind) for at in range(0, len(content), size)]
    assert unpacked(b"".join(inside) + bytes(3 << 20), tmp_path) == files


def test_zeros_without_end_are_no_padding(tmp_path: Path) -> None:
    content = compressed(packed({"a": b"x"}) + bytes(32 << 20), "tar.gz")
    assert "bytes of zeros follow its end mark" in refused(content, tmp_path / "in").reason


def test_a_window_that_takes_too_much_memory_is_refused(tmp_path: Path) -> None:
    module = zstd()
    options = {
        module.CompressionParameter.window_log: 28,
        module.CompressionParameter.enable_long_distance_matching: 1,
    }
    content = module.compress(packed({"a": os.urandom(100)}), options=options)
    compressor = module.ZstdCompressor(options=options)
    content = compressor.compress(packed({"a": os.urandom(1000)})) + compressor.flush()
    found = refused(content, tmp_path / "in")
    assert found.mend == "pack it again without --long"


# -- what is damaged -----------------------------------------------------------------------------------------------

WHOLE = packed({"config.json": b"{}", "model.bin": bytes(range(256)) * 200})


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_told(kind: str, tmp_path: Path) -> None:
    content = compressed(WHOLE.rstrip(b"\0") + bytes(1024 + 300), kind)
    for stop in (
        (*range(512, len(content) - 1400, 997), len(content) - 1400)
        if kind == "tar"
        else (
            *range(30, len(content), max(1, len(content) // 40)),
            len(content) - 1,
        )
    ):
        found = refused(content[:stop], tmp_path / "in")
        assert "truncated" in found.reason, stop


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255), kind=st.sampled_from(KINDS))
def test_any_damage_ends_in_the_tree_or_a_refusal(
    at: int, flip: int, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(compressed(WHOLE, kind))
    content[at % len(content)] ^= flip
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "archive").write_bytes(content)
    try:
        extract(folder / "archive", folder / "target")
    except BadArchive:
        assert [path.name for path in folder.iterdir()] == ["archive"]
    else:
        assert sorted(path.name for path in folder.iterdir()) == ["archive", "target"]
        if kind != "tar":  # these have checksums of all of their content
            assert tree(folder / "target") == {"config.json": b"{}", "model.bin": bytes(range(256)) * 200}


@given(junk=st.binary(max_size=2000), kind=st.sampled_from(KINDS))
def test_any_bytes_are_refused(junk: bytes, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("junk")
    for number, content in enumerate((junk, compressed(junk, kind), WHOLE + junk + b"x")):
        assert refused(content, folder / str(number)).reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"once upon a time" * 100, "it is no archive"),
        (b"", "it is no archive"),
        (b"\xfd7zXZ\0" + bytes(600), "packed with xz"),
        (gzip.compress(b"GGUF" + bytes(5000)), "damaged: a header's checksum is wrong"),
        (WHOLE + WHOLE, "goes on behind its end mark"),
        (gzip.compress(WHOLE) + b"trailing", "it is damaged"),
    ],
)
def test_what_is_no_archive_says_so(content: bytes, reason: str, tmp_path: Path) -> None:
    assert reason in refused(content, tmp_path / "in").reason


# -- what happens meanwhile ----------------------------------------------------------------------------------------


def hooked(folder: Path, content: bytes, meanwhile: Callable[[Path], None]) -> None:
    """Unpack; ``meanwhile`` gets the folder that is written to, once the first file is there."""
    (folder / "archive").write_bytes(content)
    done = False

    def on_bytes(read: int, total: int | None) -> None:
        nonlocal done
        (writing,) = folder.glob(".unpacking-*")
        if not done and (writing / "m" / "first").exists():
            done = True
            meanwhile(writing)

    try:
        extract(folder / "archive", folder / "target", on_bytes=on_bytes)
    finally:
        assert done


LONG = packed({"m": None, "m/first": b"x", "m/large": bytes(4 << 20), "m/last": b"y"})


def test_a_folder_that_becomes_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()

    def swap(writing: Path) -> None:
        (writing / "m").rename(tmp_path / "moved")
        (writing / "m").symlink_to(outside)

    with pytest.raises(OSError, match=r"target") as caught:
        hooked(tmp_path, LONG, swap)
    assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
    assert tree(outside) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "moved", "outside"]


def test_a_file_that_is_already_there_is_not_written_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")

    def plant(writing: Path) -> None:
        (writing / "m" / "last").symlink_to(victim)

    with pytest.raises(BadArchive, match="the same on this disk"):
        hooked(tmp_path, LONG, plant)
    assert victim.read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "victim"]


def test_nobody_sees_a_part_and_whoever_stops_leaves_nothing(tmp_path: Path) -> None:
    stop = threading.Event()
    (tmp_path / "archive").write_bytes(LONG)

    def on_bytes(read: int, total: int | None) -> None:
        assert not (tmp_path / "target").exists()
        if read > 2 << 20:
            stop.set()

    with pytest.raises(Stopped):
        extract(tmp_path / "archive", tmp_path / "target", on_bytes=on_bytes, stop=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_a_target_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine").write_bytes(b"mine")
    (tmp_path / "archive").write_bytes(LONG)
    with pytest.raises(OSError, match="target"):
        extract(tmp_path / "archive", tmp_path / "target")
    assert tree(tmp_path / "target") == {"mine": b"mine"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "target"]


def test_a_disk_that_is_too_small_is_told_before_it_is_full(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    (tmp_path / "archive").write_bytes(entry("fine", b"x") + entry("huge", size=2 * free))
    with pytest.raises(OSError, match="bytes or more are needed") as caught:
        extract(tmp_path / "archive", tmp_path / "target")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "target"))
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_a_disk_that_becomes_full_leaves_nothing(tmp_path: Path) -> None:
    """The limit of a file's size stands for the disk's: the kernel refuses the write in the same way."""
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from llmengine_core.archives import extract\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "folder = Path(sys.argv[1])\n"
        "try:\n"
        "    extract(folder / 'archive', folder / 'target')\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    (tmp_path / "archive").write_bytes(LONG)
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"[Errno 27] File too large: {str(tmp_path / 'target')!r}\n", done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
