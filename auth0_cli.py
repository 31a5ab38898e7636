#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# auth0_cli.py 1.0.0
# In a project that copied this file, change nothing here: to update, replace the whole file by the
# one of a newer release. Its session files are shared with, and safe beside, every other copy.
"""Secure a command-line program with Auth0: log in, get a token, stay logged in, log out.

One file, the standard library only, Python 3.9 and later. As a program::

    python auth0_cli.py login --domain acme.eu.auth0.com --client-id CLIENT_ID
    curl -H "Authorization: Bearer $(python auth0_cli.py token)" https://api.example.com/

and as a library::

    from auth0_cli import get_token

    headers = {"Authorization": f"Bearer {get_token(audience='https://api.example.com')}"}

What it speaks: the authorization code with PKCE over a loopback listener (RFC 7636, RFC 8252),
the device authorization grant (RFC 8628), client credentials (RFC 6749 section 4.4), Auth0's
password grants, refresh with rotation (RFC 9700), revocation (RFC 7009) and ID tokens (OpenID
Connect Core 1.0).

Contents, each part built on those above it only:
    Constants; Errors; Text; Configuration; Session files; HTTP; ID token; Token requests;
    Browser flow; Device flow; Auth0; Command line

Errors::

    Auth0Error            exit code 1
    +-- ConfigError       2   something is not set, or set wrongly
    +-- LoginRequired     3   nobody is logged in, or the session has ended
    +-- LoginFailed       4   denied, expired, timed out
    +-- InvalidToken      4   the ID token fails a check
    +-- OAuthError        4   Auth0 refused the request and said why
    +-- NetworkError      5   Auth0 was not reached or is overloaded: worth trying again
    +-- CacheError        1   a session file can't be used

A value comes from the argument or flag, else from the environment (AUTH0_DOMAIN, ...), else from
the one stored session that matches. Times are epoch seconds and durations seconds throughout.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False  # the typing module would cost as much as the rest of a start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from http.server import BaseHTTPRequestHandler
    from typing import Any, NoReturn, Protocol, TypeVar, Union

    Record = dict[str, Any]  # a session as its file holds it, or one of its tokens
    Show = Callable[[dict[str, Any]], object]
    Request = TypeVar("Request")
    CacheSetting = Union[str, os.PathLike[str], "Cache"]

    class Cache(Protocol):
        """Where sessions are kept: `FileCache`, `MemoryCache` or your own."""

        def read(self, key: str) -> bytes | None: ...

        def write(self, key: str, data: bytes) -> None: ...

        def delete(self, key: str) -> None: ...

        def list(self) -> list[str]: ...

        def lock(self, key: str, timeout: float) -> AbstractContextManager[object]: ...


__version__ = "1.0.0"
__all__ = [
    "Auth0",
    "Auth0Error",
    "CacheError",
    "ConfigError",
    "FileCache",
    "InvalidToken",
    "LoginFailed",
    "LoginRequired",
    "MemoryCache",
    "NetworkError",
    "OAuthError",
    "Session",
    "get_token",
    "main",
]

# ---- Constants -----------------------------------------------------------------------------------

DEFAULT_PORTS = (18484, 18485, 18486, 18487, 18488)  # Auth0 compares the port: each is registered
DEFAULT_SCOPE = "openid profile email offline_access"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
PASSWORD_REALM = "http://auth0.com/oauth/grant-type/password-realm"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FLOWS = ("auto", "browser", "device", "client-credentials", "password")
SESSION_VERSION = 1
MAX_BYTES = 1 << 20  # of an answer, and of a session file
REQUEST_SECONDS = 30.0  # for one request, retries included
LOCK_SECONDS = 60.0  # longer than a refresh may take, so that only a stopped holder is given up
LEEWAY = 60  # seconds that the clocks of this machine and of Auth0 may differ
RECHECK_SECONDS = 1.0  # how long a token is used without a look at the session file
MAX_LIFETIME = 366 * 86400  # Auth0 issues no token that lives longer than 30 days
ENVIRONMENT = {
    **{name: f"AUTH0_{name.upper()}" for name in ("domain", "client_id", "client_secret")},
    **{name: f"AUTH0_{name.upper()}" for name in ("audience", "scope", "organization", "profile")},
    "cache": "AUTH0_CLI_CACHE",
    "ports": "AUTH0_CALLBACK_PORTS",
}
OWN_PARAMETERS = (  # of /authorize: not for --param
    "response_type response_mode client_id redirect_uri scope audience organization state nonce "
    "code_challenge code_challenge_method client_secret request request_uri"
).split()
SECRET_PARAMETERS = (
    "client_secret client_assertion code code_verifier device_code refresh_token token password"
).split()

# ---- Errors --------------------------------------------------------------------------------------


class Auth0Error(Exception):
    """The root of all errors: `str()` says what happened and what to do next, without a secret.

    Attributes:
        error: the error code of the OAuth answer where there is one, such as `access_denied`.
        exit_code: what the command line exits with.
        retryable: whether the same call may succeed later.
        retry_after: seconds to wait first, where the server asks for that.
    """

    exit_code = 1
    retryable = False
    retry_after: float | None = None

    def __init__(self, message: str, error: str | None = None) -> None:
        super().__init__(message)
        self.error = error


class ConfigError(Auth0Error):
    """Something that the call needs is not set, or is set to what can't work."""

    exit_code = 2


class LoginRequired(Auth0Error):
    """Nobody is logged in, or the session has expired or was revoked."""

    exit_code = 3


class LoginFailed(Auth0Error):
    """The login was denied, expired or timed out, or its callback was invalid."""

    exit_code = 4


class InvalidToken(Auth0Error):
    """The ID token fails a check; `claim` names it: `iss`, `nonce`, `signature`, ..."""

    exit_code = 4

    def __init__(self, message: str, claim: str | None = None) -> None:
        super().__init__(message)
        self.claim = claim


class OAuthError(Auth0Error):
    """Auth0 refused the request (RFC 6749 section 5.2): `error`, `description`, HTTP `status`."""

    exit_code = 4

    def __init__(
        self, message: str, error: str | None = None, description: str = "", status: int = 0
    ) -> None:
        super().__init__(message, error)
        self.description = description
        self.status = status


class NetworkError(Auth0Error):
    """Auth0 was not reached, or did not give an answer that makes sense: worth trying again."""

    exit_code = 5
    retryable = True


class CacheError(Auth0Error):
    """A session file or its directory can't be used as it is."""


# ---- Text ----------------------------------------------------------------------------------------


def _clean(value: object, limit: int = 300) -> str:
    """Outside text as one line that can't move a cursor, reverse the reading or flood a screen."""
    text = "".join(c if c.isprintable() else " " for c in str(value)[: 4 * limit])
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _warn(message: str) -> None:
    """One line on stderr; a closed stderr is no reason to fail."""
    try:
        sys.stderr.write(f"auth0_cli: warning: {message}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


def _b64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    from binascii import b2a_base64

    text = b2a_base64(data, newline=False).decode("ascii")
    return text.replace("+", "-").replace("/", "_").rstrip("=")


def _b64url_decode(text: str) -> bytes:
    """The bytes of a base64url text; ValueError unless it is their one canonical spelling."""
    from binascii import a2b_base64

    data = a2b_base64(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))
    if _b64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


def _unique_members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(members)
    if len(result) != len(members):
        raise ValueError("a name occurs twice in a JSON object")
    return result


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class _ScannerContext:
    """What the json module's decoder hands to its own scanner."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_unique_members)
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_no_constant)
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner takes it from its context


def _json_scanner() -> Callable[[str, int], tuple[Any, int]]:
    """The json module's scanner, without the module if possible: that costs a third of a start."""
    try:
        from _json import make_scanner

        return make_scanner(_ScannerContext)  # type: ignore[no-any-return, unused-ignore]
    except (ImportError, AttributeError, TypeError):  # another Python, or a later one
        from json import JSONDecoder

        decoder = JSONDecoder(object_pairs_hook=_unique_members, parse_constant=_no_constant)
        return decoder.scan_once  # type: ignore[attr-defined, no-any-return, unused-ignore]


def _parse_json(data: bytes) -> Any:
    """The value of a JSON text (RFC 8259): UTF-8, no name twice, no NaN; ValueError otherwise."""
    text = data.decode("utf-8").strip(" \t\r\n")
    try:
        value, end = _json_scanner()(text, 0)
    except (StopIteration, RecursionError, SystemError):  # the last: 3.10 without json.decoder
        raise ValueError("not JSON") from None
    if end != len(text):
        raise ValueError("text after the JSON value")
    return value


def _is_number(value: object) -> bool:
    """Whether it is a finite JSON number (a bool is an int to Python, and 1e999 is inf)."""
    return type(value) in (int, float) and abs(value) < 1e18  # type: ignore[arg-type]


# ---- Configuration -------------------------------------------------------------------------------


def _is_loopback(host: str) -> bool:
    """Whether a host (no port) names this machine: localhost, [::1] or 127.0.0.0/8."""
    octets = host.split(".")
    return host in ("localhost", "[::1]") or (
        len(octets) == 4 and octets[0] == "127" and all(o.isdigit() for o in octets)
    )


def _split_port(netloc: str) -> tuple[str, str]:
    host, colon, port = netloc.rpartition(":")
    return (host, port) if colon and not netloc.endswith("]") else (netloc, "")


def _normal_domain(value: str) -> str:
    """The one spelling of a tenant's domain: `acme.eu.auth0.com`, or `http://127.0.0.1:8080`.

    Raises:
        ConfigError: it is not a host name, or plain http to another machine (RFC 6749 section 3.2).
    """
    text = value.strip().lower()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "https", text
    host, port = _split_port(rest.removesuffix("/"))
    host = host.removesuffix(".")
    allowed = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")
    plain = host == "[::1]" or (host and set(host) <= allowed and host[0] not in "-.")
    if scheme not in ("http", "https") or not plain or not (port.isdigit() or not port):
        raise ConfigError(
            f"{_clean(value, 80)!r} is not a domain: give it as in acme.eu.auth0.com "
            "(Dashboard > Applications > your application > Domain)"
        )
    if scheme == "http" and not _is_loopback(host):
        raise ConfigError(f"plain http to {host} is refused: give the domain without http://")
    if not port or (scheme, port) in (("https", "443"), ("http", "80")):
        netloc = host
    else:
        netloc = f"{host}:{port}"
    return netloc if scheme == "https" else f"http://{netloc}"


def _parse_ports(value: str | int | Iterable[int]) -> tuple[int, ...]:
    """The loopback ports of `18484,18485`, 18484 or [18484, 18485]; 0 means any free one."""
    try:
        items = value.split(",") if isinstance(value, str) else value
        ports = (items,) if isinstance(items, int) else tuple(int(item) for item in items)
    except (ValueError, TypeError):
        ports = ()
    if not ports or not all(0 <= port < 65536 for port in ports):
        raise ConfigError(
            f"{_clean(value, 80)!r} are not ports: give numbers of 0 to 65535, as in 18484,18485"
        )
    return ports


def _check_params(params: Mapping[str, str]) -> dict[str, str]:
    """The further parameters of /authorize, none of which the client itself owns."""
    owned = sorted(OWN_PARAMETERS & params.keys())
    if owned:
        raise ConfigError(
            f"the parameter {owned[0]!r} is set by auth0_cli itself: use its own option if it has "
            "one, and leave it out of --param"
        )
    if "max_age" in params and not str(params["max_age"]).isdecimal():
        raise ConfigError("max_age takes a number of seconds, as in --param max_age=3600")
    return {str(name): str(value) for name, value in params.items()}


def _callback_urls(ports: Iterable[int]) -> str:
    """The line to paste under Allowed Callback URLs."""
    return ", ".join(f"http://127.0.0.1:{port or 'PORT'}/callback" for port in ports)


def _state_directory() -> str:
    """The platform's directory for the sessions of this program."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join(home, "Library", "Application Support")
    else:
        base = os.environ.get("XDG_STATE_HOME", "")
        if not os.path.isabs(base):  # as the XDG specification says: a relative one is ignored
            base = os.path.join(home, ".local", "state")
    return os.path.join(base, "auth0_cli")


# ---- Session files -------------------------------------------------------------------------------

_SAFE = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_OPEN_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_mutexes: dict[object, Any] = {}  # what is locked -> the mutex of this process's threads
if hasattr(os, "register_at_fork"):  # a child has none of the threads that hold them
    os.register_at_fork(after_in_child=_mutexes.clear)


def _session_key(*parts: str) -> str:
    """The name of a session: domain, client and profile, also where a file system ignores case."""
    return "~".join(
        "".join(chr(b) if chr(b) in _SAFE else f"%{b:02x}" for b in part.encode("utf-8"))
        for part in parts
    )


def _split_key(key: str) -> list[str]:
    """Domain, client and profile of a session's name; [] if it is not one."""
    from urllib.parse import unquote

    parts = [unquote(part) for part in key.split("~")]
    return parts if len(parts) == 3 and _session_key(*parts) == key else []


