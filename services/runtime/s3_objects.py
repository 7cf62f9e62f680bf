"""Objects in a bucket by single blocking requests: what `objects_s3` does in threads and repeats."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from io import FileIO
from xml.etree import ElementTree

import urllib3

from services.runtime.errors import KinoError
from services.runtime.ids import new_id
from services.runtime.objects import (
    ObjectDamaged,
    ObjectEntry,
    ObjectInfo,
    ObjectNotFound,
    ObjectStoreFailed,
    check_range,
    is_key,
)
from services.runtime.s3 import (
    SUFFIX,
    Answer,
    Bucket,
    Passing,
    difference_s,
    in_base64,
    refusal,
    text_of,
    wait_on,
    waited_on,
)

_SHA256 = "x-amz-meta-sha256"
_CREATED = "x-amz-meta-created"
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
#: No object's key: these can't be seen through the port.
_OURS = ".kino/"
_STALE_AFTER = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part that was uploaded."""

    tag: str
    sha256: str


class Body:
    """The bytes of an object on their way: a range of it, or all."""

    def __init__(self, answer: Answer, start: int, wanted: int, info: ObjectInfo) -> None:
        """`wanted` bytes from `start` are to come."""
        assert answer.response is not None
        self._response, self._connection = answer.response, waited_on()
        self.left, self.info = wanted, info
        self.etag = answer.headers.get("ETag", "")
        self.is_whole = start == 0 and wanted == info.size_bytes

    def read(self, size_bytes: int) -> bytes:
        """Exactly so many of the bytes left. Raises `Passing` when they don't come."""
        wait_on(self._connection)
        try:
            piece = self._response.read(size_bytes)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Passing("the answer was cut short") from error
        if len(piece) != size_bytes:
            raise Passing("the answer was cut short")
        self.left -= len(piece)
        if not self.left:
            self._response.release_conn()
        return piece

    def close(self) -> None:
        """Give the connection up unless all was read."""
        if self.left:
            self._response.close()


class Source:
    """Content to be written, in memory or in an open file."""

    def __init__(self, content: bytes | FileIO) -> None:
        """The file stays the caller's."""
        self._data = content if isinstance(content, bytes) else b""
        self._file = None if isinstance(content, bytes) else content
        self.size_bytes = len(self._data) if self._file is None else os.fstat(self._file.fileno()).st_size

    def read(self, start: int, size_bytes: int) -> bytes:
        """Some of it; shorter at the end, and when the file was cut meanwhile."""
        if self._file is None:
            return self._data[start : start + size_bytes]
        return os.pread(self._file.fileno(), size_bytes, start)

    def part(self, start: int, size_bytes: int, whole: hashlib._Hash) -> tuple[bytes, str]:
        """A part and its SHA-256; added to `whole`."""
        part = self.read(start, size_bytes)
        whole.update(part)
        return part, hashlib.sha256(part).hexdigest()

    def all(self) -> bytes:
        """All of it."""
        return self.read(0, self.size_bytes)

    def sha256(self) -> str:
        """Of the whole."""
        if self._file is None:
            return hashlib.sha256(self._data).hexdigest()
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()


def open_bucket(bucket: Bucket) -> None:
    """Make the bucket when it is missing."""
    if bucket.call("opening", "HEAD", seen=(404,)).status != 404:
        return
    body = b""
    if bucket.region != "us-east-1":
        place = f"<LocationConstraint>{bucket.region}</LocationConstraint>"
        body = f"<CreateBucketConfiguration>{place}</CreateBucketConfiguration>".encode()
    bucket.call("making the bucket", "PUT", body=body, seen=(409,))


def look(bucket: Bucket) -> None:
    """Ask for the bucket. Raises `ObjectStoreRefuses` when there is none."""
    if bucket.call("check", "HEAD", seen=(404,)).status == 404:
        raise refusal("check", "NoSuchBucket")


def has_conditions(bucket: Bucket) -> bool:
    """Try on an object of our own whether the service keeps to `If-None-Match: *`."""
    key = f"{_OURS}probes/{new_id()}"
    bucket.call("trying conditions", "PUT", key, body=b"first")
    again = bucket.call(
        "trying conditions", "PUT", key, body=b"again", headers=_once(True), seen=(400, 412, 501)
    )
    bucket.call("trying conditions", "DELETE", key, expected=(200, 204))
    return again.status == 412


def claim(bucket: Bucket, key: str, sha256: str, once: bool) -> str:
    """Be the one who writes a large object, together with others of the same content; what to `drop` after.

    A condition on the end of a multipart upload is not enough: SeaweedFS looks first and then writes.
    Raises `Passing` while another is at it. What crashed writers hold ends after a day.
    """
    ours, body = f"{_OURS}claims/{key}", sha256.encode()
    if put_whole(bucket, ours, body, metadata(_sha256(body), datetime.now(UTC)), once):
        return ours
    try:
        held = stat(bucket, ours)
    except ObjectNotFound:
        raise Passing("another has just written it") from None
    if held.sha256 == _sha256(body):
        return ours
    if datetime.now(UTC) - held.create_time >= _STALE_AFTER:
        drop(bucket, ours)
    raise Passing("another writes it")


