"""The object store in a local folder.

Layout: the object `a/b` is the one file in the folder `a/b@/`, named by its SHA-256. So a single rename
publishes content and checksum together, of two writers the first wins (a folder never replaces one that
isn't empty), and both survive any copying of the tree. What is being written lives in `.tmp/<instance>/`,
under a lock that the kernel frees when the process dies; whoever opens the store next removes what such
processes left.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

from services.runtime.claims import claim, collect
from services.runtime.ids import new_id
from services.runtime.objects import (
    PIECE_BYTES,
    ChecksumMismatch,
    ObjectDamaged,
    ObjectEntry,
    ObjectExists,
    ObjectInfo,
    ObjectNotFound,
    check_key,
    check_range,
    file_errors,
)

T = TypeVar("T")

_SUFFIX = "@"
_THREADS = 8
_ATTEMPTS = 5


class LocalObjects:
    """An `ObjectStore` in `root`; several processes may use one root at the same time."""

    def __init__(self, root: Path) -> None:
        """Makes the folder and removes what crashed writers left. `swept` says how many writes that were."""
        self._root = root.absolute()
        with file_errors("opening"):
            (self._root / ".tmp").mkdir(parents=True, exist_ok=True)
            #: How many unfinished writes of crashed processes were removed.
            left = collect(self._root / ".tmp")
            self.swept = sum(len(os.listdir(folder)) for folder in left)
            self._claim = claim(self._root / ".tmp")
            self._scratch = self._claim.path
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="objects")

    async def open(self) -> None:
        """See `ObjectStore.open`: the constructor did."""

    async def check(self) -> None:
        """See `ObjectStore.check`: a folder is there."""

    async def close(self) -> None:
        """Wait for what runs and remove this instance's scratch folder."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._pool.shutdown()
        self._claim.release()

    async def put(
        self, key: str, data: bytes | Path, sha256: str | None = None, *, move: bool = False
    ) -> ObjectInfo:
        """See `ObjectStore.put`; with `move` a file on the same file system is renamed, not copied."""
        return await self._run(self._put, check_key(key), data, sha256, move)

    def writer(self, key: str) -> LocalWriter:
        """See `ObjectStore.writer`."""
        return LocalWriter(self, check_key(key))

    async def get(
        self, key: str, start: int = 0, length: int | None = None, *, checked: bool = True
    ) -> bytes:
        """See `ObjectStore.get`."""
        return await self._run(self._get, check_key(key), start, length, checked)

    async def stream(
        self, key: str, start: int = 0, length: int | None = None, piece_bytes: int = PIECE_BYTES
    ) -> AsyncIterator[bytes]:
        """See `ObjectStore.stream`."""
        file, size_bytes, sha256 = await self._run(self._open, check_key(key))
        try:
            left = check_range(start, length, size_bytes)
            digest = hashlib.sha256() if left == size_bytes else None
            while left:
                piece = await self._run(_piece, file, min(piece_bytes, left), start, digest)
                start, left = start + len(piece), left - len(piece)
                if not piece or (digest and not left and digest.hexdigest() != sha256):
                    raise ObjectDamaged(key)
                yield piece
        finally:
            os.close(file)

    async def stat(self, key: str) -> ObjectInfo:
        """See `ObjectStore.stat`."""
        return await self._run(self._stat, check_key(key))

    async def verify(self, key: str) -> ObjectInfo:
        """See `ObjectStore.verify`."""
        return await self._run(self._verify, check_key(key))

    async def delete(self, key: str) -> bool:
        """See `ObjectStore.delete`."""
        return await self._run(self._delete, check_key(key))

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectEntry]:
        """See `ObjectStore.list`; reads the folders the prefix leads to, and no others."""
        for entry in await self._run(self._list, prefix):
            yield entry

    @asynccontextmanager
    async def file(self, key: str) -> AsyncIterator[Path]:
        """See `ObjectStore.file`: the object's own."""
        yield await self.local_path(key)

    async def local_path(self, key: str) -> Path:
        """The object's own file. Raises `ObjectNotFound`."""
        return await self._run(self._file, check_key(key))

    async def _run(self, fn: Callable[..., T], *args: Any) -> T:
        def call() -> T:
            with file_errors(fn.__name__.strip("_")):
                return fn(*args)

        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def _folder(self, key: str) -> Path:
        return self._root / (key + _SUFFIX)

    def _file(self, key: str) -> Path:
        """The object's file. Raises `ObjectNotFound`."""
        folder = self._folder(key)
        with suppress(FileNotFoundError):
            for name in os.listdir(folder):
                return folder / name
        raise ObjectNotFound(key)

    def _stat(self, key: str) -> ObjectInfo:
        try:
            return _info(key, self._file(key))
        except FileNotFoundError:
            raise ObjectNotFound(key) from None

    def _open(self, key: str) -> tuple[int, int, str]:
        """The object's file, its size and the checksum of what was written."""
        path = self._file(key)
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise ObjectNotFound(key) from None
        return file, os.fstat(file).st_size, path.name

    def _get(self, key: str, start: int, length: int | None, checked: bool) -> bytes:
        file, size_bytes, sha256 = self._open(key)
        with open(file, "rb", buffering=0) as reader:
            wanted = check_range(start, length, size_bytes)
            reader.seek(start)
            pieces = []
            while wanted:
                piece = reader.read(wanted)
                if not piece:
                    raise ObjectDamaged(key)
                pieces.append(piece)
                wanted -= len(piece)
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if checked and len(content) == size_bytes and hashlib.sha256(content).hexdigest() != sha256:
            raise ObjectDamaged(key)
        return content

    def _verify(self, key: str) -> ObjectInfo:
        info = self._stat(key)
        with self._file(key).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != info.sha256:
                raise ObjectDamaged(key)
        return info

    def _put(self, key: str, data: bytes | Path, sha256: str | None, move: bool) -> ObjectInfo:
        part = self.begin()
        try:
            digest = _fill(part, data, move=move)
            info = self.publish(part, key, digest, sha256)
        finally:
            shutil.rmtree(part.parent, ignore_errors=True)
        if move and isinstance(data, Path):
            data.unlink(missing_ok=True)
        return info

    def begin(self) -> Path:
        """A scratch folder for one object, and the file in it to write to."""
        folder = self._scratch / new_id()
        folder.mkdir()
        return folder / "part"

    def publish(self, part: Path, key: str, digest: str, expected: str | None) -> ObjectInfo:
        """Make a written part durable and then visible under `key`."""
        if expected is not None and expected != digest:
            raise ChecksumMismatch(key)
        part.chmod(0o444)
        os.utime(part)
        _sync(part)
        part.rename(part.parent / digest)
        _sync(part.parent)
        info = _info(key, part.parent / digest)
        try:
            self._move_in(part.parent, self._folder(key))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if self._file(key).name != digest:
                raise ObjectExists(key) from None
            _sync(self._folder(key).parent)  # the other writer may not have come to that yet
            return self._stat(key)
        return info

    def _move_in(self, source: Path, target: Path) -> None:
        """Rename, making the folders above; again when a concurrent `_delete` just removed an empty one."""
        for attempt in range(_ATTEMPTS):
            try:
                self._make_folders(target.parent)
                with _durable(target.parent):
                    source.rename(target)
                return
            except FileNotFoundError:
                if attempt == _ATTEMPTS - 1:
                    raise

    def _make_folders(self, folder: Path) -> None:
        """Make missing folders, each durable in its parent."""
        if folder == self._root or folder.is_dir():
            return
        self._make_folders(folder.parent)
        with _durable(folder.parent):
            folder.mkdir(exist_ok=True)

    def _delete(self, key: str) -> bool:
        folder = self._folder(key)
        grave = self._scratch / new_id()
        try:
            with _durable(folder.parent):
                folder.rename(grave)
        except FileNotFoundError:
            return False
        shutil.rmtree(grave, ignore_errors=True)
        with suppress(OSError):
            for parent in folder.relative_to(self._root).parents[:-1]:
                (self._root / parent).rmdir()
        return True

    def _list(self, prefix: str) -> Sequence[ObjectEntry]:
        base, _, _ = prefix.rpartition("/")
        if base:
            check_key(base)
        entries = []
        for key in sorted(self._keys(self._root / base, base + "/" if base else "")):
            if key.startswith(prefix):
                with suppress(ObjectNotFound):  # deleted meanwhile
                    info = self._stat(key)
                    entries.append(
                        ObjectEntry(key=key, size_bytes=info.size_bytes, create_time=info.create_time)
                    )
        return entries

    def _keys(self, folder: Path, prefix: str) -> Iterator[str]:
        with suppress(FileNotFoundError):
            for entry in os.scandir(folder):
                if entry.name.endswith(_SUFFIX):
                    yield prefix + entry.name[: -len(_SUFFIX)]
                elif not entry.name.startswith("."):
                    yield from self._keys(Path(entry.path), f"{prefix}{entry.name}/")