def _try_file_lock(fd: int, lock: bool) -> bool:
    """Takes or releases the operating system's lock; False if another process has it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(fd, 0, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK if lock else msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, (fcntl.LOCK_EX | fcntl.LOCK_NB) if lock else fcntl.LOCK_UN)
    except (BlockingIOError, PermissionError):
        return False
    return True


class _Lock:
    """Excludes the threads of this process and, with a path, all other processes.

    The file is never deleted, and its lock dies with the process. The mutex is there because some
    file systems (NFS) grant one process the same lock twice.
    """

    def __init__(self, name: object, timeout: float, path: str | None = None) -> None:
        from _thread import allocate_lock

        self._mutex = _mutexes.setdefault(name, allocate_lock())
        self._timeout = timeout
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | _OPEN_FLAGS, 0o600) if path else -1

    def __enter__(self) -> None:
        deadline = time.monotonic() + self._timeout
        try:
            if not self._mutex.acquire(timeout=self._timeout):
                raise self._busy()
            try:
                while self._fd >= 0 and not _try_file_lock(self._fd, True):
                    if time.monotonic() > deadline:
                        raise self._busy()
                    time.sleep(0.01)
            except BaseException:
                self._mutex.release()
                raise
        except BaseException as problem:
            self._close()
            if isinstance(problem, OSError):
                raise CacheError(
                    f"{self._path} can't be locked ({problem.strerror}): give a directory of a "
                    "file system with locks, with --cache or AUTH0_CLI_CACHE"
                ) from problem
            raise

    def __exit__(self, *exc: object) -> None:
        if self._fd >= 0:
            _try_file_lock(self._fd, False)  # a forked child may have a copy of the descriptor
        self._close()
        self._mutex.release()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _busy(self) -> NetworkError:
        return NetworkError(
            f"something else has been busy with this session for {self._timeout:.0f} s: "
            "try again, or end that process"
        )


class FileCache:
    """Sessions as JSON files of one directory, which many processes share.

    The directory is 0700 and a file 0600 from its first byte; a file is replaced as a whole and
    flushed to the disk. A file or directory that others own or could have written is refused.
    The methods raise OSError as the os module does, and CacheError for what they refuse.

    Args:
        directory: where; the platform's state directory if None.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self.directory = os.path.abspath(directory or _state_directory())

    def path(self, key: str, suffix: str = ".json") -> str:
        """The file of a session."""
        if len(key) > 220 or os.path.basename(key) != key or key.startswith("."):
            raise CacheError("domain, client and profile are too long for a file name")
        return os.path.join(self.directory, key + suffix)

    def read(self, key: str) -> bytes | None:
        """The stored bytes (at most one more than `MAX_BYTES`), or None. Takes no lock."""
        path = self.path(key)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _OPEN_FLAGS  # a FIFO must not block
        try:
            self._check(self.directory, os.stat(self.directory), None)
            with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
                self._check(path, os.fstat(file.fileno()), file.fileno())
                return file.read(MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, key: str, data: bytes) -> None:
        """Replaces the file by one with these bytes: afterwards it is the old or the new one.

        The caller holds the lock, so the temporary file can have one fixed name, and what a killed
        process left of it is swept by the next write.
        """
        temporary = self.path(key, ".tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN_FLAGS
        self._make_directory()
        _unlink(temporary)
        try:
            with open(temporary, "wb", opener=lambda name, _: os.open(name, flags, 0o600)) as file:
                if hasattr(os, "fchmod"):
                    os.fchmod(file.fileno(), 0o600)  # whatever the umask left of it
                file.write(data)
                file.flush()
                _flush(file.fileno())
            _replace(temporary, self.path(key))
        except BaseException:
            _unlink(temporary)
            raise
        self._flush_directory()

    def delete(self, key: str) -> None:
        """Removes the file, if there is one; the lock file stays for those who wait for it."""
        _unlink(self.path(key, ".tmp"))
        _unlink(self.path(key))
        self._flush_directory()

    def list(self) -> list[str]:
        """The keys of all sessions."""
        try:
            return [name[:-5] for name in os.listdir(self.directory) if name.endswith(".json")]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def lock(self, key: str, timeout: float) -> AbstractContextManager[object]:
        """Excludes other processes and threads from one session.

        Entering it raises NetworkError if it was not to be had within `timeout` seconds.
        """
        self._make_directory()
        path = self.path(key, ".lock")
        return _Lock(path, timeout, path)

    def set_aside(self, key: str) -> str:
        """Keeps a damaged file under another name, and returns that."""
        kept = self.path(key, f".damaged-{time.time_ns()}")
        _replace(self.path(key), kept)
        return kept

    def _make_directory(self) -> None:
        os.makedirs(self.directory, 0o700, exist_ok=True)
        self._check(self.directory, os.stat(self.directory), None)

    def _flush_directory(self) -> None:
        """Makes a rename last, where a directory can be flushed."""
        if os.name == "posix":
            try:
                fd = os.open(self.directory, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError:
                pass

    def _check(self, path: str, info: os.stat_result, fd: int | None) -> None:
        """Refuses what others could have written, and closes to them what they could read."""
        from stat import S_ISREG

        if fd is not None and not S_ISREG(info.st_mode):
            raise CacheError(f"{path} is not a regular file: move it away and log in again")
        if os.name != "posix":
            return  # a profile directory of Windows is private by its access-control list
        if info.st_uid != os.geteuid():
            raise CacheError(f"{path} belongs to another user: use a directory of your own")
        if fd is not None and info.st_nlink > 1:
            raise CacheError(f"{path} has a second name (a hard link): remove it and log in again")
        if info.st_mode & 0o022:
            raise CacheError(
                f"{path} can be written by other users, who may have changed it: check it, then "
                "take their permission away (chmod go-rwx)"
            )
        if info.st_mode & 0o077:
            try:
                os.chmod(path if fd is None else fd, info.st_mode & 0o700)
                _warn(f"{path} could be read by other users: closed to them now")
            except OSError:
                _warn(f"{path} can be read by other users, and that can't be changed")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _flush(fd: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync leaves it in the drive's cache there
    else:
        os.fsync(fd)


def _replace(source: str, target: str) -> None:
    """os.replace; on Windows it fails for the moment in which another process reads the target."""
    deadline = time.monotonic() + 2
    while True:
        try:
            return os.replace(source, target)
        except PermissionError:
            if os.name != "nt" or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class MemoryCache:
    """Sessions of this process only, for tests and for programs that must leave no trace."""

    def __init__(self) -> None:
        self._data: dict[str, bytes] = {}

    def read(self, key: str) -> bytes | None:
        """The stored bytes, or None."""
        return self._data.get(key)

    def write(self, key: str, data: bytes) -> None:
        """Stores the bytes."""
        self._data[key] = data

    def delete(self, key: str) -> None:
        """Forgets them."""
        self._data.pop(key, None)

    def list(self) -> list[str]:
        """The keys of all sessions."""
        return list(self._data)

    def lock(self, key: str, timeout: float) -> AbstractContextManager[object]:
        """Excludes other threads; entering it raises NetworkError after `timeout` seconds."""
        return _Lock((id(self), key), timeout)


_TEXT, _MAYBE, _NUMBER = (str,), (str, type(None)), (int, float)
_SHAPE: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("domain", "client_id", "profile"), _TEXT),
    **dict.fromkeys(("id_token", "refresh_token", "organization", "audience", "scope"), _MAYBE),
    **dict.fromkeys(("tokens", "jwks"), (list,)),
    "jwks_refetched_at": _NUMBER,
    "user": (dict, type(None)),
}
_TOKEN_SHAPE: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("scope", "access_token", "token_type"), _TEXT),
    **dict.fromkeys(("audience", "organization", "requested"), _MAYBE),
    **dict.fromkeys(("expires_at", "obtained_at"), _NUMBER),
    "default": (bool,),
}


def _new_record(*name: str) -> Record:
    """A session with nothing in it, for domain, client and profile."""
    parts = dict(zip(("domain", "client_id", "profile"), name))
    empty = {"version": SESSION_VERSION, "tokens": [], "jwks": [], "jwks_refetched_at": 0}
    return {**dict.fromkeys(_SHAPE), **empty, **parts}


def _has_shape(value: object, shape: dict[str, tuple[type, ...]]) -> bool:
    return type(value) is dict and all(
        type(value.get(name)) in types and (types is not _NUMBER or _is_number(value[name]))
        for name, types in shape.items()
    )


def _parse_record(data: bytes, key: str) -> Record:
    """A session from its file's bytes.

    Raises:
        ValueError: damaged, or the session of another name.
        CacheError: written by a newer version.
    """
    if len(data) > MAX_BYTES:
        raise ValueError("too large")
    record: Any = _parse_json(data)
    version = record.get("version") if type(record) is dict else None
    if type(version) is int and version > SESSION_VERSION:
        raise CacheError(
            "the stored session was written by a newer version of auth0_cli and is left alone: "
            "update this copy, or give another directory with --cache"
        )
    if (
        version != SESSION_VERSION
        or not _has_shape(record, _SHAPE)
        or not all(_has_shape(token, _TOKEN_SHAPE) for token in record["tokens"])
        or key != _session_key(record["domain"], record["client_id"], record["profile"])
    ):
        raise ValueError("not this session")
    return record  # type: ignore[no-any-return, unused-ignore]


class _Store:
    """The sessions of one cache: parsed, and not lost where they can't be written."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._unsaved: dict[str, tuple[Record, bytes | None]] = {}

    def load(self, key: str, locked: bool = False) -> Record | None:
        """The session, or None. A damaged one is set aside under its lock, with a warning."""
        data: bytes | None = self.call("read", key)
        if key in self._unsaved:
            record, on_disk = self._unsaved[key]
            if on_disk == data:
                return record
            del self._unsaved[key]  # someone else has written since: theirs is the newer one
        try:
            return None if data is None else _parse_record(data, key)
        except ValueError:
            if locked:
                kept = self.call("set_aside", key)
                return _warn(f"a session file was damaged: it is kept as {kept}")
        with self.lock(key):
            return self.load(key, True)

    def save(self, key: str, record: Record) -> None:
        """Writes a session; CacheError if that fails, and this process goes on with it."""
        import json

        data = json.dumps(record, indent=1).encode("ascii")
        self._unsaved[key] = (record, self.call("read", key))
        self.call("write", key, data)
        del self._unsaved[key]

    def delete(self, key: str) -> None:
        """Removes a session."""
        self._unsaved.pop(key, None)
        self.call("delete", key)

    def lock(self, key: str, timeout: float = LOCK_SECONDS) -> AbstractContextManager[object]:
        """Excludes other writers and refreshers of this session."""
        return self.call("lock", key, timeout)  # type: ignore[no-any-return]

    def call(self, method: str, *args: object) -> Any:
        """A method of the cache; whatever goes wrong in it is a CacheError."""
        try:
            return getattr(self._cache, method)(*args)
        except Auth0Error:
            raise
        except Exception as problem:
            what = _clean(problem) if isinstance(problem, OSError) else type(problem).__name__
            raise CacheError(
                f"the session can't be used, {method} failed: {what}. Free or allow what is named, "
                "or give another directory with --cache or AUTH0_CLI_CACHE"
            ) from problem


# ---- HTTP ----------------------------------------------------------------------------------------


class _Answer:
    """What a server answered: status, headers with lower-case names, at most MAX_BYTES of body."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    def json(self) -> dict[str, Any] | None:
        """The JSON object of the body; None if it is anything else."""
        try:
            value = _parse_json(self.body)
        except ValueError:
            return None
        return value if type(value) is dict else None

    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait (RFC 9110 section 10.2.3; Auth0: epoch seconds)."""
        for name, base in (("retry-after", 0.0), ("x-ratelimit-reset", time.time())):
            text = self.headers.get(name, "").strip()
            if text.isascii() and text.isdigit():
                return max(0.0, float(text[:12]) - base)
        return None


class _Attempt:
    """One request on its own connection: it knows its deadline, and whether anything was sent."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.sent = False
        self.answer: _Answer | None = None
        self.problem: Exception | None = None

    def run(self, request: Any, loopback: bool, secure: bool) -> None:
        """Keeps the answer or the problem; runs in a thread that its caller may stop waiting for.

        The connection is given up at the deadline, so that nothing is sent that nobody awaits.
        """
        try:
            with self._opener(loopback, secure).open(request, timeout=self._left()) as response:
                body = response.read(MAX_BYTES + 1)
                if len(body) > MAX_BYTES:
                    raise ValueError("the answer is larger than 1 MiB")
                if response.length:  # read() itself is content with less than was announced
                    raise ConnectionError("the answer was cut off")
                self.answer = _Answer(response.status, response.headers, body)
        except Exception as problem:  # noqa: BLE001 - whatever a hostile server makes of http.client
            self.problem = problem

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left")
        return left

    def _opener(self, loopback: bool, secure: bool) -> Any:
        """An opener that follows no redirect and knows no scheme but http and https."""
        import http.client
        import urllib.request as urllib

        attempt = self

        def watched(connection: type[http.client.HTTPConnection]) -> Any:
            class Watched(connection):  # type: ignore[misc, valid-type]
                def connect(self) -> None:
                    self.timeout = attempt._left()
                    super().connect()
                    self.sock.settimeout(attempt._left())
                    attempt.sent = True

            return Watched

        class Http(urllib.HTTPHandler):
            def http_open(self, req: urllib.Request) -> http.client.HTTPResponse:
                return self.do_open(watched(http.client.HTTPConnection), req)

        class Https(urllib.HTTPSHandler):
            def https_open(self, req: urllib.Request) -> http.client.HTTPResponse:
                return self.do_open(watched(http.client.HTTPSConnection), req, context=context)

        opener = urllib.OpenerDirector()
        opener.addheaders = [("User-Agent", f"auth0_cli/{__version__}")]
        opener.add_handler(urllib.ProxyHandler({} if loopback else None))
        if secure:
            context = _tls_context()
            opener.add_handler(Https(context=context))
        else:
            opener.add_handler(Http())
        return opener


