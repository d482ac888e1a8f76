"""The two files of `call-many`, with one JSON object a line: requests, and results of calls."""

from __future__ import annotations

import fcntl
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from ackbridge.contracts.calls import CallRequest
from ackbridge.contracts.wire import InvalidInputError, parse_argument
from ackbridge.security.private_files import open_private

UNFINISHED = "pending"
"""The status of a call that had not ended in time: the next run asks for it again."""

REFUSED = "refused"
"""The status of a request that is no call: nothing was sent."""

_BEGINNING = b'{"key": '
"""Of a line of results."""


class RequestFile:
    """One request a line: `{"key": …, "payload": …}`, with any other field of a request."""

    def __init__(self, path: Path, common: Mapping[str, Any]) -> None:
        """Nothing is read yet.

        Args:
            common: the fields that all requests have, such as the provider; a line may not have
                them.
        """
        self.path = path
        self._common = common

    def __iter__(self) -> Iterator[CallRequest]:
        for _, request in self.numbered():
            yield request

    def check(self) -> int:
        """Read the whole file; gives the number of calls.

        Raises:
            InvalidInputError: naming the line and the field.
        """
        known: dict[str, tuple[int, str]] = {}
        for number, request in self.numbered():
            first, digest = known.setdefault(request.key, (number, request.digest))
            if digest != request.digest:
                raise InvalidInputError(
                    f"{self.path}: line {number}: line {first} has the same key and another payload"
                )
        return len(known)

    def numbered(self) -> Iterator[tuple[int, CallRequest]]:
        """Each request with the number of its line."""
        try:
            with self.path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield number, self._request(number, line)
        except OSError as error:
            raise InvalidInputError(f"{self.path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InvalidInputError(f"{self.path}: not UTF-8") from None

    def _request(self, number: int, line: str) -> CallRequest:
        try:
            request = parse_argument(CallRequest, (self._fields(line),))
            request.check_size()
        except InvalidInputError as error:
            raise InvalidInputError(f"{self.path}: line {number}: {error}") from None
        return request

    def _fields(self, line: str) -> dict[str, Any]:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise InvalidInputError("not a JSON object")
        given_twice = sorted(fields.keys() & self._common.keys())
        if given_twice:
            raise InvalidInputError(f"{given_twice[0]}: given on the command line")
        return {**fields, **self._common}


class ResultFile:
    """One result a line, added as calls end; the latest one of a call counts.

    Another run on the same file continues it. A line that a killed run did not finish is removed.
    Results of other operations may be in the same file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        # By call: the statuses of its requests, by their digests.
        self._known: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def __enter__(self) -> Self:
        """Read what is there.

        Raises:
            InvalidInputError: it is no file of results, or another run writes it.
        """
        try:
            self._file = open(self._path, "a+b", opener=open_private)
        except OSError as error:
            raise InvalidInputError(f"{self._path}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._read(self._file)
        except BlockingIOError:
            self._file.close()
            raise InvalidInputError(f"{self._path}: another call-many writes it") from None
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def check(self, requests: RequestFile) -> None:
        """Check that a result is that of the request which the file has now.

        Raises:
            InvalidInputError: naming the line whose payload has changed since its call has ended.
        """
        for number, request in requests.numbered():
            known = self._known.get(request.call_id, {})
            others = {known[digest] for digest in known.keys() - {request.digest}}
            if others - {UNFINISHED, REFUSED}:
                raise InvalidInputError(
                    f"{requests.path}: line {number}: {self._path} has the result of this key with"
                    " another payload"
                )

    def status(self, request: CallRequest) -> str:
        """As last written; that of the same key with another payload does not count."""
        return self._known.get(request.call_id, {}).get(request.digest, UNFINISHED)

    def is_finished(self, request: CallRequest) -> bool:
        """Whether the call has a result that does not change any more."""
        return self.status(request) != UNFINISHED

    def add(self, request: CallRequest, status: str, result: Mapping[str, Any]) -> None:
        """Add a result; it is in the file when this returns."""
        if self._file is None:
            raise ValueError("the file is not open")
        call_id, digest = request.call_id, request.digest
        fields = {"key": request.key, "status": status, "call_id": call_id, "digest": digest}
        line = json.dumps({**fields, **result}, ensure_ascii=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        self._known[call_id][digest] = status

    def _read(self, file: IO[bytes]) -> None:
        file.seek(0)
        complete = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") and line.startswith(_BEGINNING[: len(line)]):
                break
            try:
                result = json.loads(line)
                known = self._known[str(result["call_id"])]
                known[str(result["digest"])] = str(result["status"])
            except (ValueError, KeyError, TypeError):
                raise InvalidInputError(
                    f"{self._path}: line {number} is no result of call-many"
                ) from None
            complete += len(line)
        file.truncate(complete)