class LocalWriter:
    """See `ObjectWriter`."""

    def __init__(self, store: LocalObjects, key: str) -> None:
        self._store = store
        self._key = key
        self._hash = hashlib.sha256()
        self._part: Path | None = None
        self._file: BinaryIO | None = None

    async def __aenter__(self) -> LocalWriter:
        self._part = await self._store._run(self._store.begin)
        self._file = await self._store._run(open, self._part, "wb")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._part is not None:
            await self._store._run(shutil.rmtree, self._part.parent, True)

    async def write(self, data: bytes) -> None:
        """See `ObjectWriter.write`."""
        await self._store._run(self._append, data)

    def _append(self, data: bytes) -> None:
        if self._file is None:
            raise ValueError("the writer isn't open")
        self._file.write(data)
        self._hash.update(data)

    async def commit(self, sha256: str | None = None) -> ObjectInfo:
        """See `ObjectWriter.commit`."""
        if self._file is None or self._part is None:
            raise ValueError("the writer isn't open")
        await self._store._run(self._file.close)
        return await self._store._run(
            self._store.publish, self._part, self._key, self._hash.hexdigest(), sha256
        )


def _piece(file: int, size_bytes: int, start: int, digest: hashlib._Hash | None) -> bytes:
    piece = os.pread(file, size_bytes, start)
    if digest is not None:
        digest.update(piece)
    return piece