def _tls_context() -> Any:
    """Certificates and host names are verified, always (RFC 9525); SSL_CERT_FILE is obeyed."""
    import ssl

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _explain(problem: BaseException, host: str) -> str:
    """What a failed connection means, and what the user can do."""
    import socket
    import ssl

    reason = getattr(problem, "reason", problem)
    # What http.client says may hold bytes of the answer, and so what the server repeats.
    named = isinstance(reason, OSError) and not isinstance(reason, ValueError)
    text = (_clean(reason, 200) if named else "") or f"not HTTP: {type(reason).__name__}"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {host} is not trusted ({_clean(reason.verify_message, 120)}): "
            "behind a company's proxy set SSL_CERT_FILE to its certificate file; on macOS run "
            "Python's 'Install Certificates.command'"
        )
    if isinstance(reason, (TimeoutError, socket.timeout)):
        return f"{host} did not answer within {REQUEST_SECONDS:.0f} s: try again later"
    if isinstance(reason, socket.gaierror):
        return f"the host {host} was not found: check the domain and the network"
    if "407" in text:
        return f"the proxy wants a login ({text}): set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"
    return f"{host} can't be reached ({text}): check network and proxy, then try again"


class _Tenant:
    """The endpoints of one domain, asked in the name of one client.

    Args:
        domain: as `_normal_domain` gives it.
        client_id: of the application.
        client_secret: of a confidential application.
        client_assertion: called for a new signed JWT at each request (RFC 7523).
        trace: called with one line for each request.
    """

    def __init__(
        self,
        domain: str,
        client_id: str,
        client_secret: str | None = None,
        client_assertion: Callable[[], str] | None = None,
        trace: Callable[[str], object] | None = None,
    ) -> None:
        self.domain = domain
        self.client_id = client_id
        self.origin = domain if "://" in domain else f"https://{domain}"
        self.issuer = self.origin + "/"
        self._host, _ = _split_port(self.origin.partition("://")[2])
        self._secret = client_secret
        self._assertion = client_assertion
        self._trace = trace

    def post(self, path: str, form: Mapping[str, str | None], repeatable: bool | None) -> _Answer:
        """POSTs a form with the client's authentication (RFC 6749 section 2.3.1: in the body).

        Args:
            path: of the endpoint.
            form: parameters; one that is None is left out.
            repeatable: whether a second request does no harm when the first was received; None
                asks once, whatever happens.

        Raises:
            OAuthError: a refusal, with what the server says.
            NetworkError: no answer, or one that no token endpoint gives.
        """
        wanted = {name: value for name, value in form.items() if value is not None}

        def build() -> bytes:
            from urllib.parse import urlencode

            wanted.update(self._authentication())
            return urlencode(wanted, errors="surrogatepass").encode("ascii")

        answer = self._send(path, build, repeatable)
        refusal = self._refusal(answer, wanted)
        if refusal:
            refusal.retry_after = answer.retry_after()
            raise refusal
        return answer

    def post_for_json(
        self, path: str, form: Mapping[str, str | None], repeatable: bool | None = False
    ) -> dict[str, Any]:
        """The same, for an endpoint that answers with a JSON object."""
        reply = self.post(path, form, repeatable).json()
        if reply is None:
            raise NetworkError(
                f"{self._host} gave an answer that is not JSON: is AUTH0_DOMAIN right, and does "
                "a proxy or a login page of this network stand between? If not, try again later"
            )
        return reply

    def keys(self) -> list[dict[str, str]]:
        """The tenant's public signing keys that this program can use (RFC 7517)."""
        answer = self._send("/.well-known/jwks.json", None, True)
        reply = answer.json() if answer.status == 200 else None
        if reply is None or type(reply.get("keys")) is not list:
            raise NetworkError(f"{self._host} did not give its signing keys: try again later")
        return _usable_keys(reply["keys"])

    def _authentication(self) -> dict[str, str]:
        if self._assertion:
            return {
                "client_id": self.client_id,
                "client_assertion_type": JWT_BEARER,
                "client_assertion": self._assertion(),
            }
        if self._secret:
            return {"client_id": self.client_id, "client_secret": self._secret}
        return {"client_id": self.client_id}

    def _send(
        self, path: str, build: Callable[[], bytes] | None, repeatable: bool | None
    ) -> _Answer:
        """One request, tried again while that can't do harm, within REQUEST_SECONDS in total.

        Any request is tried again if no connection was made, or after a 429; a repeatable one
        after every failure that may pass.
        """
        deadline = time.monotonic() + REQUEST_SECONDS
        for pause in (None,) if repeatable is None else (0.3, 1.0, None):
            attempt = self._try(path, build, deadline)
            answer = attempt.answer
            if answer is None:
                passing = (repeatable or not attempt.sent) and not _is_final(attempt.problem)
                wait = pause
            else:
                reply = answer.json() if answer.status == 429 else None
                limited = answer.status == 429 and (reply or {}).get("error") != "slow_down"
                passing = limited or (repeatable and answer.status >= 500)
                asked = answer.retry_after()
                wait = pause if pause is None or asked is None else max(pause, asked)
            if not passing or wait is None or time.monotonic() + wait > deadline:
                break
            time.sleep(wait)
        if answer is None:
            raise NetworkError(_explain(attempt.problem or TimeoutError(), self._host)) from None
        return answer

    def _try(self, path: str, build: Callable[[], bytes] | None, deadline: float) -> _Attempt:
        from threading import Thread
        from urllib.request import Request

        headers = {"Accept": "application/json"}
        if build:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        request = Request(self.origin + path, build() if build else None, headers)
        attempt = _Attempt(deadline)
        started = time.monotonic()
        how = (request, _is_loopback(self._host), self.origin.startswith("https"))
        thread = Thread(target=attempt.run, args=how, daemon=True)
        thread.start()
        while thread.is_alive() and time.monotonic() < deadline:
            thread.join(0.5)  # in slices: a longer wait could not be interrupted on Windows
        if self._trace:
            result = attempt.answer.status if attempt.answer else "no answer"
            took = (time.monotonic() - started) * 1000
            self._trace(f"{request.get_method()} {path} {result} {took:.0f} ms")
        return attempt

    def _refusal(self, answer: _Answer, sent: Mapping[str, str]) -> Auth0Error | None:
        """The error that an answer is, or None if it is a success."""
        status = answer.status
        reply = answer.json()
        if status == 407:
            return NetworkError("the proxy wants a login: set HTTPS_PROXY=http://USER:PASSWORD@...")
        if 300 <= status < 400:
            return NetworkError(
                f"{self._host} answered with a redirect, which is not followed: is AUTH0_DOMAIN "
                "right, and does a login page of this network stand between?"
            )
        if status >= 500 or status < 200:
            return NetworkError(f"{self._host} has a problem (HTTP {status}): try again later")
        code, description = _error_of(answer, reply, sent)
        if status == 429 and code != "slow_down":
            return NetworkError(f"{self._host} limits requests (HTTP 429): try again later")
        if status < 300 and code is None:
            return None
        if code is None:
            return NetworkError(
                f"{self._host} gave an answer that Auth0 does not give (HTTP {status}): is "
                "AUTH0_DOMAIN right, and does a proxy stand between?"
            )
        said = f"{code}: {description}" if description else code
        return OAuthError(
            f"Auth0 refused ({said}){_remedy(code, description)}", code, description, status
        )


def _is_final(problem: BaseException | None) -> bool:
    """Whether trying again can't help: a certificate does not become valid in a second."""
    import ssl

    return isinstance(getattr(problem, "reason", problem), ssl.SSLCertVerificationError)


def _error_of(
    answer: _Answer, reply: dict[str, Any] | None, sent: Mapping[str, str]
) -> tuple[str | None, str]:
    """Error code and description of an answer, in each of the shapes that Auth0 is known to use."""
    if reply is None:
        kind = answer.headers.get("content-type", "")
        text = answer.body[:500].decode("utf-8", "replace")
        if answer.status < 400 or "html" in kind or "<" in text:
            return None, ""
        return f"http_{answer.status}", _clean(_hide(text, sent), 200)
    names = ("error",) if answer.status < 300 else ("errorCode", "error", "code")
    code = next((reply[name] for name in names if reply.get(name)), None)
    if code is None:
        return (None if answer.status < 300 else f"http_{answer.status}"), ""
    texts = (reply.get(name) for name in ("error_description", "message", "description"))
    description = next((text for text in texts if isinstance(text, str)), "")
    return _clean(_hide(str(code), sent), 60), _clean(_hide(description, sent))


def _hide(text: str, sent: Mapping[str, str]) -> str:
    """A server's words without the secrets of the request, should it repeat them."""
    from urllib.parse import quote, quote_plus

    for name in SECRET_PARAMETERS:
        value = sent.get(name)
        for spelling in (value, quote(value, ""), quote_plus(value)) if value else ():
            text = text.replace(spelling, "***")
    return text


def _remedy(code: str, description: str) -> str:
    """The setting to look at, for the refusals that a setting causes."""
    said = description.lower()
    if "service not enabled" in said or ("audience" in said and "not" in said):
        return ": create that API in the dashboard, or correct --audience"
    if "client-grant" in said or "not authorized to access" in said:
        return ": authorize the application for that API (Dashboard > Applications > APIs)"
    if code in ("invalid_client", "access_denied") and said in ("unauthorized", ""):
        return ": check the client id, and the client secret if there is one"
    if code == "invalid_client" or "client authentication" in said:
        return (
            ": check the client id and secret; an application without a secret needs the type "
            "Native, whose Token Endpoint Authentication Method is None"
        )
    if code in ("unauthorized_client", "unsupported_grant_type"):
        return ": enable the grant (Dashboard > the application > Advanced Settings > Grant Types)"
    if code == "mfa_required":
        return ": this user needs a second factor, so log in with --flow browser or --flow device"
    return ""


# ---- ID token ------------------------------------------------------------------------------------

# The DER encoding of DigestInfo for SHA-256, up to the digest (RFC 8017 section 9.2, note 1).
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")


def _usable_keys(keys: list[Any]) -> list[dict[str, str]]:
    """The RSA keys for RS256 among those of a JWKS, as kid, n and e; the others are skipped."""
    return [
        {name: key.get(name, "") for name in ("kid", "n", "e")}
        for key in keys
        if type(key) is dict
        and key.get("kty") == "RSA"
        and key.get("use", "sig") == "sig"
        and key.get("alg", "RS256") == "RS256"
        and type(key.get("kid", "")) is str
        and _rsa_numbers(key) is not None
    ]


def _rsa_numbers(key: Mapping[str, Any]) -> tuple[int, int] | None:
    """Modulus and exponent of a key of sane size: 2,048 to 8,192 bits, 65537 or more."""
    try:
        n, e = (int.from_bytes(_b64url_decode(key[name]), "big") for name in ("n", "e"))
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    sane = 2048 <= n.bit_length() <= 8192 and n % 2 and 65537 <= e < 1 << 32 and e % 2
    return (n, e) if sane else None