def drop(bucket: Bucket, key: str) -> None:
    """Remove what `claim` made."""
    bucket.call("put", "DELETE", key, expected=(200, 204), seen=(404,))


def metadata(sha256: str, created: datetime) -> dict[str, str]:
    """The headers that a new object is written with."""
    return {"Content-Type": "application/octet-stream", _SHA256: sha256, _CREATED: created.isoformat()}


def put_whole(bucket: Bucket, key: str, data: bytes, headers: Mapping[str, str], once: bool) -> bool:
    """Write an object in one request; False when there is one and `once`."""
    answer = bucket.call(
        "put", "PUT", key, headers={**headers, **_once(once)}, body=data, sha256=headers[_SHA256], seen=(412,)
    )
    return answer.status != 412


def begin_parts(bucket: Bucket, key: str, headers: Mapping[str, str]) -> str:
    """Begin a multipart upload; its id."""
    checked = {**headers, "x-amz-checksum-algorithm": "SHA256"}
    upload = text_of(
        bucket.call("put", "POST", key, query={"uploads": ""}, headers=checked).xml(), "UploadId"
    )
    if not upload:
        raise Passing("it named no upload")
    return upload


def put_part(bucket: Bucket, key: str, upload: str, number: int, data: bytes, sha256: str) -> Part:
    """Upload a part; numbers begin at 1."""
    query = {"uploadId": upload, "partNumber": str(number)}
    tag = bucket.call("put", "PUT", key, query=query, body=data, sha256=sha256).headers.get("ETag", "")
    if not tag:
        raise Passing("it named no part")
    return Part(tag=tag, sha256=sha256)


def end_parts(bucket: Bucket, key: str, upload: str, parts: Sequence[Part]) -> bool:
    """Make the object of the parts; False when the upload is gone: an earlier request's answer was lost."""
    root = ElementTree.Element("CompleteMultipartUpload")
    for number, part in enumerate(parts, 1):
        said = {"PartNumber": str(number), "ETag": part.tag, "ChecksumSHA256": in_base64(part.sha256)}
        element = ElementTree.SubElement(root, "Part")
        for name, text in said.items():
            ElementTree.SubElement(element, name).text = text
    answer = bucket.call(
        "put",
        "POST",
        key,
        query={"uploadId": upload},
        headers={"Content-Type": "application/xml"},
        body=ElementTree.tostring(root),
        seen=(404,),
    )
    return answer.status == 200


def drop_parts(bucket: Bucket, key: str, upload: str) -> None:
    """Give up a multipart upload; nothing when it is gone."""
    bucket.call("put", "DELETE", key, query={"uploadId": upload}, expected=(200, 204), seen=(404,))


def drop_stale_parts(bucket: Bucket, stale_after: timedelta = _STALE_AFTER) -> int:
    """Give up the multipart uploads that were begun so long ago, by the service's clock; how many.

    A page at a time: the next process that opens the store goes on.
    """
    answer = bucket.call("tidying up", "GET", query={"uploads": "", "max-uploads": "1000"})
    now = datetime.now(UTC) + timedelta(seconds=difference_s(answer.headers) or 0)
    dropped = 0
    for found in answer.xml().iterfind("{*}Upload"):
        key = _key(text_of(found, "Key"))
        if key and now - _time(text_of(found, "Initiated")) >= stale_after:
            drop_parts(bucket, key, text_of(found, "UploadId"))
            dropped += 1
    return dropped


def stat(bucket: Bucket, key: str) -> ObjectInfo:
    """Raises `ObjectNotFound`."""
    answer = bucket.call("stat", "HEAD", key, seen=(404,))
    if answer.status == 404:
        raise ObjectNotFound(key)
    return _info(key, answer, _length(answer))


def delete(bucket: Bucket, key: str) -> bool:
    """Remove an object; whether there was one. S3 itself doesn't tell."""
    found = bucket.call("delete", "HEAD", key, seen=(404,)).status != 404
    if found:
        bucket.call("delete", "DELETE", key, expected=(200, 204), seen=(404,))
    return found


def open_range(bucket: Bucket, key: str, start: int, length: int | None, etag: str = "") -> Body | None:
    """The bytes of a range, cut at the end; None when they are none.

    With `etag` only of that object. Raises `ObjectNotFound`, `RangeOutside`, `ObjectDamaged`.
    """
    if start < 0 or (length is not None and length <= 0):
        check_range(start, length, stat(bucket, key).size_bytes)
        return None
    headers = {"Accept-Encoding": "identity", **({"If-Match": etag} if etag else {})}
    if start or length is not None:
        headers["Range"] = f"bytes={start}-" + ("" if length is None else str(start + length - 1))
    answer = bucket.call(
        "get", "GET", key, headers=headers, expected=(200, 206), seen=(404, 412, 416), leave_body=True
    )
    if answer.status == 404:
        raise ObjectNotFound(key)
    if answer.status == 412:
        raise ObjectDamaged(key)
    if answer.status == 416:
        check_range(start, length, stat(bucket, key).size_bytes)
        return None
    try:
        return _body(key, answer, start, length)
    except (Passing, KinoError):
        assert answer.response is not None
        answer.response.close()
        raise


