"""Encrypted files: exports, backups, and snapshots of the index.

    kind      8 bytes, such as b"VPBACKUP"
    version   1 byte, 1
    method    1 byte: 1, the file key is wrapped by a master key; 2, by a passphrase
    method 1  id of the master key 8 bytes
    method 2  salt 16 bytes; log2 N, r and p of scrypt 1 byte each
    file key  nonce 12, ciphertext 32 and tag 16 bytes; the associated data is all before it
    chunks    ciphertext of 256 KiB and its tag, the last one shorter or empty

The file key is random and of this file alone, so the nonce of a chunk is its number. The associated data of a
chunk are all bytes before the chunks, its number, and whether it is the last one: a file that was cut off, or
whose chunks were moved, does not open.
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from voiceprint.errors import EncryptionKeyError
from voiceprint.privacy.encryption.keys import KEY_ID_BYTES, KeyRing
from voiceprint.privacy.encryption.primitives import (
    KEY_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    AuthenticatedCipher,
    BrokenSealError,
    derive_key,
)
from voiceprint.storage.sealing import FileCipher, SealedFileError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["SealedFiles", "needs_passphrase"]

KIND_BYTES = 8
_VERSION = 1
_BY_KEY, _BY_PASSPHRASE = 1, 2
_SALT_BYTES = 16
# 128 MiB and some 0.4 s for each guess at a passphrase, OWASP's first choice. A log2 N of one more doubles
# both.
_LOG2_N, _R, _P = 17, 8, 1
# Of a file that is read: 1 GiB, so that a forged header cannot take all memory or run for hours.
_MOST_LOG2_N, _MOST_R, _MOST_P = 20, 8, 4
CHUNK = 256 << 10  # bytes: the tag adds 1 in 16,000, and a reader holds two chunks
_WRAPPED_BYTES = NONCE_BYTES + KEY_BYTES + TAG_BYTES
_LAST = struct.Struct(">Q?")  # number of a chunk, and whether it is the last


class SealedFiles(FileCipher):
    """Encrypts files under a master key or a passphrase.

    keys: the master keys. passphrase: called for the passphrase where a file needs one, at most once for each
    file. With a passphrase, files are written under it.
    """

    def __init__(self, *, keys: KeyRing | None = None, passphrase: Callable[[], str] | None = None) -> None:
        self._keys = keys
        self._passphrase = passphrase

    @contextmanager
    def writing(self, stream: BinaryIO, kind: bytes) -> Iterator[BinaryIO]:
        raw = secrets.token_bytes(KEY_BYTES)
        head = kind + bytes([_VERSION])
        if self._passphrase is not None:
            salt = secrets.token_bytes(_SALT_BYTES)
            head += bytes([_BY_PASSPHRASE]) + salt + bytes([_LOG2_N, _R, _P])
            wrapping = AuthenticatedCipher(derive_key(self._passphrase(), salt, _LOG2_N, _R, _P))
        else:
            assert self._keys is not None  # noqa: S101  one of the two was given
            master = self._keys.current
            head += bytes([_BY_KEY]) + master.id
            wrapping = master.cipher
        head += wrapping.seal(raw, head)
        stream.write(head)
        writer = _ChunkWriter(stream, AuthenticatedCipher(raw), hashlib.sha256(head).digest())
        yield cast("BinaryIO", writer)
        writer.finish()

    def reading(self, stream: BinaryIO, kind: bytes) -> BinaryIO:
        head, wrapping = self._open_head(stream, kind)
        wrapped = stream.read(_WRAPPED_BYTES)
        try:
            raw = wrapping.open(wrapped, head)
        except BrokenSealError:
            if head[KIND_BYTES + 1] == _BY_PASSPHRASE:
                raise EncryptionKeyError(
                    "The passphrase is not that of the file, or the file is damaged. Nothing was changed."
                ) from None
            raise SealedFileError("its first bytes were changed") from None
        chunks = _ChunkReader(stream, AuthenticatedCipher(raw), hashlib.sha256(head + wrapped).digest())
        # The buffer serves `readline`; the chunks are whole in memory already.
        return cast("BinaryIO", io.BufferedReader(cast("Any", chunks), CHUNK))

    def _open_head(self, stream: BinaryIO, kind: bytes) -> tuple[bytes, AuthenticatedCipher]:
        head = stream.read(KIND_BYTES + 2)
        if len(head) < KIND_BYTES + 2 or not head.startswith(kind):
            raise SealedFileError("it is not an encrypted file of this kind")
        version, method = head[KIND_BYTES:]
        if version != _VERSION or method not in (_BY_KEY, _BY_PASSPHRASE):
            raise SealedFileError("it is of another version: update the library")
        if method == _BY_KEY:
            key_id = stream.read(KEY_ID_BYTES)
            if self._keys is None:
                raise EncryptionKeyError(
                    f"The file is encrypted with the master key {key_id.hex()}, and none is set: set "
                    "VOICE_ENCRYPTION_KEY_FILE, VOICE_ENCRYPTION_KEY or VOICE_ENCRYPTION_KEY_COMMAND. "
                    "Nothing was changed."
                )
            return head + key_id, self._keys.find(key_id).cipher
        more = stream.read(_SALT_BYTES + 3)
        if len(more) < _SALT_BYTES + 3:
            raise SealedFileError("it was cut off")
        salt, (log2_n, r, p) = more[:_SALT_BYTES], more[_SALT_BYTES:]
        if not (1 <= log2_n <= _MOST_LOG2_N and 1 <= r <= _MOST_R and 1 <= p <= _MOST_P):
            raise SealedFileError("its parameters of scrypt are out of range")
        if self._passphrase is None:
            raise EncryptionKeyError("The file is encrypted with a passphrase: give it. Nothing was changed.")
        return head + more, AuthenticatedCipher(derive_key(self._passphrase(), salt, log2_n, r, p))


def needs_passphrase(head: bytes) -> bool:
    """Whether an encrypted file that begins with these bytes, 10 or more, is encrypted with a passphrase."""
    return len(head) > KIND_BYTES + 1 and head[KIND_BYTES + 1] == _BY_PASSPHRASE


class _ChunkWriter(io.RawIOBase):
    """Encrypts what is written, a chunk at a time."""

    def __init__(self, stream: BinaryIO, cipher: AuthenticatedCipher, head: bytes) -> None:
        self._stream = stream
        self._cipher = cipher
        self._head = head
        self._number = 0
        self._buffer = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        with memoryview(data) as view:
            size = view.nbytes
            self._buffer += view.cast("B") if size else b""
        # A full chunk stays until more comes: it may be the last.
        done = 0
        while len(self._buffer) - done > CHUNK:
            self._write_chunk(bytes(self._buffer[done : done + CHUNK]), is_last=False)
            done += CHUNK
        del self._buffer[:done]
        return size

    def finish(self) -> None:
        """Write the last chunk."""
        self._write_chunk(bytes(self._buffer), is_last=True)
        self._buffer.clear()

    def _write_chunk(self, data: bytes, *, is_last: bool) -> None:
        nonce, associated = _place(self._head, self._number, is_last=is_last)
        self._stream.write(self._cipher.seal_with(nonce, data, associated))
        self._number += 1


class _ChunkReader(io.RawIOBase):
    """The content of the chunks that follow in `stream`. Reads one chunk ahead, to know the last."""

    def __init__(self, stream: BinaryIO, cipher: AuthenticatedCipher, head: bytes) -> None:
        self._stream = stream
        self._cipher = cipher
        self._head = head
        self._start = stream.tell() if stream.seekable() else None
        self._next = 0  # number of the chunk in `_ahead`
        self._ahead = self._read_raw()
        self._chunk = b""  # decrypted, of the number before
        self._at = 0  # place in it
        self._size: int | None = None
        if self._start is not None:  # at once, so that nothing of a file that was cut off is used
            self.seek(0, os.SEEK_END)
            self.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._start is not None

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()

    def fileno(self) -> int:
        return self._stream.fileno()

    def readinto(self, target: Buffer) -> int:
        view = memoryview(target).cast("B")
        if self._at == len(self._chunk) and self._ahead is not None:
            self._read_chunk()
        piece = self._chunk[self._at : self._at + len(view)]
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def tell(self) -> int:
        return max(0, self._next - 1) * CHUNK + self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self._start is None:
            raise io.UnsupportedOperation("The stream cannot be read from another place.")
        wanted = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: 0}[whence]
        if whence == os.SEEK_END:
            wanted += self._content_size()
        number = wanted // CHUNK
        if self._next != number + 1:
            last = max(0, self._chunks() - 1)
            self._next = number = min(number, last)
            self._stream.seek(self._start + number * (CHUNK + TAG_BYTES))
            self._ahead = self._read_raw()
            self._read_chunk()
        self._at = min(max(0, wanted - number * CHUNK), len(self._chunk))
        return self.tell()

    def _chunks(self) -> int:
        assert self._start is not None  # noqa: S101  checked by `seek`
        if self._size is None:
            self._size = os.fstat(self._stream.fileno()).st_size - self._start
        return -(-self._size // (CHUNK + TAG_BYTES))

    def _content_size(self) -> int:
        chunks = self._chunks()
        return max(0, (self._size or 0) - chunks * TAG_BYTES)

    def _read_raw(self) -> bytes | None:
        """The next chunk with its tag; None at the end of the stream."""
        wanted, parts = CHUNK + TAG_BYTES, []
        while wanted and (part := self._stream.read(wanted)):  # a pipe gives less than asked for
            parts.append(part)
            wanted -= len(part)
        return b"".join(parts) or None

    def _read_chunk(self) -> None:
        sealed, self._ahead = self._ahead, None
        if sealed is None:
            raise SealedFileError("it was cut off")
        if len(sealed) == CHUNK + TAG_BYTES:
            self._ahead = self._read_raw()
        nonce, associated = _place(self._head, self._next, is_last=self._ahead is None)
        try:
            self._chunk = self._cipher.open_with(nonce, sealed, associated)
        except BrokenSealError:
            raise SealedFileError("it was cut off or changed") from None
        self._at = 0
        self._next += 1


def _place(head: bytes, number: int, *, is_last: bool) -> tuple[bytes, bytes]:
    """Nonce and associated data of a chunk."""
    return number.to_bytes(NONCE_BYTES, "big"), head + _LAST.pack(number, is_last)