def _verify_rs256(key: Mapping[str, Any], signed: bytes, signature: bytes) -> bool:
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 8.2.2).

    The one valid block is built and compared whole: nothing of the signature is parsed, so no
    padding can be lenient.
    """
    from hashlib import sha256
    from hmac import compare_digest

    numbers = _rsa_numbers(key)
    if numbers is None:
        return False
    n, e = numbers
    size = (n.bit_length() + 7) // 8
    s = int.from_bytes(signature, "big")
    if len(signature) != size or s >= n:
        return False
    digest = _SHA256_PREFIX + sha256(signed).digest()
    expected = b"\x00\x01" + b"\xff" * (size - 3 - len(digest)) + b"\x00" + digest
    return compare_digest(pow(s, e, n).to_bytes(size, "big"), expected)


def _jwt_part(text: str) -> dict[str, Any]:
    """Header or claims of a JWT; ValueError unless it is a JSON object in canonical base64url."""
    value = _parse_json(_b64url_decode(text))
    if type(value) is not dict:
        raise ValueError("not a JSON object")
    return value


class _IdToken:
    """An ID token taken apart (OIDC Core section 2), to be checked before it is believed.

    Raises:
        InvalidToken: it is not a JWT signed with RS256.
    """

    def __init__(self, token: object) -> None:
        try:
            header, payload, signature = token.split(".")  # type: ignore[attr-defined]
            self.header = _jwt_part(header)
            self.claims = _jwt_part(payload)
            self.signature = _b64url_decode(signature)
        except (ValueError, AttributeError):  # also five parts: an encrypted token
            raise InvalidToken("the ID token is not a signed JWT: log in again", "form") from None
        self.signed = f"{header}.{payload}".encode("ascii")
        alg = self.header.get("alg")
        if alg != "RS256":
            raise InvalidToken(
                f"the ID token is signed with {_clean(alg, 20)}, not RS256: choose RS256 "
                "(Dashboard > the application > Advanced Settings > OAuth)",
                "alg",
            )
        if "crit" in self.header:  # RFC 7515 section 4.1.11
            raise InvalidToken("the ID token needs an extension that is not known", "crit")

    def candidates(self, keys: list[dict[str, str]]) -> list[dict[str, str]]:
        """The keys that may have signed it: those of its `kid`, or the only one if it has none."""
        kid = self.header.get("kid")
        if kid is None:
            return keys if len(keys) == 1 else []
        return [key for key in keys if key["kid"] == kid]

    def check_signature(self, keys: list[dict[str, str]]) -> None:
        """InvalidToken unless one of the keys has signed it (no key of its header is used)."""
        candidates = self.candidates(keys)
        if not candidates:
            raise InvalidToken("the ID token is signed with a key that is not the tenant's", "kid")
        if not any(_verify_rs256(key, self.signed, self.signature) for key in candidates):
            raise InvalidToken("the signature of the ID token is wrong", "signature")

    def check_claims(
        self,
        tenant: _Tenant,
        *,
        nonce: str | None = None,
        max_age: int | None = None,
        organization: str | None = None,
        access_token: str | None = None,
    ) -> None:
        """The checks of OIDC Core 3.1.3.7 in their order; InvalidToken names the one that fails."""
        claims = self.claims
        self._check_parties(tenant)
        self._check_times(max_age)
        if nonce is not None and claims.get("nonce") != nonce:
            raise _wrong_claim("nonce", "it belongs to another login")
        if access_token is not None and "at_hash" in claims:
            from hashlib import sha256

            half = sha256(access_token.encode("ascii")).digest()[:16]
            if claims["at_hash"] != _b64url(half):
                raise _wrong_claim("at_hash", "it belongs to another access token")
        if organization is not None:
            by_id = organization.startswith("org_")
            name, wanted = ("org_id", organization) if by_id else ("org_name", organization.lower())
            if claims.get(name) != wanted:
                raise _wrong_claim(name, f"it is not for the organization {_clean(wanted, 60)}")

    def _check_parties(self, tenant: _Tenant) -> None:
        claims = self.claims
        if claims.get("iss") != tenant.issuer:
            raise _wrong_claim(
                "iss", f"it was issued by {_clean(claims.get('iss'), 80)}, not {tenant.issuer}"
            )
        sub = claims.get("sub")
        if type(sub) is not str or not 0 < len(sub) <= 255:
            raise _wrong_claim("sub", "it names no user")
        aud = claims.get("aud")
        audiences = aud if type(aud) is list else [aud]
        if tenant.client_id not in audiences or not all(type(a) is str for a in audiences):
            raise _wrong_claim("aud", "it is for another client")
        azp = claims.get("azp")
        if (len(audiences) > 1 or azp is not None) and azp != tenant.client_id:
            raise _wrong_claim("azp", "it was issued to another client")

    def _check_times(self, max_age: int | None) -> None:
        claims = self.claims
        now = time.time()
        for name in ("exp", "iat", "nbf", "auth_time"):
            required = name in ("exp", "iat") or (name == "auth_time" and max_age is not None)
            if (required or name in claims) and not _is_number(claims.get(name)):
                raise _wrong_claim(name, "it is missing or not a number")
        clock = "check the clock of this machine"
        if now > claims["exp"] + LEEWAY:
            raise _wrong_claim("exp", f"it has expired: {clock}")
        if claims["iat"] > now + LEEWAY:
            raise _wrong_claim("iat", f"it was issued in the future: {clock}")
        if claims.get("nbf", now) > now + LEEWAY:
            raise _wrong_claim("nbf", f"it is not valid yet: {clock}")
        if max_age is not None and now > claims["auth_time"] + max_age + LEEWAY:
            raise _wrong_claim("auth_time", "the login is older than max_age allows: log in again")


def _wrong_claim(name: str, meaning: str) -> InvalidToken:
    return InvalidToken(f"the ID token fails the check of {name}: {meaning}", name)


# ---- Token requests ------------------------------------------------------------------------------


def _token_text(value: object) -> bool:
    """Whether it can be a token: visible ASCII (RFC 6749 appendix A.12), so also one line."""
    return (
        type(value) is str
        and 0 < len(value) < 1 << 17
        and value.isascii()
        and (value.isprintable() and " " not in value)
    )


def _invalid_reply(what: str) -> OAuthError:
    return OAuthError(f"Auth0's answer {what}: try again, or report it", "invalid_response")


class _Reply:
    """A successful token answer (RFC 6749 section 5.1), parsed strictly.

    Args:
        reply: the JSON object.
        asked_at: epoch seconds before the request was sent, from which its lifetime is counted.

    Raises:
        OAuthError: a member is missing or of the wrong type.
    """

    def __init__(self, reply: dict[str, Any], asked_at: float) -> None:
        self.access_token = reply.get("access_token")
        if not _token_text(self.access_token):
            raise _invalid_reply("holds no usable access_token")
        kind = reply.get("token_type")
        if type(kind) is not str or kind.lower() != "bearer":
            raise _invalid_reply(
                f"holds a token of type {_clean(kind, 20)}, not Bearer (switch off sender "
                "constraining for this application)"
            )
        self.refresh_token = reply.get("refresh_token")
        if self.refresh_token is not None and not _token_text(self.refresh_token):
            raise _invalid_reply("holds no usable refresh_token")
        self.id_token = reply.get("id_token")
        self.scope = reply.get("scope")
        if self.scope is not None and type(self.scope) is not str:
            raise _invalid_reply("holds a scope that is not a string")
        self.obtained_at = asked_at
        self.expires_at = asked_at + _lifetime(reply.get("expires_in"))

    def entry(self, audience: str | None, organization: str | None, scope: str | None) -> Record:
        """The access token as a session keeps it; `scope` is what was asked for.

        Without a scope in the answer what was asked for is what was granted (section 5.1).
        """
        return {
            "audience": audience,
            "organization": organization,
            "scope": _clean(self.scope if self.scope is not None else scope or "", 8000),
            "requested": scope,
            "access_token": self.access_token,
            "token_type": "Bearer",
            "expires_at": self.expires_at,
            "obtained_at": self.obtained_at,
        }


def _lifetime(expires_in: object) -> float:
    """Seconds; an hour where the server does not say."""
    if expires_in is None:
        return 3600.0
    if type(expires_in) is str and expires_in.isascii() and expires_in.isdigit():
        expires_in = int(expires_in[:12])
    if not _is_number(expires_in) or expires_in <= 0:  # type: ignore[operator]
        raise _invalid_reply("holds an expires_in that is no number of seconds")
    return float(min(expires_in, MAX_LIFETIME))  # type: ignore[type-var, arg-type]


def _ask(
    tenant: _Tenant, form: Mapping[str, str | None], repeatable: bool | None = False
) -> _Reply:
    """A request to the token endpoint (RFC 6749 section 3.2)."""
    asked_at = time.time()
    return _Reply(tenant.post_for_json("/oauth/token", form, repeatable), asked_at)


def _is_token_for(access_token: str, audience: str) -> bool:
    """Whether a token that was asked for one API names it: a look, not a check of its signature."""
    try:
        aud = _jwt_part(access_token.split(".")[1]).get("aud")
    except (ValueError, IndexError):
        return False
    return aud == audience or (type(aud) is list and audience in aud)


def _is_usable(entry: Record, min_ttl: float, now: float) -> bool:
    """Whether a token has more than `min_ttl` seconds left, or never had that many.

    One that was obtained in the future is not trusted: the clock has been set back since.
    """
    if entry["obtained_at"] > now + LEEWAY or entry["expires_at"] <= now:
        return False
    short_lived = entry["expires_at"] - entry["obtained_at"] <= min_ttl
    return short_lived or bool(entry["expires_at"] - now > min_ttl)


def _find_token(
    record: Record | None, audience: str | None, organization: str | None, scope: str | None
) -> Record | None:
    """The token of a session for an API that was granted, or at least asked for, every scope.

    Asked for, because Auth0 drops scopes silently and would drop them again at each refresh.
    """
    wanted = set(scope.split()) if scope else None
    found = None
    for entry in record["tokens"] if record else ():
        if (entry["audience"], entry["organization"]) != (audience, organization):
            continue
        if wanted is None:
            matches = bool(entry.get("default"))
        else:
            matches = wanted <= set(f"{entry['scope']} {entry['requested'] or ''}".split())
        if matches and (found is None or entry["expires_at"] > found["expires_at"]):
            found = entry
    return found


def _put_token(record: Record, entry: Record, default: bool) -> None:
    """Adds a token to a session, in the place of the one that it renews and of what has expired."""
    entry["default"] = default
    same = ("audience", "organization", "requested", "default")
    now = time.time()
    record["tokens"] = [
        old
        for old in record["tokens"]
        if old["expires_at"] > now and any(old.get(name) != entry[name] for name in same)
    ]
    record["tokens"].append(entry)


# ---- Browser flow (RFC 6749 section 4.1, RFC 7636, RFC 8252) -------------------------------------

_STYLE = """
:root{color-scheme:light dark}
body{margin:0;min-height:100vh;display:grid;place-items:center;background:Canvas;color:CanvasText;
font:1.1rem/1.6 system-ui,sans-serif}
main{max-width:32rem;padding:2rem;text-align:center;overflow-wrap:anywhere}
h1{font-size:1.6rem;font-weight:600;margin:0 0 .5rem}
p{margin:0;opacity:.8}
"""


def _result_page(title: str, text: str) -> bytes:
    """The quiet page that a browser is shown: no script, nothing from outside unescaped."""
    from html import escape

    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1><p>{escape(text)}</p></main></body></html>\n"
    ).encode()


def _page_headers() -> dict[str, str]:
    from binascii import b2a_base64
    from hashlib import sha256

    style = b2a_base64(sha256(_STYLE.encode()).digest(), newline=False).decode()
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{style}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
    }


class _Listener:
    """The loopback end of one login: only the answer that carries its `state` can end it.

    Whatever else arrives (RFC 8252 section 8.3: any program of this machine can connect) gets a
    short answer in a thread of its own and changes nothing.

    Args:
        ports: to draw from; a busy one is skipped.
        issuer: that an `iss` in the answer must equal (RFC 9207).

    Raises:
        ConfigError: every port is busy.
    """

    def __init__(self, ports: tuple[int, ...], issuer: str) -> None:
        import queue
        import random
        import secrets
        import threading

        self.state = secrets.token_urlsafe(32)
        self._issuer = issuer
        self._answers: queue.Queue[dict[str, str]] = queue.Queue()
        self._once = threading.Lock()  # taken by the one answer, and never released
        self._finished = threading.Event()
        self._shown = threading.Event()
        self._page = b""
        self._server = self._bind(random.sample(ports, len(ports)), ports)
        self._host = f"127.0.0.1:{self._server.server_address[1]}"
        self.redirect_uri = f"http://{self._host}/callback"

    def _bind(self, shuffled: list[int], ports: tuple[int, ...]) -> Any:
        from socketserver import TCPServer, ThreadingMixIn

        class Server(ThreadingMixIn, TCPServer):
            daemon_threads = True
            block_on_close = False  # an idle connection must not hold the end of a login
            request_queue_size = 64
            allow_reuse_address = os.name == "posix"  # elsewhere it lets two programs share a port

            def handle_error(self, request: object, client_address: object) -> None:
                """A connection that breaks is the business of its other end."""

        for port in shuffled:
            try:
                return Server(("127.0.0.1", port), _handler_of(self))
            except OSError:
                continue
        raise ConfigError(
            "every callback port is in use: end the other login, or choose ports with --port and "
            f"register them as Allowed Callback URLs: {_callback_urls(ports)}"
        )

    def __enter__(self) -> _Listener:
        from threading import Thread

        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, deadline: float) -> dict[str, str] | None:
        """The parameters of the one true answer; None at the deadline (monotonic seconds)."""
        import queue

        while True:
            left = deadline - time.monotonic()
            try:
                return self._answers.get(timeout=max(0.0, min(left, 0.5)))
            except queue.Empty:  # in slices: a longer wait could not be interrupted on Windows
                if left <= 0:
                    return None

    def finish(self, problem: Auth0Error | None) -> None:
        """Tells the browser how the login ended, and waits a moment until it shows that."""
        if problem is None:
            page = _result_page("You are logged in", "Close this page and return to the terminal.")
        else:
            page = _result_page(
                "You are not logged in", f"{problem} Close this page and return to the terminal."
            )
        self._page = page
        self._finished.set()
        self._shown.wait(2)

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one GET."""
        path, _, query = request.path.partition("?")
        if request.headers.get_all("Host") != [self._host]:  # a page that rebinds its name (DNS)
            self._send(request, 400, _result_page("Not here", "This address is for a login only."))
        elif path == "/callback":
            self._callback(request, query)
        elif path == "/done" and not query and self._finished.is_set():
            self._send(request, 200, self._page)
            self._shown.set()
        else:
            self._send(request, 404, _result_page("Not found", "There is nothing here."))

    def _callback(self, request: BaseHTTPRequestHandler, query: str) -> None:
        answer = self._parse(query)
        if answer is None:
            page = _result_page(
                "This did not log you in",
                "It is not the answer to the login that waits. Return to the terminal.",
            )
            self._send(request, 400, page)
        elif not self._once.acquire(blocking=False):
            page = _result_page("This was refused", "The login has had its answer before.")
            self._send(request, 410, page)
        else:
            self._answers.put(answer)
            self._finished.wait(2 * REQUEST_SECONDS + LOCK_SECONDS)
            self._send(request, 303, b"", {"Location": "/done"})

    def _parse(self, query: str) -> dict[str, str] | None:
        """The parameters of an answer to this attempt (RFC 6749 section 4.1.2), or None."""
        from hmac import compare_digest
        from urllib.parse import parse_qsl

        try:
            pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=32)
        except ValueError:
            return None
        answer = dict(pairs)
        state = answer.get("state", "")
        if len(answer) != len(pairs) or not compare_digest(state.encode(), self.state.encode()):
            return None
        return answer if bool(answer.get("code")) != bool(answer.get("error")) else None

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        page: bytes,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        request.send_response_only(status)
        for name, value in {**_page_headers(), **(headers or {})}.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(page)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(page)

    def refuse(self, request: BaseHTTPRequestHandler, status: int) -> None:
        """The answer to what is not a GET, or not HTTP."""
        request.close_connection = True
        if getattr(request, "request_version", "HTTP/0.9") != "HTTP/0.9":
            page = _result_page("Not understood", "This address is for a login only.")
            self._send(request, 405 if status == 501 else status, page, {"Allow": "GET"})


