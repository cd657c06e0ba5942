"""Where files come from: order, damage, downloads with cuts and resumption, the Debian package, many processes."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import logging
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from results.errors import DataError
from scaling.data.sources.builtin import catalogue_files as sources
from scaling.specification.catalogue import DATASETS, Dataset

NAMES = ("first-idx", "second-idx")
CONTENTS = {name: random.Random(name).randbytes(200_000) for name in NAMES}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Mirror:
    """A web server of this test on 127.0.0.1: serves `files`, notes requests, and misbehaves as told."""

    def __init__(self) -> None:
        self.files = {f"/{name}.gz": gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}
        self.requests: list[tuple[str, str | None]] = []
        self.cut_after: int | None = None
        """Bytes after which every answer breaks off while it announced more."""
        self.ranges = True
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                mirror.requests.append((self.path, wanted))
                body = mirror.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                start = int(re.findall(r"bytes=(\d+)-", wanted)[0]) if wanted and mirror.ranges else 0
                if start >= len(body):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                end = len(body) if mirror.cut_after is None else start + mirror.cut_after
                self.wfile.write(body[start:end])

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    yield server
    server.close()


@pytest.fixture
def closed_url() -> str:
    """Address at which nobody listens."""
    server = Mirror()
    server.close()
    return server.url


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("TOKENLAW_DATA", raising=False)
    for variable in list(os.environ):
        if variable.lower().endswith("_proxy"):
            monkeypatch.delenv(variable)
    return tmp_path / "xdg" / "tokenlaw" / "tiny"


def tiny(**changes: object) -> Dataset:
    """A data set of two small files with no source but those given."""
    hashes = {name: digest(content) for name, content in CONTENTS.items()}
    plain = Dataset("tiny", 28, 1, 10, 1, 1, hashes, "", "https://example.org/tiny")
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def put(folder: Path, *, gzipped: bool = True, names: tuple[str, ...] = NAMES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if gzipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(CONTENTS[name]))
        else:
            (folder / name).write_bytes(CONTENTS[name])


@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_own_folder_comes_first(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, gzipped: bool, nested: bool
) -> None:
    own = tmp_path / "own"
    put(own / "tiny" if nested else own, gzipped=gzipped)
    put(cache)
    monkeypatch.setenv("TOKENLAW_DATA", str(own))
    monkeypatch.setitem(DATASETS, "tiny", tiny())
    paths = sources.locate("tiny")
    assert {path.parent for path in paths.values()} == {own / "tiny" if nested else own}
    assert sources.read_files(tiny(), NAMES) == CONTENTS


def test_cache_then_system(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "system")
    monkeypatch.setitem(DATASETS, "tiny", tiny(system_folder=str(tmp_path / "system")))
    assert {path.parent for path in sources.locate("tiny").values()} == {tmp_path / "system"}
    put(cache)
    assert {path.parent for path in sources.locate("tiny").values()} == {cache}


def test_only_what_is_asked_for_is_needed(cache: Path) -> None:
    put(cache, names=NAMES[:1])
    assert sources.read_files(tiny(), NAMES[:1]) == {NAMES[0]: CONTENTS[NAMES[0]]}


@pytest.mark.parametrize("damage", ["flip", "truncate", "not gzip", "empty"])
def test_damaged_file_is_named_skipped_and_never_used(
    tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    put(cache)
    put(tmp_path / "system")
    path = cache / f"{NAMES[0]}.gz"
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes({"flip": flipped, "truncate": content[:middle], "not gzip": b"<html>", "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        found = sources.read_files(tiny(system_folder=str(tmp_path / "system")), NAMES)
    assert found == CONTENTS
    assert str(path) in caplog.text and "not used" in caplog.text
    with pytest.raises(DataError, match=re.escape(str(path))):
        sources.read_files(tiny(), NAMES)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(DataError, match="'mnist' is unknown; allowed: fashion-mnist"):
        sources.locate("mnist")


def test_failure_lists_everything_tried(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, closed_url: str
) -> None:
    monkeypatch.setenv("TOKENLAW_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))
    dataset = tiny(
        mirrors=(closed_url, "http://name-that-cannot-be.invalid/"), debian_package="p", system_folder="/no/such"
    )
    with pytest.raises(DataError) as caught:
        sources.read_files(dataset, NAMES)
    message = str(caught.value)
    assert "\n" not in message
    for expected in (
        f"$TOKENLAW_DATA: {tmp_path / 'nowhere'} does not exist",
        f"cache: {cache} does not exist",
        "system: /no/such does not exist",
        f"{closed_url}: {NAMES[0]}.gz: [Errno",
        "name-that-cannot-be.invalid cannot be resolved",
        "Debian package p: apt-get and dpkg-deb not found",
        "https://example.org/tiny",
        "set TOKENLAW_DATA",
        *(f"{name}.gz" for name in NAMES),
    ):
        assert expected in message, expected


def test_unwritable_cache_is_a_reason(tmp_path: Path, cache: Path, mirror: Mirror) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(DataError, match="writing to the cache"):
        sources.read_files(tiny(mirrors=(mirror.url,)), NAMES)


def test_download_into_the_cache_with_progress(cache: Path, mirror: Mirror) -> None:
    lines: list[str] = []
    dataset = tiny(mirrors=(mirror.url,))
    assert sources.read_files(dataset, NAMES, lines.append) == CONTENTS
    assert any(re.search(r"first-idx.gz: \d+\.\d of \d+\.\d MB", line) for line in lines)
    assert sorted(path.name for path in cache.iterdir()) == [".lock", *(f"{name}.gz" for name in NAMES)]
    asked = len(mirror.requests)
    assert sources.read_files(dataset, NAMES) == CONTENTS
    assert len(mirror.requests) == asked == len(NAMES)


def test_cut_connection_goes_on_where_it_broke(cache: Path, mirror: Mirror) -> None:
    mirror.cut_after = 70_000
    assert sources.read_files(tiny(mirrors=(mirror.url,)), NAMES) == CONTENTS
    first = [asked for path, asked in mirror.requests if path == f"/{NAMES[0]}.gz"]
    assert first == [None, "bytes=70000-", "bytes=140000-"]


def test_part_of_an_earlier_process_is_used(cache: Path, mirror: Mirror) -> None:
    cache.mkdir(parents=True)
    whole = mirror.files[f"/{NAMES[0]}.gz"]
    (cache / f"{NAMES[0]}.gz.part").write_bytes(whole[:1234])
    (cache / f"{NAMES[1]}.gz.part").write_bytes(mirror.files[f"/{NAMES[1]}.gz"])
    assert sources.read_files(tiny(mirrors=(mirror.url,)), NAMES) == CONTENTS
    assert mirror.requests[0] == (f"/{NAMES[0]}.gz", "bytes=1234-")
    # The second was whole already: the server says 416, and the hash decides.
    assert len(mirror.requests) == 2
    assert not list(cache.glob("*.part"))


@pytest.mark.parametrize("ranges", [True, False])
def test_wrong_part_is_thrown_away(cache: Path, mirror: Mirror, ranges: bool) -> None:
    mirror.ranges = ranges
    cache.mkdir(parents=True)
    (cache / f"{NAMES[0]}.gz.part").write_bytes(b"x" * 999)
    assert sources.read_files(tiny(mirrors=(mirror.url,)), NAMES) == CONTENTS
    asked = [part for path, part in mirror.requests if path == f"/{NAMES[0]}.gz"]
    assert asked == (["bytes=999-", None] if ranges else ["bytes=999-"])


@pytest.mark.parametrize(
    "answer",
    [gzip.compress(b"something else"), b"<html>log in</html>", None],
    ids=["other content", "not gzip", "not found"],
)
def test_wrong_answer_is_refused_and_the_next_mirror_asked(cache: Path, mirror: Mirror, answer: bytes | None) -> None:
    wrong = Mirror()
    if answer is None:
        del wrong.files[f"/{NAMES[0]}.gz"]
    else:
        wrong.files[f"/{NAMES[0]}.gz"] = answer
    try:
        dataset = tiny(mirrors=(wrong.url,))
        with pytest.raises(DataError, match=f"{wrong.url}: {NAMES[0]}.gz") as caught:
            sources.read_files(dataset, NAMES)
        assert NAMES[0] in str(caught.value) and f"no good copy of {NAMES[0]} was" in str(caught.value)
        assert not (cache / f"{NAMES[0]}.gz").exists() and not list(cache.glob("*.part"))
        assert sources.read_files(tiny(mirrors=(wrong.url, mirror.url)), NAMES) == CONTENTS
        assert [path for path, _ in mirror.requests] == [f"/{NAMES[0]}.gz"]
    finally:
        wrong.close()


def test_damaged_cache_is_repaired(cache: Path, mirror: Mirror) -> None:
    put(cache)
    (cache / NAMES[0]).write_bytes(b"damaged raw copy")
    (cache / f"{NAMES[0]}.gz").write_bytes(b"damaged")
    dataset = tiny(mirrors=(mirror.url,))
    assert sources.read_files(dataset, NAMES) == CONTENTS
    assert sources.read_files(tiny(), NAMES) == CONTENTS
    assert [path for path, _ in mirror.requests] == [f"/{NAMES[0]}.gz"]


def test_processes_at_once_download_once(cache: Path, mirror: Mirror) -> None:
    code = (
        "import sys, hashlib\n"
        "from scaling.specification.catalogue import Dataset\n"
        "from scaling.data.sources.builtin import catalogue_files as sources\n"
        f"hashes = { {name: digest(content) for name, content in CONTENTS.items()}!r}\n"
        f"dataset = Dataset('tiny', 28, 1, 10, 1, 1, hashes, '', '', ({mirror.url!r},))\n"
        "found = sources.read_files(dataset, hashes)\n"
        "assert {n: hashlib.sha256(c).hexdigest() for n, c in found.items()} == hashes\n"
    )
    root = Path(sources.__file__).parents[2]
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=root) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert sorted(path for path, _ in mirror.requests) == [f"/{name}.gz" for name in NAMES]
    assert not list(cache.glob("*.part"))


# --- Debian package: dpkg-deb is the real one, on a package built here; only apt-get is a script, as the real one would
# need a repository that offers this package.


@pytest.fixture
def debian_package(tmp_path: Path) -> Path:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not here")
    tree = tmp_path / "tree"
    put(tree / "usr/share/datasets/tiny")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: dataset-tiny\nVersion: 1\nArchitecture: all\nMaintainer: Test <test@example.org>\nDescription: test\n"
    )
    built = tmp_path / "dataset-tiny_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(built)], check=True, capture_output=True)
    return built


def install_apt(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a script named apt-get before all else on the path."""
    folder.mkdir()
    script = folder / "apt-get"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_package_is_unpacked_into_the_cache(
    tmp_path: Path, cache: Path, debian_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_apt(tmp_path / "bin", f'[ "$6" = dataset-tiny ] && cp {debian_package} .', monkeypatch)
    dataset = tiny(debian_package="dataset-tiny")
    assert sources.read_files(dataset, NAMES) == CONTENTS
    assert sorted(path.name for path in cache.iterdir()) == [".lock", *(f"{name}.gz" for name in NAMES)]
    assert sources.read_files(tiny(), NAMES) == CONTENTS


def test_package_lists_are_fetched_where_the_system_has_none(
    tmp_path: Path, cache: Path, debian_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    body = (
        f'echo "$@" >> {log}\n'
        f'case "$*" in *update) exit 0;; *Dir::State::Lists=*download*) cp {debian_package} .; exit 0;; esac\n'
        'echo "E: Unable to locate package dataset-tiny" >&2; exit 100'
    )
    install_apt(tmp_path / "bin", body, monkeypatch)
    assert sources.read_files(tiny(debian_package="dataset-tiny"), NAMES) == CONTENTS
    assert [line.split()[-1] for line in log.read_text().splitlines()] == ["dataset-tiny", "update", "dataset-tiny"]


def test_package_failure_says_what_apt_said(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not here")
    install_apt(tmp_path / "bin", 'echo "E: Unable to locate package dataset-tiny" >&2; exit 100', monkeypatch)
    with pytest.raises(DataError, match=r"apt-get ended with 100 \(E: Unable to locate package dataset-tiny\)"):
        sources.read_files(tiny(debian_package="dataset-tiny"), NAMES)
    assert [path.name for path in cache.iterdir()] == [".lock"]


@pytest.mark.slow
def test_real_package(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real 30 MB package, where apt-get offers it; downloads and unpacks, installs nothing."""
    if shutil.which("apt-get") is None or shutil.which("apt-cache") is None:
        pytest.skip("apt-get is not here")
    offered = subprocess.run(["apt-cache", "policy", "dataset-fashion-mnist"], capture_output=True, text=True).stdout
    if "Candidate: " not in offered or "Candidate: (none)" in offered:
        pytest.skip("apt-get does not offer dataset-fashion-mnist")
    real = dataclasses.replace(DATASETS["fashion-mnist"], system_folder=None, mirrors=())
    try:
        found = sources.read_files(real, real.files)
    except DataError as error:
        if "Unable to fetch" in str(error) or "Failed to fetch" in str(error):
            pytest.skip(f"no network: {error}")
        raise
    assert {name: digest(content) for name, content in found.items()} == real.files


# --- the real data set


def test_fingerprint_is_over_the_hashes_in_order() -> None:
    for dataset in DATASETS.values():
        assert dataset.fingerprint == digest("".join(dataset.files.values()).encode())


def test_fashion_mnist_is_found(fashion_mnist: dict[str, Path]) -> None:
    assert list(fashion_mnist) == list(DATASETS["fashion-mnist"].files)
    for name, path in fashion_mnist.items():
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert digest(content) == DATASETS["fashion-mnist"].files[name]