def _fill(part: Path, data: bytes | Path, *, move: bool) -> str:
    """Write the content to `part`; its digest. A moved file is only linked: the caller removes it."""
    if isinstance(data, bytes):
        part.write_bytes(data)
        return hashlib.sha256(data).hexdigest()
    if not (move and _linked(data, part)):
        shutil.copyfile(data, part)
    with part.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _linked(source: Path, target: Path) -> bool:
    """Whether a second name could be made; not across file systems, nor on those that know no links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            raise
        return False
    return True


def _info(key: str, file: Path) -> ObjectInfo:
    found = file.stat()
    created = datetime.fromtimestamp(found.st_mtime, UTC)
    return ObjectInfo(key=key, size_bytes=found.st_size, create_time=created, sha256=file.name)


def contents(root: Path) -> Iterator[tuple[str, int]]:
    """Every object's key and size in bytes, read without opening the store, which would sweep it."""
    for folder, _, names in os.walk(root):
        if folder.endswith(_SUFFIX) and names:
            with suppress(FileNotFoundError):
                key = str(Path(folder).relative_to(root)).removesuffix(_SUFFIX)
                yield key, (Path(folder) / names[0]).stat().st_size


@contextmanager
def _durable(path: Path) -> Iterator[None]:
    """Put to disk what is done inside to the folder `path`, even if another then removes it as empty."""
    handle = os.open(path, os.O_RDONLY)
    try:
        yield
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    with _durable(path):
        pass