def _handler_of(listener: _Listener) -> type[BaseHTTPRequestHandler]:
    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds that a connection may stay silent

        def do_GET(self) -> None:
            listener.respond(self)

        def send_error(self, code: int, *_: object) -> None:
            listener.refuse(self, code)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing: a request line holds the code."""

    return Handler


_TEXT_BROWSERS = frozenset(["www-browser", "links", "elinks", "lynx", "w3m", "browsh", "carbonyl"])


def _find_browser() -> Any:
    """The browser that the webbrowser module would take, unless it runs in the terminal."""
    import webbrowser

    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return None
    name = os.path.basename(str(getattr(browser, "name", "")))
    return None if name in _TEXT_BROWSERS else browser


def _user_sits_here() -> bool:
    """Whether a browser opened on this machine would be seen by the user."""
    environ = os.environ
    if any(environ.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")):
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        return False
    shown = ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME", "BROWSER")
    return any(environ.get(name) for name in shown)


def _open_browser(url: str) -> bool:
    """Opens a checked URL without a shell and without waiting; False if there is no browser."""
    import shutil
    import subprocess
    import webbrowser
    from threading import Thread

    browser = _find_browser()
    if browser is None:
        return False
    name = getattr(browser, "name", None) or ""
    if isinstance(browser, webbrowser.GenericBrowser):
        command = [name, *(argument.replace("%s", url) for argument in browser.args)]
    elif shutil.which(name):
        command = [name, url]
    else:
        Thread(target=browser.open, args=(url,), daemon=True).start()
        return True
    try:
        process = subprocess.Popen(  # noqa: S603 - no shell, and the URL is one checked argument
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if k != ENVIRONMENT["client_secret"]},
            start_new_session=True,  # so that Ctrl-C here does not end the browser
        )
    except OSError:
        return False
    Thread(target=process.wait, daemon=True).start()
    return True


class _LoginRequest:
    """What a login asks for, whichever flow carries it."""

    def __init__(
        self,
        scope: str,
        audience: str | None,
        organization: str | None,
        params: dict[str, str],
        timeout: float,
    ) -> None:
        self.scope = scope
        self.audience = audience
        self.organization = organization
        self.params = params
        self.timeout = timeout

    @property
    def max_age(self) -> int | None:
        """Seconds that a login may be old (OIDC Core 3.1.2.1); 0 is a value too."""
        value = self.params.get("max_age")
        return None if value is None else int(value)


def _browser_login(
    tenant: _Tenant,
    request: _LoginRequest,
    ports: tuple[int, ...],
    announce: Callable[[dict[str, Any]], None],
    establish: Callable[[_Reply, str], Session],
) -> Session:
    """The authorization code grant with PKCE: the browser hears the result after it is saved."""
    from hashlib import sha256
    from secrets import token_urlsafe
    from urllib.parse import urlencode

    code_verifier = token_urlsafe(32)  # 256 bits in 43 characters (RFC 7636 section 7.1)
    nonce = token_urlsafe(32)
    with _Listener(ports, tenant.issuer) as listener:
        query = {
            "response_type": "code",
            "client_id": tenant.client_id,
            "redirect_uri": listener.redirect_uri,
            "scope": request.scope,
            "audience": request.audience,
            "organization": request.organization,
            "state": listener.state,
            "nonce": nonce,
            "code_challenge": _b64url(sha256(code_verifier.encode("ascii")).digest()),
            "code_challenge_method": "S256",
            **request.params,
        }
        given = {name: value for name, value in query.items() if value is not None}
        announce(
            {
                "event": "authorize",
                "url": f"{tenant.origin}/authorize?{urlencode(given)}",
                "redirect_uri": listener.redirect_uri,
                "expires_in": int(request.timeout),
            }
        )
        answer = listener.wait(time.monotonic() + request.timeout)
        if answer is None:
            raise LoginFailed(
                f"no answer came from the browser within {request.timeout:.0f} s. If it showed "
                '"Callback URL mismatch", register this line under Allowed Callback URLs '
                f"(Dashboard > the application > Settings): {_callback_urls(ports)}"
            )
        try:
            _check_answer(answer, tenant.issuer)
            form = {
                "grant_type": "authorization_code",
                "code": answer["code"],
                "code_verifier": code_verifier,
                "redirect_uri": listener.redirect_uri,
            }
            session = establish(_ask(tenant, form), nonce)
        except Auth0Error as problem:
            listener.finish(problem)
            raise
        listener.finish(None)
        return session


def _check_answer(answer: Mapping[str, str], issuer: str) -> None:
    """Raises what an authorization answer with the right `state` says, unless it is a code."""
    if "iss" in answer and answer["iss"] != issuer:  # RFC 9207 section 2.4
        raise LoginFailed(
            f"the answer of the browser comes from {_clean(answer['iss'], 80)}, not from {issuer}: "
            "the login was stopped; start it again"
        )
    if "code" not in answer or not answer["code"]:
        code = _clean(answer["error"], 60)
        said = _clean(answer.get("error_description", ""))
        raise LoginFailed(
            f"the login was refused ({code}{': ' + said if said else ''})"
            f"{_remedy(code, said) or ': log in again, or ask the administrator of the tenant'}",
            code,
        )


# ---- Device flow (RFC 8628) ----------------------------------------------------------------------


def _checked_url(value: object, name: str) -> str:
    """A URL of the server that may be shown and opened: https, or http to this machine."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(value if type(value) is str else "")
        host = parts.hostname or ""
        shown = f"[{host}]" if ":" in host else host
        safe = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(shown))
    except ValueError:
        safe, host = False, ""
    text = str(value)
    if not (safe and host and "@" not in text and _token_text(value) and len(text) < 2048):
        raise _invalid_reply(f"holds a {name} that is no https address")
    return text


class _DeviceCode:
    """The answer of the device authorization endpoint (RFC 8628 section 3.2), parsed strictly."""

    def __init__(self, reply: dict[str, Any], timeout: float) -> None:
        self.device_code = reply.get("device_code")
        self.user_code = reply.get("user_code")
        if not _token_text(self.device_code):
            raise _invalid_reply("holds no device_code")
        shown = _clean(self.user_code, 64) if type(self.user_code) is str else ""
        if not shown or shown != self.user_code:
            raise _invalid_reply("holds no user_code that can be shown")
        self.verification_uri = _checked_url(reply.get("verification_uri"), "verification_uri")
        complete = reply.get("verification_uri_complete")
        self.complete = complete and _checked_url(complete, "verification_uri_complete")
        expires_in = reply.get("expires_in", 900)
        interval = reply.get("interval", 5)
        if not (_is_number(expires_in) and expires_in > 0):
            raise _invalid_reply("holds an expires_in that is no number of seconds")
        if not (_is_number(interval) and interval >= 0):
            raise _invalid_reply("holds an interval that is no number of seconds")
        self.expires_in = min(expires_in, timeout)
        self.interval = min(max(interval, 1), 60)

    def event(self) -> dict[str, Any]:
        """The prompt, without the secret device_code."""
        return {
            "event": "device_code",
            "user_code": self.user_code,
            "verification_uri": self.verification_uri,
            "verification_uri_complete": self.complete or self.verification_uri,
            "expires_in": int(self.expires_in),
        }


def _device_login(
    tenant: _Tenant, request: _LoginRequest, announce: Callable[[dict[str, Any]], None]
) -> _Reply:
    """The device authorization grant: shows the code, then asks until the user has answered."""
    form = {"scope": request.scope, "audience": request.audience, **request.params}
    try:
        reply = tenant.post_for_json("/oauth/device/code", form, True)
    except OAuthError as problem:
        raise _device_refused(problem) from None
    deadline = time.monotonic()
    device = _DeviceCode(reply, request.timeout)
    deadline += device.expires_in
    announce(device.event())
    interval = device.interval
    wait = interval
    while True:
        left = deadline - time.monotonic()
        time.sleep(max(0.0, min(1.2 * wait, left)))  # a fifth more: this clock may be the faster
        if left < wait:
            raise LoginFailed("the code has expired: log in again", "expired_token")
        try:
            form = {"grant_type": DEVICE_CODE, "device_code": device.device_code}
            return _ask(tenant, form, None)
        except NetworkError as problem:  # section 3.5: back off, and go on until the code expires
            wait = max(min(2 * wait, 60), problem.retry_after or 0)
        except OAuthError as problem:
            if problem.error == "slow_down":
                interval += 5
            elif problem.error != "authorization_pending":
                raise _device_refused(problem) from None
            wait = max(interval, problem.retry_after or 0)


def _device_refused(problem: OAuthError) -> Auth0Error:
    if problem.error == "access_denied" and problem.description.lower() != "unauthorized":
        return LoginFailed(f"the login was denied ({problem.description})", "access_denied")
    if problem.error in ("expired_token", "invalid_grant"):
        return LoginFailed("the code has expired or was used: log in again", problem.error)
    if problem.error in ("unauthorized_client", "unsupported_grant_type", "access_denied"):
        return OAuthError(
            f"Auth0 refused the device flow ({problem.error}: {problem.description}): enable the "
            "grant Device Code (Dashboard > the application > Advanced Settings > Grant Types), "
            "check the client id, or use --flow browser",
            problem.error,
            problem.description,
            problem.status,
        )
    return problem


# ---- Auth0 ---------------------------------------------------------------------------------------


class Session:
    """Who is logged in, to what and until when; it holds no token.

    Attributes:
        domain: the tenant's domain.
        client_id: the application.
        profile: the name of the session among several of one application.
        user: `sub`, `name` and `email` as far as known; None for a machine.
        refreshable: whether there is a refresh token.
        organization: that the login was for, or None.
        tokens: for each access token `audience`, `scope`, `expires_at` (epoch seconds) and
            `expires_in` (seconds from now, 0 if it has expired).
    """

    def __init__(self, record: Record) -> None:
        now = time.time()
        self.domain: str = record["domain"]
        self.client_id: str = record["client_id"]
        self.profile: str = record["profile"]
        self.user: dict[str, str | None] | None = record["user"] and dict(record["user"])
        self.refreshable = record["refresh_token"] is not None
        self.organization: str | None = record["organization"]
        self.tokens: list[dict[str, Any]] = [
            {
                "audience": entry["audience"],
                "scope": entry["scope"],
                "expires_at": int(entry["expires_at"]),
                "expires_in": max(0, int(entry["expires_at"] - now)),
            }
            for entry in record["tokens"]
        ]

    def __repr__(self) -> str:
        return f"<Session of {self.who()} at {self.domain}, profile {self.profile}>"

    def who(self) -> str:
        """The user as one would say it: a name and an address, else the subject or the client."""
        user = self.user
        if user is None:
            return f"client {_clean(self.client_id, 80)}"
        name, email = user.get("name"), user.get("email")
        both = f"{name} <{email}>" if name and email and name != email else name or email
        return _clean(both or user.get("sub") or "an unnamed user", 120)

    def to_dict(self) -> dict[str, Any]:
        """What `status --json` prints."""
        names = ("domain", "client_id", "profile", "user", "refreshable", "tokens")
        return {name: getattr(self, name) for name in names}