def get(bucket: Bucket, key: str, start: int, length: int | None, checked: bool) -> bytes:
    """The bytes of a range; a whole object is compared with its checksum if `checked`."""
    reader = Reader(bucket, key, start, length, checked)
    try:
        left = reader.open()
        return reader.read(left) if left else b""
    finally:
        reader.close()


class Differs(Passing):
    """The content has another checksum than the object; repeated in case it was damaged on its way."""


class Reader:
    """Reads a range in pieces; after `Passing` the same call goes on where the bytes ended."""

    def __init__(
        self, bucket: Bucket, key: str, start: int, length: int | None, checked: bool = True
    ) -> None:
        """Asks for nothing yet."""
        self._checked = checked
        self._bucket, self._key = bucket, key
        self._start, self._length = start, length
        self._body: Body | None = None
        self._etag = ""
        self._digest: hashlib._Hash | None = None
        self._sha256 = ""

    def open(self) -> int:
        """How many bytes are to come. Raises what `open_range` raises."""
        self._body = body = open_range(self._bucket, self._key, self._start, self._length)
        if body is None:
            return 0
        self._length, self._etag, self._sha256 = body.left, body.etag, body.info.sha256
        self._digest = hashlib.sha256() if self._checked and body.is_whole else None
        return body.left

    def read(self, size_bytes: int) -> bytes:
        """Exactly so many of the bytes to come; the last are held back unless the checksum is right."""
        assert self._length is not None
        body = self._body or open_range(self._bucket, self._key, self._start, self._length, self._etag)
        if body is None or body.left != self._length or body.etag != self._etag:
            raise ObjectDamaged(self._key)
        try:
            piece = body.read(size_bytes)
        except Passing:
            body.close()
            self._body = None
            raise
        self._body = body
        self._start, self._length = self._start + size_bytes, self._length - size_bytes
        if self._digest is not None:
            self._digest.update(piece)
            if not self._length and self._digest.hexdigest() != self._sha256:
                raise Differs("the content has another checksum")
        return piece

    def close(self) -> None:
        """Give the connection up unless all was read."""
        if self._body is not None:
            self._body.close()


def list_page(bucket: Bucket, prefix: str, token: str, page_keys: int) -> tuple[Sequence[ObjectEntry], str]:
    """Some of the objects under `prefix`, in the service's order, and the token of the next page or ""."""
    query = {"list-type": "2", "prefix": prefix, "max-keys": str(page_keys)}
    answer = bucket.call("list", "GET", query=query | ({"continuation-token": token} if token else {}))
    page = answer.xml()
    more = text_of(page, "IsTruncated") == "true"
    following = text_of(page, "NextContinuationToken")
    if page.tag.rpartition("}")[2] != "ListBucketResult" or (more and following in ("", token)):
        raise Passing("the answer is no listing")
    entries = [_entry(found) for found in page.iterfind("{*}Contents")]
    return [entry for entry in entries if is_key(entry.key)], following if more else ""


def _key(name: str) -> str:
    """The key of the object that S3 calls `name`; empty when Kino did not name it."""
    return name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else ""


def _once(once: bool) -> dict[str, str]:
    return {"If-None-Match": "*"} if once else {}


def _body(key: str, answer: Answer, start: int, length: int | None) -> Body | None:
    """Holds the answer against the question. Raises `Passing` when it is another."""
    sent = _length(answer)
    if answer.status == 206:
        found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if found is None:
            raise Passing("the answer names no range")
        first, last, total = map(int, found.groups())
    else:
        first, last, total = 0, sent - 1, sent
    wanted = total - start if length is None else min(length, total - start)
    if first != start or last != start + wanted - 1 or sent != wanted:
        raise Passing("the answer is another range")
    return Body(answer, start, wanted, _info(key, answer, total)) if wanted else None


def _info(key: str, answer: Answer, size_bytes: int) -> ObjectInfo:
    sha256 = answer.headers.get(_SHA256, "")
    if len(sha256) != 64:
        raise ObjectStoreFailed("reading", f"{key} carries no checksum: Kino did not write it")
    try:
        created = _time(answer.headers.get(_CREATED, ""))
    except Passing:
        created = parsedate_to_datetime(answer.headers["Last-Modified"])
    return ObjectInfo(key=key, size_bytes=size_bytes, create_time=created, sha256=sha256)


def _entry(found: ElementTree.Element) -> ObjectEntry:
    try:
        size_bytes = int(text_of(found, "Size"))
    except ValueError:
        raise Passing("the answer names no size") from None
    created = _time(text_of(found, "LastModified"))
    return ObjectEntry(key=_key(text_of(found, "Key")), size_bytes=size_bytes, create_time=created)


def _length(answer: Answer) -> int:
    try:
        return int(answer.headers["Content-Length"])
    except (KeyError, ValueError):
        raise Passing("the answer tells no length") from None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Passing("the answer tells no time") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