def _program_name() -> str:
    """What the user types for this file: the installed script, or Python and its name."""
    if os.path.basename(sys.argv[0] if sys.argv else "").startswith("auth0-cli"):
        return "auth0-cli"
    return f"python {os.path.basename(globals().get('__file__') or 'auth0_cli.py')}"


class _Place:
    """Which session is meant: the tenant, the client and the name of its file."""

    def __init__(self, domain: str, client_id: str, profile: str) -> None:
        self.domain = domain
        self.client_id = client_id
        self.profile = profile
        self.key = _session_key(domain, client_id, profile)

    def options(self) -> str:
        """The flags that name it on the command line."""
        named = f" --profile {self.profile}" if self.profile != "default" else ""
        return _clean(f"--domain {self.domain} --client-id {self.client_id}{named}")


class Auth0:
    """One session of one application at one tenant: log in, get tokens, log out.

    What is not given comes from the environment, then from the stored session that matches.
    Safe to share between threads and across a fork.

    Args:
        domain: as in `acme.eu.auth0.com`.
        client_id: of the application.
        client_secret: turns client credentials on (confidential applications only).
        client_assertion: the same with a signed JWT (RFC 7523): called for each request.
        audience: the identifier of the API.
        scope: space-separated.
        organization: id or name.
        profile: names one of several sessions of the application.
        cache: a directory, or an object like `FileCache`.
        ports: loopback ports for the browser flow.
        params: further parameters for /authorize, such as `connection` or `max_age`.
        trace: called with one line for each request, which holds no secret.

    Raises:
        ConfigError: from the methods, if a value is wrong or missing.
    """

    def __init__(
        self,
        domain: str | None = None,
        client_id: str | None = None,
        *,
        client_secret: str | None = None,
        client_assertion: Callable[[], str] | None = None,
        audience: str | None = None,
        scope: str | None = None,
        organization: str | None = None,
        profile: str | None = None,
        cache: CacheSetting | None = None,
        ports: str | int | Iterable[int] | None = None,
        params: Mapping[str, str] | None = None,
        trace: Callable[[str], object] | None = None,
    ) -> None:
        self._given = {
            "domain": domain,
            "client_id": client_id,
            "client_secret": client_secret,
            "client_assertion": client_assertion,
            "audience": audience,
            "scope": scope,
            "organization": organization,
            "profile": profile,
            "cache": cache,
            "ports": ports,
            "params": params,
            "trace": trace,
        }
        self._program: str | None = None
        self._hot: dict[tuple[str | None, str | None, float], tuple[str, float, float]] = {}
        self._stores: dict[object, _Store] = {}

    def __repr__(self) -> str:
        shown = {name: self._given[name] for name in ("domain", "client_id", "profile")}
        return f"Auth0({', '.join(f'{n}={v!r}' for n, v in shown.items() if v is not None)})"

    # -- settings

    def _setting(self, name: str) -> Any:
        """An argument, else the environment variable; one that is empty is not set."""
        value = self._given.get(name)
        if value is None and name in ENVIRONMENT:
            value = os.environ.get(ENVIRONMENT[name]) or None
        return value

    def _store(self) -> _Store:
        cache = self._setting("cache")
        store = self._stores.get(cache)
        if store is None:
            plain = cache is None or isinstance(cache, (str, os.PathLike))
            store = self._stores[cache] = _Store(FileCache(cache) if plain else cache)
        return store

    def _places(self) -> list[_Place]:
        """The stored sessions that match what is given."""
        domain = self._setting("domain")
        wanted = (
            _normal_domain(domain) if domain else None,
            self._setting("client_id"),
            self._setting("profile"),
        )
        names = (_split_key(key) for key in sorted(self._store().call("list")))
        return [
            _Place(*name)
            for name in names
            if name and all(w is None or w == n for w, n in zip(wanted, name))
        ]

    def _place(self, new: bool = False) -> _Place:
        """The session that is meant; with `new` one that need not be stored.

        Raises:
            ConfigError: several match, or nothing says which tenant and client.
        """
        domain, client_id, profile = map(self._setting, ("domain", "client_id", "profile"))
        if domain and client_id:
            place = _Place(_normal_domain(domain), client_id, profile or "default")
            if profile or new or self._store().call("read", place.key) is not None:
                return place
        places = self._places()
        defaults = [place for place in places if place.profile == "default"]
        if len(places) == 1 or len(defaults) == 1:
            return places[0] if len(places) == 1 else defaults[0]
        if places:
            listed = "; ".join(place.options() for place in places[:8])
            raise ConfigError(f"several sessions match, say which one: {listed}")
        if domain and client_id:
            return place
        missing = [] if domain else ["AUTH0_DOMAIN (or --domain)"]
        missing += [] if client_id else ["AUTH0_CLIENT_ID (or --client-id)"]
        raise ConfigError(
            f"nobody is logged in here and nothing says where to: set {' and '.join(missing)}; "
            "both are on the Settings page of your application in the Auth0 Dashboard"
        )

    def _tenant(self, place: _Place) -> _Tenant:
        names = ("client_secret", "client_assertion", "trace")
        return _Tenant(place.domain, place.client_id, *map(self._setting, names))

    def _is_machine(self) -> bool:
        return bool(self._setting("client_secret") or self._setting("client_assertion"))

    def _command(self, words: str, place: _Place) -> str:
        """A command of ours as the user would type it."""
        return f"{self._program or _program_name()} {words} {place.options()}"

    def _login_required(self, what: str, place: _Place, error: str | None = None) -> LoginRequired:
        return LoginRequired(f"{what}: run {self._command('login', place)}", error)

    # -- tokens

    def get_token(
        self,
        *,
        audience: str | None = None,
        scope: str | None = None,
        min_ttl: float = 60,
        interactive: bool = False,
        force_refresh: bool = False,
    ) -> str:
        """A valid access token: the stored one, else a new one without the user's help.

        Args:
            audience: the API, if not that of the login. With one refresh token for several APIs
                (Auth0's multi-resource refresh tokens) each gets its own access token.
            scope: that the token must have, if not that of the login.
            min_ttl: seconds that it must be valid for; a shorter-lived one is used while valid.
            interactive: log in if nothing else helps; otherwise no browser is ever opened.
            force_refresh: ask for a new one even if there is a valid one.

        Raises:
            LoginRequired: nobody is logged in, or the session has ended.
            OAuthError: Auth0 refused.
            NetworkError: it was not reached, and no valid token is left.
            ConfigError, CacheError, InvalidToken, LoginFailed: as their names say.
        """
        wanted = (audience, scope, min_ttl)
        if not force_refresh:
            hot = self._hot.get(wanted)
            if hot is not None and hot[1] <= time.time() < hot[2]:
                return hot[0]
        entry = self._obtain(audience, scope, min_ttl, interactive, force_refresh)
        now = time.time()
        until = entry["expires_at"]
        if until - entry["obtained_at"] > min_ttl:
            until -= min_ttl
        token: str = entry["access_token"]
        self._hot[wanted] = (token, now, min(now + RECHECK_SECONDS, until))
        return token

    def get_id_token(self, *, force_refresh: bool = False) -> str:
        """The ID token of the login or of the last refresh; refreshed if it has expired.

        Raises:
            LoginRequired: nobody is logged in, or the login did not ask for `openid`.
        """
        place = self._place()
        record = self._store().load(place.key)
        if record and record["id_token"]:
            expired = _IdToken(record["id_token"]).claims.get("exp", 0) <= time.time()
            if expired or force_refresh:
                self._obtain(None, None, 60, False, True)
                record = self._store().load(place.key)
        if not record or not record["id_token"]:
            raise self._login_required("no ID token is stored (scope openid)", place)
        return str(record["id_token"])

    @property
    def bearer(self) -> _Bearer:
        """`auth=` for requests and httpx: each request gets a token that is valid then."""
        return _Bearer(self)

    def _obtain(
        self,
        audience: str | None,
        scope: str | None,
        min_ttl: float,
        interactive: bool,
        force_refresh: bool,
    ) -> Record:
        """The token as a session keeps it: what get_token does beyond its memory."""
        place = self._place()
        store = self._store()
        record = store.load(place.key)
        goal = self._goal(record, audience, scope, place)
        entry = _find_token(record, *goal)
        if entry and not force_refresh and _is_usable(entry, min_ttl, time.time()):
            return entry
        seen = entry["access_token"] if entry else None
        try:
            with self._locked(store, place, record):
                store = self._store()
                record = store.load(place.key, True)
                goal = self._goal(record, audience, scope, place)
                entry = _find_token(record, *goal)
                newer = entry and (not force_refresh or entry["access_token"] != seen)
                if entry and newer and _is_usable(entry, min_ttl, time.time()):
                    return entry
                return self._renew(store, place, record, goal, scope is None)
        except NetworkError:
            if entry and not force_refresh and _is_usable(entry, 0, time.time()):
                return entry
            raise
        except LoginRequired:
            if not interactive:
                raise
        self._login_once(place, audience, scope, seen)
        return self._obtain(audience, scope, 0, False, False)

    def _goal(
        self, record: Record | None, audience: str | None, scope: str | None, place: _Place
    ) -> tuple[str | None, str | None, str | None]:
        """Audience, organization and scope of the token that is asked for."""
        stored = record or _new_record("", "", "")
        organization = self._setting("organization") or stored["organization"]
        if stored["user"] and organization != stored["organization"]:
            raise self._login_required(
                f"the session is not for the organization {_clean(organization, 60)}", place
            )
        return (
            audience or self._setting("audience") or stored["audience"],
            organization,
            scope or self._setting("scope"),
        )

    def _locked(
        self, store: _Store, place: _Place, record: Record | None
    ) -> AbstractContextManager[object]:
        """The session's lock. Where nothing may be written this object goes on in memory."""
        import errno

        try:
            return store.lock(place.key)
        except CacheError as problem:
            reason = getattr(problem.__cause__, "errno", None)
            if reason not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
                raise
            _warn(f"nothing new will be saved: {problem}")
        memory = self._stores[self._setting("cache")] = _Store(MemoryCache())
        if record:
            memory.save(place.key, record)
        return memory.lock(place.key)

    def _renew(
        self,
        store: _Store,
        place: _Place,
        record: Record | None,
        goal: tuple[str | None, str | None, str | None],
        default: bool,
    ) -> Record:
        """A new token, with the session's lock held.

        A user's session is refreshed even where a client secret is configured: that secret is
        then the confidential application's own, and a machine's token another identity.
        """
        if record and record["refresh_token"]:
            return self._refresh(store, place, record, goal, default)
        if record and record["user"]:
            raise self._login_required("the session has ended", place)
        if self._is_machine():
            return self._client_credentials(store, place, record, goal, default)
        raise self._login_required("nobody is logged in", place)

    def _client_credentials(
        self,
        store: _Store,
        place: _Place,
        record: Record | None,
        goal: tuple[str | None, str | None, str | None],
        default: bool,
    ) -> Record:
        """The client credentials grant (RFC 6749 section 4.4)."""
        audience, organization, scope = goal
        form = {
            "grant_type": "client_credentials",
            "audience": audience,
            "organization": organization,
            "scope": scope,
        }
        entry = _ask(self._tenant(place), form, True).entry(audience, organization, scope)
        record = record or _new_record(place.domain, place.client_id, place.profile)
        if not record["tokens"]:
            record.update(audience=audience, organization=organization, scope=scope)
        _put_token(record, entry, default)
        self._save(store, place, record)
        return entry

    def _refresh(
        self,
        store: _Store,
        place: _Place,
        record: Record,
        goal: tuple[str | None, str | None, str | None],
        default: bool,
    ) -> Record:
        """The refresh grant (RFC 6749 section 6) with rotation (RFC 9700 section 4.14.2).

        It is never repeated after a lost answer: Auth0 may have rotated the token, and a second
        use outside of its leeway (off by default) would revoke the whole family. The next call
        tries the old token once more, and its refusal is a clear LoginRequired.
        """
        audience, organization, scope = goal
        old = _find_token(record, *goal)
        asked_scope = old["requested"] if old else scope
        form = {
            "grant_type": "refresh_token",
            "refresh_token": record["refresh_token"],
            "audience": audience if audience != record["audience"] else None,
            "scope": asked_scope if asked_scope != record["scope"] else None,
        }
        try:
            reply = _ask(self._tenant(place), form)
        except OAuthError as problem:
            return self._refused(store, place, record, goal, default, problem)
        renewed = self._take_refresh(store, place, record, reply)
        foreign = audience != record["audience"] and audience is not None
        if foreign and not _is_token_for(str(reply.access_token), str(audience)):
            self._save_refreshed(store, place, record, renewed)
            raise self._login_required(
                f"the refresh token of this session is not good for the API {_clean(audience, 200)}"
                f" (multi-resource refresh tokens are not set up for it)",
                _Place(place.domain, place.client_id, place.profile),
            )
        entry = reply.entry(audience, organization, asked_scope)
        _put_token(renewed, entry, default or bool(old and old.get("default")))
        self._save_refreshed(store, place, record, renewed)
        return entry

    def _take_refresh(self, store: _Store, place: _Place, record: Record, reply: _Reply) -> Record:
        """The session with what a refresh brought, after the checks of OIDC Core section 12.2.

        The keys that are stored with the session need no request. Where they do not suffice the
        rotated refresh token goes to the disk first.
        """
        renewed = {**record, "refresh_token": reply.refresh_token or record["refresh_token"]}
        if reply.id_token is None:
            return renewed
        tenant = self._tenant(place)
        token = _IdToken(reply.id_token)
        token.check_claims(
            tenant, organization=record["organization"], access_token=str(reply.access_token)
        )
        if record["user"] and token.claims["sub"] != record["user"]["sub"]:
            raise _wrong_claim("sub", "it is for another user than the session")
        before = _IdToken(record["id_token"]).claims if record["id_token"] else {}
        if token.claims.get("auth_time") != before.get("auth_time", token.claims.get("auth_time")):
            raise _wrong_claim("auth_time", "it tells of another login than the session's")
        keys = record["jwks"]
        stale = time.time() - record["jwks_refetched_at"] > LEEWAY
        if not token.candidates(keys) and stale:
            renewed["jwks_refetched_at"] = time.time()
            self._save_refreshed(store, place, record, renewed)
            record.update(renewed)
            keys = renewed["jwks"] = tenant.keys()
        token.check_signature(keys)
        renewed["id_token"] = reply.id_token
        return renewed

    def _refused(
        self,
        store: _Store,
        place: _Place,
        record: Record,
        goal: tuple[str | None, str | None, str | None],
        default: bool,
        problem: OAuthError,
    ) -> Record:
        """After a refused refresh: only `invalid_grant` ends a session (RFC 6749 section 5.2)."""
        if problem.error == "invalid_grant":
            current = store.load(place.key, True)
            newer = current and current["refresh_token"] != record["refresh_token"]
            if current and newer and current["refresh_token"]:
                return self._refresh(store, place, current, goal, default)
            if current and not newer:
                self._save(store, place, {**current, "refresh_token": None})
            raise self._login_required(
                "the session has expired or was revoked", place, problem.error
            ) from None
        needs_user = ("login_required", "interaction_required", "consent_required", "mfa_required")
        if problem.error in needs_user:
            raise self._login_required(
                f"Auth0 wants the user to log in again ({problem.error})", place, problem.error
            ) from None
        raise problem

    def _save_refreshed(
        self, store: _Store, place: _Place, before: Record, renewed: Record
    ) -> None:
        """Saves, unless the session was removed or replaced meanwhile."""
        current = store.load(place.key, True)
        if current and current["refresh_token"] == before["refresh_token"]:
            self._save(store, place, renewed)

    def _save(self, store: _Store, place: _Place, record: Record) -> None:
        """Saves; a failure costs nobody the token that has just been issued."""
        try:
            store.save(place.key, record)
        except CacheError as problem:
            _warn(f"the session was not saved: {problem}")

    # -- login

    def login(
        self,
        *,
        flow: str = "auto",
        show: Show | None = None,
        open_browser: bool = True,
        timeout: float = 300,
        username: str | None = None,
        password: str | None = None,
        realm: str | None = None,
    ) -> Session:
        """Logs a user in, or a machine; what was stored under the same name is replaced.

        Args:
            flow: `auto`, `browser`, `device`, `client-credentials` or `password`.
            show: called with the prompt, a dict as `login --json` prints it; default: stderr.
            open_browser: whether to open the authorization URL, or only to show it.
            timeout: seconds to wait for the user.
            username: for the password flow only.
            password: for the password flow only.
            realm: the connection of the password flow (Auth0's password-realm grant).

        Raises:
            LoginFailed: denied, expired, timed out.
            InvalidToken: the ID token fails a check.
            OAuthError, NetworkError, ConfigError, CacheError: as their names say.
        """
        place = self._place(new=True)
        ports = _parse_ports(self._setting("ports") or DEFAULT_PORTS)
        if not _is_number(timeout) or timeout <= 0:
            raise ConfigError("the timeout is a number of seconds greater than 0")
        tenant = self._tenant(place)
        request = self._login_request(place, timeout)
        announce = self._announcer(show, open_browser)
        flow = self._choose(flow)

        def establish(reply: _Reply, nonce: str | None = None) -> Session:
            return self._establish(place, request, reply, nonce)

        if flow == "browser":
            return _browser_login(tenant, request, ports, announce, establish)
        if flow == "client-credentials":
            return self._machine_login(place, request)
        if request.organization:
            raise ConfigError(
                f"Auth0 has no organizations in the {flow} flow: use --flow browser, or leave the "
                "organization out"
            )
        if flow == "device":
            return establish(_device_login(tenant, request, announce))
        return establish(_password_login(tenant, request, username, password, realm))

    def _login_request(self, place: _Place, timeout: float) -> _LoginRequest:
        """What to ask for; what is not given is asked for as at the last login."""
        params = _check_params(self._setting("params") or {})
        record = self._store().load(place.key)
        stored = record if record and record["user"] else _new_record("", "", "")
        return _LoginRequest(
            self._setting("scope") or stored["scope"] or DEFAULT_SCOPE,
            self._setting("audience") or stored["audience"],
            self._setting("organization") or stored["organization"],
            params,
            timeout,
        )

    def _choose(self, flow: str) -> str:
        flows = ("auto", "browser", "device", "client-credentials", "password")
        if flow not in flows:
            raise ConfigError(f"the flow {_clean(flow, 40)!r} is none of {', '.join(flows)}")
        if flow == "client-credentials" and not self._is_machine():
            raise ConfigError("client credentials need AUTH0_CLIENT_SECRET or --client-secret-file")
        if flow != "auto":
            return flow
        if self._is_machine():
            return "client-credentials"
        return "browser" if _user_sits_here() and _find_browser() else "device"

    def _announcer(self, show: Show | None, open_browser: bool) -> Show:
        """Shows the prompt, then opens the browser where the flow has need of one here."""

        def announce(prompt: dict[str, Any]) -> None:
            opened = False
            if prompt["event"] == "authorize" and open_browser:
                opened = _open_browser(prompt["url"])
            if show:
                show(prompt)
            else:
                _show_prompt(prompt, opened)

        return announce

    def _machine_login(self, place: _Place, request: _LoginRequest) -> Session:
        goal = (request.audience, request.organization, self._setting("scope"))
        store = self._store()
        with store.lock(place.key):
            self._client_credentials(store, place, None, goal, True)
            record = store.load(place.key, True)
        if record is None:
            raise CacheError("the token could not be saved: see the warning above")
        return Session(record)

    def _establish(
        self, place: _Place, request: _LoginRequest, reply: _Reply, nonce: str | None
    ) -> Session:
        """Makes a session of a login's answer: first every check, then the save."""
        record = _new_record(place.domain, place.client_id, place.profile)
        if "openid" in request.scope.split() or reply.id_token is not None:
            if reply.id_token is None:
                raise InvalidToken("Auth0's answer holds no ID token: log in again", "form")
            tenant = self._tenant(place)
            token = _IdToken(reply.id_token)
            token.check_claims(
                tenant,
                nonce=nonce,
                max_age=request.max_age,
                organization=request.organization,
                access_token=str(reply.access_token),
            )
            keys = tenant.keys()
            token.check_signature(keys)
            names = ("sub", "name", "email")
            texts = {name: token.claims.get(name) for name in names}
            user = {n: _clean(t, 255) if isinstance(t, str) else None for n, t in texts.items()}
            record.update(user={**user, "sub": token.claims["sub"]}, jwks=keys)
            record["id_token"] = reply.id_token
        record.update(
            refresh_token=reply.refresh_token,
            organization=request.organization,
            audience=request.audience,
            scope=request.scope,
        )
        entry = reply.entry(request.audience, request.organization, request.scope)
        _put_token(record, entry, True)
        store = self._store()
        with store.lock(place.key):
            store.load(place.key, True)  # what can't be replaced is refused, or set aside
            store.save(place.key, record)
        self._hot.clear()
        return Session(record)

    def _login_once(
        self, place: _Place, audience: str | None, scope: str | None, seen: str | None
    ) -> None:
        """One login at a time per session: the others wait, and share what it brings."""
        store = self._store()
        with store.lock(place.key + "~login", 600):
            record = store.load(place.key)
            entry = _find_token(record, *self._goal(record, audience, scope, place))
            if entry and entry["access_token"] != seen and _is_usable(entry, 0, time.time()):
                return
            given = dict(self._given, domain=place.domain, client_id=place.client_id)
            given["profile"] = place.profile
            given["audience"] = audience or given["audience"]
            given["scope"] = scope or given["scope"]
            Auth0(**given).login()

    # -- the rest of a session's life

    def session(self) -> Session | None:
        """Who is logged in, to what and until when: None if nobody is. Makes no request.

        Raises:
            ConfigError: several sessions match.
        """
        try:
            place = self._place()
        except ConfigError:
            if self._places():
                raise
            return None
        record = self._store().load(place.key)
        return Session(record) if record else None

    def sessions(self) -> list[Session]:
        """All stored sessions that match what is given. Makes no request."""
        records = (self._store().load(place.key) for place in self._places())
        return [Session(record) for record in records if record]

    def logout(self, *, local: bool = False) -> None:
        """Revokes the refresh token at Auth0 (RFC 7009), and deletes the session in any case.

        Args:
            local: delete only.

        Raises:
            NetworkError, OAuthError: deleted, but not revoked.
        """
        try:
            place = self._place()
        except ConfigError:
            if self._places():
                raise
            return
        store = self._store()
        with store.lock(place.key):
            record = store.load(place.key, True)  # what is refused is left alone
            store.delete(place.key)
        self._hot.clear()
        if record and record["refresh_token"] and not local:
            try:
                form = {"token": record["refresh_token"]}
                self._tenant(place).post("/oauth/revoke", form, True)
            except Auth0Error as problem:
                problem.args = (f"logged out here, but the token was not revoked: {problem}",)
                raise


class _Bearer:
    """Puts the token on each request: a callable for requests, a generator for httpx."""

    requires_request_body = False
    requires_response_body = False

    def __init__(self, auth0: Auth0) -> None:
        self._auth0 = auth0

    def __call__(self, request: Request) -> Request:
        request.headers["Authorization"] = f"Bearer {self._auth0.get_token()}"  # type: ignore[attr-defined]
        return request


def _password_login(
    tenant: _Tenant,
    request: _LoginRequest,
    username: str | None,
    password: str | None,
    realm: str | None,
) -> _Reply:
    """The password grant, discouraged (RFC 9700 section 2.4), or Auth0's password-realm."""
    if not username or not password:
        raise ConfigError("the password flow needs a username and a password")
    _warn(
        "the password flow is discouraged: it shows the password to this program and allows no "
        "second factor; prefer --flow browser or --flow device"
    )
    form = {
        "grant_type": PASSWORD_REALM if realm else "password",
        "username": username,
        "password": password,
        "realm": realm,
        "audience": request.audience,
        "scope": request.scope,
    }
    return _ask(tenant, form)


def _show_prompt(prompt: dict[str, Any], opened: bool) -> None:
    """The prompt for a person, on stderr; each URL alone on its line."""
    if prompt["event"] == "authorize":
        text = (
            "Your browser is being opened to log in. If nothing appears, open this page:\n"
            if opened
            else "To log in, open this page in a browser of this machine:\n"
        )
        text += f"\n{prompt['url']}\n\n"
        host = os.environ.get("SSH_CONNECTION", "").split()[2:3]
        if host:
            port = prompt["redirect_uri"].split(":")[2].split("/")[0]
            text += (
                "This is an SSH session: for a browser of your own machine first run there\n\n"
                f"ssh -L {port}:127.0.0.1:{port} {_clean(host[0], 80)}\n\n"
            )
    else:
        text = (
            "To log in, open this page in a browser on any device:\n\n"
            f"{prompt['verification_uri']}\n\n"
            f"and enter the code  {prompt['user_code']}\n"
        )
        if prompt["verification_uri_complete"] != prompt["verification_uri"]:
            complete = prompt["verification_uri_complete"]
            text += f"\nor open this one, and check the code:\n\n{complete}\n\n"
        text += (
            "Approve only a login that you have started yourself, here: never for a code that "
            "someone sent you.\n"
        )
    text += f"Waiting for up to {prompt['expires_in']} s; Ctrl-C stops it.\n"
    sys.stderr.write(text)
    sys.stderr.flush()


_instances: dict[tuple[tuple[str, Any], ...], Auth0] = {}


def get_token(
    *,
    audience: str | None = None,
    scope: str | None = None,
    min_ttl: float = 60,
    interactive: bool = False,
    force_refresh: bool = False,
    **config: Any,
) -> str:
    """A valid access token, as `Auth0.get_token` gives it; `config` are the arguments of `Auth0`.

    Raises:
        Auth0Error: as `Auth0.get_token` does.
    """
    try:
        names = tuple(sorted(config.items())) if config else ()
        auth0 = _instances.get(names) or _instances.setdefault(names, Auth0(**config))
    except TypeError:  # an argument that can't be a key, such as params={...}, or an unknown one
        auth0 = Auth0(**config)
    return auth0.get_token(
        audience=audience,
        scope=scope,
        min_ttl=min_ttl,
        interactive=interactive,
        force_refresh=force_refresh,
    )


# ---- Command line --------------------------------------------------------------------------------

_EXAMPLES = """examples:
  {prog} login --domain acme.eu.auth0.com --client-id CLIENT_ID
  {prog} token --audience https://api.example.com
  {prog} token --header | curl -H @- https://api.example.com/
  {prog} status
  {prog} logout

AUTH0_DOMAIN, AUTH0_CLIENT_ID, AUTH0_AUDIENCE, AUTH0_SCOPE, AUTH0_ORGANIZATION, AUTH0_PROFILE,
AUTH0_CALLBACK_PORTS and AUTH0_CLI_CACHE stand for the flags; AUTH0_CLIENT_SECRET has none.
exit: 0 done, 1 failed, 2 usage, 3 log in first, 4 refused, 5 try again, 130 or 143 interrupted"""
_COMMANDS = {
    "login": "log in, with a browser or with a code on another device",
    "token": "print a valid access token, refreshed first if needed",
    "status": "show who is logged in where, to what and until when",
    "logout": "revoke the refresh token at Auth0 and delete the session",
}


class _Terminated(BaseException):
    """SIGTERM, as an exception: what is open is closed on the way out."""


def _say(text: str) -> None:
    """A line for the person at the terminal, who may have closed it."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


def _put(text: str) -> None:
    """The result, to stdout. Auth0Error if it could not be written as a whole."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except UnicodeEncodeError:
        _put(text.encode("ascii", "backslashreplace").decode("ascii"))
    except (OSError, ValueError, AttributeError) as problem:
        try:  # what is still buffered must not fail a second time when the interpreter ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError, AttributeError):
            pass
        reason = getattr(problem, "strerror", None) or "it is closed"
        raise Auth0Error(f"the result could not be written to stdout: {reason}") from None


def _put_json(value: object) -> None:
    import json

    _put(json.dumps(value))


def _parser(prog: str) -> ArgumentParser:
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            if message.startswith("unrecognized arguments"):  # their values may be secrets
                message = "unrecognized arguments"
            raise ConfigError(f"{_clean(message)} (see {self.prog} -h)")

    def add(name: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=_COMMANDS[name],
            description=_COMMANDS[name].capitalize() + ".",
            epilog=_epilog(name).format(prog=prog),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _add_settings(command)
        return command

    parser = Parser(
        prog=prog,
        description="Secure a command-line program with Auth0.",
        epilog=_EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"auth0_cli {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    login, token, status, logout = map(add, _COMMANDS)
    _add_login_flags(login)
    token.add_argument("--json", action="store_true", help="with its expiry, as JSON")
    token.add_argument("--header", action="store_true", help="as a header line, for curl -H @-")
    token.add_argument("--id-token", action="store_true", help="the ID token instead")
    token.add_argument("--min-ttl", type=float, default=60, metavar="SECONDS", help="default 60")
    token.add_argument("--force-refresh", action="store_true", help="a new one in any case")
    token.add_argument("--login", action="store_true", help="log in first if that is needed")
    status.add_argument("--json", action="store_true", help="as JSON")
    logout.add_argument("--all", action="store_true", help="every stored session that matches")
    logout.add_argument("--local", action="store_true", help="delete only, without revocation")
    return parser


def _epilog(name: str) -> str:
    if name == "login":
        return (
            "examples:\n  {prog} login --domain acme.eu.auth0.com --client-id CLIENT_ID\n"
            "  {prog} login --flow device --audience https://api.example.com\n\n"
            "For the browser flow paste this line under Allowed Callback URLs of the application:\n"
            f"  {_callback_urls(DEFAULT_PORTS)}"
        )
    options = {"token": ["", "--json", "--header | curl -H @- URL"], "logout": ["", "--all"]}
    lines = options.get(name, ["", "--json"])
    return "examples:\n" + "\n".join(f"  {{prog}} {name} {line}".rstrip() for line in lines)


def _add_settings(parser: ArgumentParser) -> None:
    """The flags that all commands share; each has an environment variable."""
    parser.add_argument("--domain", help="as in acme.eu.auth0.com")
    parser.add_argument("--client-id", help="of the application")
    parser.add_argument("--client-secret-file", metavar="PATH", help="- is stdin")
    parser.add_argument("--audience", help="the identifier of the API")
    parser.add_argument("--scope", help=f"default for a user: {DEFAULT_SCOPE}")
    parser.add_argument("--organization", help="id or name")
    parser.add_argument("--profile", help="one of several sessions of the application")
    parser.add_argument("--cache", metavar="DIR", help="directory of the session files")
    parser.add_argument("--port", dest="ports", metavar="N[,N...]", help="callback ports; 0: any")
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a further /authorize parameter, such as connection=google-oauth2",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="one line a request")


def _add_login_flags(parser: ArgumentParser) -> None:
    flows = ("auto", "browser", "device", "client-credentials", "password")
    parser.add_argument("--flow", choices=flows, default="auto", help="default auto")
    parser.add_argument("--no-browser", action="store_true", help="only print the URL")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="default 300")
    parser.add_argument("--json", action="store_true", help="prompts and result as JSON lines")
    parser.add_argument("--username", help="for the password flow, which is discouraged")
    parser.add_argument("--realm", help="the connection of the password flow")


def _read_secret_file(path: str) -> str:
    """A client secret from a file or stdin; the line end that editors add is not part of it."""
    try:
        if path == "-":
            text = sys.stdin.read(1 << 16)
        else:
            with open(path, encoding="utf-8", newline="") as file:
                text = file.read(1 << 16)
    except (OSError, ValueError, AttributeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"the client secret can't be read from {path}: {reason}") from None
    text = text.removesuffix("\n")
    text = text.removesuffix("\r")
    if not text:
        raise ConfigError(f"the client secret file {path} is empty")
    return text


def _auth0_of(args: Namespace, prog: str, defaults: Auth0 | None) -> Auth0:
    """The flags on top of what the host program has set."""
    given = dict(defaults._given) if defaults else {}
    for name in ("domain", "client_id", "audience", "scope", "organization", "profile"):
        if getattr(args, name):
            given[name] = getattr(args, name)
    if args.cache:
        given["cache"] = args.cache
    if args.ports:
        given["ports"] = args.ports
    if args.client_secret_file:
        given["client_secret"] = _read_secret_file(args.client_secret_file)
    if args.param:
        pairs = [item.partition("=") for item in args.param]
        if not all(name and equals for name, equals, _ in pairs):
            raise ConfigError("--param takes KEY=VALUE, as in --param connection=google-oauth2")
        params = {name: value for name, _, value in pairs}
        given["params"] = {**(given.get("params") or {}), **params}
    if args.verbose:
        given["trace"] = _say
    auth0 = Auth0(**given)
    auth0._program = prog
    return auth0


def _command_login(auth0: Auth0, args: Namespace) -> int:
    def show(prompt: dict[str, Any]) -> None:
        _put_json(prompt)

    try:
        password = _read_password() if args.flow == "password" and args.username else None
        session = auth0.login(
            flow=args.flow,
            show=show if args.json else None,
            open_browser=not args.no_browser,
            timeout=args.timeout,
            username=args.username,
            password=password,
            realm=args.realm,
        )
    except Auth0Error as problem:
        if args.json:
            error = problem.error or _snake_case(type(problem).__name__)
            _put_json({"event": "error", "error": error, "message": str(problem)})
        raise
    if args.json:
        names = ("domain", "client_id", "profile", "user")
        _put_json({"event": "logged_in", **{name: getattr(session, name) for name in names}})
    else:
        _say(f"Logged in to {session.domain} as {session.who()}.")
        if not session.refreshable and session.user:
            _say(
                "There is no refresh token, so this login ends with its access token: ask for the "
                "scope offline_access, and allow it on the API (Allow Offline Access) and the "
                "application (grant Refresh Token)."
            )
    return 0


def _snake_case(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name.replace("OA", "Oa"))[1:]


def _read_password() -> str:
    """From a hidden prompt on a terminal, else the first line of stdin."""
    if sys.stdin is None:
        raise ConfigError("the password is read from stdin, and that is closed")
    if sys.stdin.isatty():
        from getpass import getpass

        return getpass("Password: ")
    return sys.stdin.readline().rstrip("\r\n")


def _command_token(auth0: Auth0, args: Namespace) -> int:
    if args.id_token:
        token = auth0.get_id_token(force_refresh=args.force_refresh)
        _put_json({"id_token": token}) if args.json else _put(token)
        return 0
    entry = auth0._obtain(None, None, args.min_ttl, args.login, args.force_refresh)
    if args.json:
        values = {name: entry[name] for name in ("access_token", "token_type")}
        values["expires_at"] = int(entry["expires_at"])
        values["expires_in"] = max(0, int(entry["expires_at"] - time.time()))
        values.update({name: entry[name] for name in ("audience", "scope")})
        _put_json(values)
    else:
        _put(
            f"Authorization: Bearer {entry['access_token']}"
            if args.header
            else entry["access_token"]
        )
    return 0


def _command_status(auth0: Auth0, args: Namespace) -> int:
    sessions = auth0.sessions()
    if args.json:
        _put_json([session.to_dict() for session in sessions])
    else:
        for session in sessions:
            _put(_describe(session))
    if not sessions:
        raise LoginRequired(f"nobody is logged in: run {auth0._program} login")
    return 0


def _describe(session: Session) -> str:
    """A session as people want to read it."""
    renewal = "refreshable" if session.refreshable else "not refreshable"
    lines = [
        f"{session.who()} at {session.domain}",
        f"  client {_clean(session.client_id, 80)}, profile {_clean(session.profile, 80)}",
        f"  {renewal}",
    ]
    for token in session.tokens:
        left = token["expires_in"]
        until = f"for {_duration(left)}" if left else "expired"
        api = _clean(token["audience"] or "no audience: good for /userinfo only", 120)
        lines.append(f"  {api}: {until}, scope {_clean(token['scope'] or 'none')}")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _command_logout(auth0: Auth0, args: Namespace) -> int:
    if not args.all:
        had = auth0.session()
        auth0.logout(local=args.local)
        _say(f"Logged out of {had.domain}." if had else "Nobody was logged in.")
        return 0
    failed: Auth0Error | None = None
    for place in auth0._places():
        given = dict(auth0._given, domain=place.domain, client_id=place.client_id)
        try:
            Auth0(**dict(given, profile=place.profile)).logout(local=args.local)
            _say(f"Logged out of {place.domain}, profile {_clean(place.profile, 80)}.")
        except Auth0Error as problem:
            failed = problem
            _say(f"{_clean(place.options())}: {problem}")
    if failed:
        raise failed
    return 0


def _run(arguments: list[str], prog: str, defaults: Auth0 | None) -> int:
    parser = _parser(prog)
    args = parser.parse_args(arguments)
    if not args.command:
        parser.print_help(sys.stderr)
        return 2
    auth0 = _auth0_of(args, prog, defaults)
    commands = {
        "login": _command_login,
        "token": _command_token,
        "status": _command_status,
        "logout": _command_logout,
    }
    return commands[args.command](auth0, args)


def _catch_termination() -> Callable[[], object]:
    """Makes SIGTERM an exception while a command runs; returns how to undo that."""
    import signal

    def terminate(*_: object) -> NoReturn:
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread: its signals are the host program's
        return lambda: None
    return lambda: signal.signal(signal.SIGTERM, before)


def main(
    argv: Sequence[str] | None = None, *, prog: str | None = None, defaults: Auth0 | None = None
) -> int:
    """The command line, ours or that of a program that has mounted it.

    Args:
        argv: arguments without the program's name; those of the process if None.
        prog: what messages call the program, such as `mytool auth`.
        defaults: an `Auth0` whose arguments are used where a flag is not given.

    Returns:
        The exit code; see the head of this file. It exits only for --help and --version.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    restore: Callable[[], object] | None = None
    try:
        if arguments == ["token"]:  # the call of every shell prompt needs no parser
            _put((defaults or Auth0()).get_token())
            return 0
        restore = _catch_termination()
        return _run(arguments, prog or _program_name(), defaults)
    except Auth0Error as problem:
        _say(f"{(prog or 'auth0_cli').split()[0]}: {problem}")
        return problem.exit_code
    except KeyboardInterrupt:
        _say("")
        return 130
    except _Terminated:
        return 143
    finally:
        if restore:
            restore()


if __name__ == "__main__":
    raise SystemExit(main())
