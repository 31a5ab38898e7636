#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
# auth0_cli.py 1.0.0, from the repository auth0_cli by the auth0_cli authors
# pyright: strict, reportPrivateUsage=false
# In a project that copied this file, change nothing here: to update, replace the whole file by the
# one of a newer release. All copies share their session files safely.
"""Secure a command-line program with Auth0: log in, get a token, stay logged in, log out.

One file, the standard library only, Python 3.9 and later. As a program::

    python auth0_cli.py login --domain acme.eu.auth0.com --client-id CLIENT_ID
    python auth0_cli.py token --header | curl -H @- https://api.example.com/

and as a library::

    from auth0_cli import get_token

    headers = {"Authorization": f"Bearer {get_token(audience='https://api.example.com')}"}

Protocols: the authorization code with PKCE over a loopback listener (RFC 7636, RFC 8252),
the device authorization grant (RFC 8628), client credentials (RFC 6749 section 4.4), Auth0's
password grants, refresh with rotation (RFC 9700), revocation (RFC 7009) and ID tokens (OpenID
Connect Core 1.0).

Contents. Functions mostly call functions above them. A security review reads these:
    Constants; Errors; Text; Configuration; Locks; Session files; Session records; Stored
    sessions; HTTP; Errors of Auth0; Tenant; ID token; Token requests; Browsers; Loopback
    listener; Browser flow; Device flow; Signals during a refresh; Errors that leave public
    methods; Settings; Tokens of a session; Login and logout; Login in two steps; Auth0; The
    function get_token; Input and output of a command.

It can skip the others, which talk to the user:
    Prompts; QR code; Doctor; Commands; Options; Command line.

Tokens are stored in plain text, in files that only their owner can read (on Windows, as far as the
directory is in the user's profile). `cache=` takes any other store, such as one that encrypts.

Errors::

    Auth0Error            exit code 1
    +-- ConfigError       2   a setting is missing or wrong
    +-- LoginRequired     3   nobody is logged in, or the session has ended
    +-- LoginFailed       4   denied, expired, timed out
    +-- InvalidToken      4   the ID token fails a check
    +-- OAuthError        4   Auth0 refused the request and said why
    +-- NetworkError      5   Auth0 was not reached or is overloaded: a retry may help
    +-- CacheError        1   a session file can't be used

A value comes from the argument or flag, else from the environment (AUTH0_DOMAIN, ...), else from
the one stored session that matches. Times are epoch seconds and durations seconds throughout.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False  # an import of typing would double the time of a start
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from socketserver import ThreadingTCPServer
    from typing import Any, Literal, NoReturn, Protocol, TypedDict, TypeVar, Union

    from typing_extensions import TypeGuard, Unpack

    Json = dict[str, Any]  # a JSON object, such as a response or a prompt
    Record = Json  # a session as its file holds it, or one of its tokens
    Form = Mapping[str, Union[str, None]]  # parameters; None leaves one out
    Password = Union[str, Callable[[], str], None]
    Request = TypeVar("Request")
    Function = TypeVar("Function", bound=Callable[..., Any])
    CacheSetting = Union[str, os.PathLike[str], "Cache"]

    class AuthorizePrompt(TypedDict):
        """The browser flow: the user opens `url` on this machine within `expires_in` seconds."""

        event: Literal["authorize"]
        url: str
        redirect_uri: str
        expires_in: int

    class DevicePrompt(TypedDict):
        """The device flow: the user opens a URL on any device, and compares the code.

        `expires_in` is in seconds.
        """

        event: Literal["device_code"]
        user_code: str
        verification_uri: str
        verification_uri_complete: str
        expires_in: int

    Show = Union[Callable[[AuthorizePrompt | DevicePrompt], object], Callable[[Json], object]]

    class Cancel(Protocol):
        """An object like `threading.Event`."""

        def is_set(self) -> bool: ...

    class Config(TypedDict, total=False):
        """The arguments of `Auth0`."""

        domain: str | None
        client_id: str | None
        client_secret: str | None
        client_assertion: Callable[[], str] | None
        organization: str | None
        profile: str | None
        cache: CacheSetting | None
        ports: str | int | Sequence[int] | None
        params: Mapping[str, str] | None
        login_command: str | None
        trace: Callable[[str], object] | None

    class Cache(Protocol):
        """A store for sessions: `FileCache`, `MemoryCache` or your own.

        `lock` guards one key; it is entered and left in the same thread.
        """

        def read(self, key: str) -> bytes | None: ...

        def write(self, key: str, data: bytes) -> None: ...

        def delete(self, key: str) -> None: ...

        def list(self) -> list[str]: ...

        def lock(self, key: str, timeout: float) -> AbstractContextManager[object]: ...


__version__ = "1.0.0"
__all__ = ["Auth0", "FileCache", "MemoryCache", "Session", "add_commands", "get_token", "main"]
__all__ += ["Auth0Error", "CacheError", "ConfigError", "InvalidToken", "LoginFailed"]
__all__ += ["LoginRequired", "NetworkError", "OAuthError"]

# ---- Constants -----------------------------------------------------------------------------------

DEFAULT_PORTS = (18484, 18485, 18486, 18487, 18488)  # Auth0 compares ports: register all
DEFAULT_SCOPE = "openid profile email offline_access"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
PASSWORD_REALM = "http://auth0.com/oauth/grant-type/password-realm"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FLOWS = "auto browser device client-credentials password".split()
SESSION_VERSION = 1
MAX_BYTES = 1 << 20  # of a response, and of a session file
MAX_DEPTH = 100  # of nested arrays and objects in JSON
REQUEST_SECONDS = 30.0  # for one request, retries included
FALLBACK_SECONDS = 4.0  # for a request while the stored token is still valid
LOCK_SECONDS = 60.0  # enough for two requests: a refresh, then the tenant's keys
CLOCK_MARGIN = 1.2  # factor on the wait for a poll: a fast clock must not cause a slow_down
LEEWAY = 60  # seconds that the clocks of this machine and of Auth0 may differ
RECHECK_SECONDS = 1.0  # for this time `get_token` repeats its result and reads no file
MAX_WAIT = 3600  # seconds: the longest wait that a stored failure imposes
MAX_LIFETIME = 366 * 86400  # seconds: the longest `expires_in` that counts; Auth0 allows 30 days
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")  # in a host and in a file name
_NAMES = "domain client_id client_secret audience scope organization profile".split()
ENVIRONMENT = {name: f"AUTH0_{name.upper()}" for name in _NAMES}
ENVIRONMENT.update(cache="AUTH0_CLI_CACHE", ports="AUTH0_CALLBACK_PORTS")
# The parameters of /authorize that --param can't set.
OWN_PARAMETERS = """\
response_type response_mode client_id redirect_uri scope audience organization state nonce
code_challenge code_challenge_method client_secret request request_uri""".split()
SECRET_PARAMETERS = """\
client_secret client_assertion code code_verifier device_code refresh_token token password
subject_token actor_token assertion mfa_token otp oob_code binding_code recovery_code""".split()
_NAME_FIELDS = ("domain", "client_id", "profile")  # the parts of a session's name, in order
_TOKEN_PARAMETERS = ("audience", "organization", "scope")
# The environment variables of these settings are for one application, see `_environment_applies`.
_APP_SETTINGS = ("client_secret", *_TOKEN_PARAMETERS)

# ---- Errors --------------------------------------------------------------------------------------


class Auth0Error(Exception):
    """The root of all errors: `str()` says what happened and what to do next, without a secret.

    Attributes:
        reason, hint: the two halves of the message; a hint may be "".
        error: the error code of the OAuth response where there is one, such as `access_denied`.
        exit_code: the exit status of the command line.
        retryable: whether the same call may succeed later.
        retry_after: seconds to wait first, where the server asks for that.
    """

    exit_code = 1
    retryable = False
    retry_after: float | None = None

    def __init__(self, message: str, error: str | None = None) -> None:
        super().__init__(message)
        self.error = error

    @property
    def reason(self) -> str:
        """What happened: the message up to its first `: ` that is not within parentheses."""
        text, depth = str(self), 0
        for place, character in enumerate(text):
            depth += (character == "(") - (character == ")")
            if depth == 0 and text.startswith(": ", place):
                return text[:place]
        return text

    @property
    def hint(self) -> str:
        """What to do next: the rest of the message."""
        return str(self)[len(self.reason) + 2 :]


class ConfigError(Auth0Error):
    """A setting that the call needs is missing or wrong."""

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
    """Auth0 was not reached, or sent no valid response: a retry may help."""

    exit_code = 5
    retryable = True


class CacheError(Auth0Error):
    """A session file or its directory can't be used as it is."""


# ---- Text ----------------------------------------------------------------------------------------


def _printable(value: object, limit: int = 300) -> str:
    """Untrusted text as one printable line of at most `limit` characters (no control, no bidi)."""
    text = "".join(c if c.isprintable() else " " for c in str(value)[: 4 * limit])
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


_running_commands: list[str] = []  # while a command runs, warnings go to stderr


def _is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal.

    Windows calls NUL a terminal, too. Python opens NUL as a `FileIO`, but no real terminal.
    """
    try:
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        return bool(stream.isatty()) and (os.name != "nt" or type(raw).__name__ != "FileIO")
    except (ValueError, AttributeError):
        return False


def _print_err(text: str, end: str = "\n") -> None:
    """Prints a line to stderr, if it is open."""
    try:
        sys.stderr.write(text + end)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


def _warn(message: str) -> None:
    """A warning, on stderr in a command, else to the logger `auth0_cli`."""
    if _running_commands:
        _print_err(f"warning: {message}")
    else:
        import logging

        logging.getLogger("auth0_cli").warning("%s", message)


def _say_waiting(for_what: str) -> None:
    """Says at a terminal why nothing happens; logs and programs need no such line."""
    if _running_commands and _is_terminal(sys.stderr):
        _print_err(f"waiting for {for_what}")


def _duration(seconds: float) -> str:
    """Seconds in words."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _b64url(data: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    from binascii import b2a_base64

    text = b2a_base64(data, newline=False).decode("ascii")
    return text.replace("+", "-").replace("/", "_").rstrip("=")


def _b64url_decode(text: str) -> bytes:
    """The bytes of a base64url text; ValueError if it is not canonical."""
    from binascii import a2b_base64

    data = a2b_base64(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))
    if _b64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


def _json_object(members: list[tuple[str, Any]]) -> Json:
    """The members as a dict; ValueError for a repeated name: parsers differ in which they keep."""
    result = dict(members)
    if len(result) != len(members):
        raise ValueError("a name occurs twice in a JSON object")
    return result


class _JsonRules:
    """Settings for json's C scanner: refuse duplicate names and NaN."""

    strict = True
    object_hook = None
    object_pairs_hook = _json_object
    parse_float = float
    parse_int = int
    parse_constant = int  # int("NaN") is a ValueError, and so are the infinities


def _json_scanner() -> Callable[[str, int], tuple[Any, int]]:
    """Json's C scanner, without the json module: its import would cost a third of a start."""
    try:
        from _json import make_scanner

        return make_scanner(_JsonRules)  # type: ignore[arg-type, no-any-return, unused-ignore]
    except (ImportError, AttributeError, TypeError):  # another Python, or a later one
        from json import JSONDecoder

        decoder = JSONDecoder(object_pairs_hook=_json_object, parse_constant=int)
        return decoder.scan_once  # type: ignore[attr-defined, no-any-return, unused-ignore]


def _parse_json(data: bytes) -> Json:
    """The object of a JSON text (RFC 8259): UTF-8, no name twice, no NaN; ValueError otherwise."""
    text = data.decode("utf-8").strip(" \t\r\n")
    if text.count("[") + text.count("{") > MAX_DEPTH:  # fewer can't nest so deeply
        depth = 0
        for character in text:
            depth += (character in "[{") - (character in "]}")
            if depth > MAX_DEPTH:  # the scanner recurses: a thread's stack may be small
                raise ValueError("nested too deeply")
    try:
        value, end = _json_scanner()(text, 0)
    except (StopIteration, RecursionError, SystemError):  # SystemError: by 3.10 without json loaded
        raise ValueError("not JSON") from None
    if end != len(text) or not _is_object(value):
        raise ValueError("not one JSON object")
    return value


def _is_object(value: object) -> TypeGuard[Json]:
    return type(value) is dict


def _is_array(value: object) -> TypeGuard[list[Any]]:
    return type(value) is list


def _is_token(value: object) -> bool:
    """Whether it can be a token: visible ASCII (RFC 6749 appendix A.12), so also one line."""
    if type(value) is not str or not 0 < len(value) < 1 << 17:
        return False
    return value.isascii() and value.isprintable() and " " not in value


def _is_number(value: object) -> bool:
    """Whether it is a finite JSON number (a bool is an int to Python, and 1e999 is inf)."""
    return type(value) in (int, float) and abs(value) < 1e18  # type: ignore[arg-type]


# ---- Configuration -------------------------------------------------------------------------------


def _is_loopback(host: str) -> bool:
    """Whether a host (no port) names this machine: localhost, [::1] or 127.0.0.0/8."""
    octets = host.split(".")
    numbers = set(map(str, range(256)))  # no leading zero: some resolvers read it as octal
    is_ipv4 = len(octets) == 4 and octets[0] == "127" and numbers.issuperset(octets)
    return is_ipv4 or host in ("localhost", "[::1]")


def _split_port(netloc: str) -> tuple[str, str]:
    host, colon, port = netloc.rpartition(":")
    return (host, port) if colon and not netloc.endswith("]") else (netloc, "")


def _normal_domain(value: str) -> str:
    """The one spelling of a tenant's domain: `acme.eu.auth0.com`, or `http://127.0.0.1:8080`.

    Raises:
        ConfigError: it is not a host name, or plain http to another machine (RFC 6749 section 3.2).
    """
    text = value.strip().lower()
    scheme, _, rest = text.partition("://") if "://" in text else ("https", "", text)
    host, port = _split_port(rest.removesuffix("/"))
    host = host.removesuffix(".")
    usual_port = {"https": "443", "http": "80"}.get(scheme)
    is_host = host == "[::1]" or (set(host) <= _SAFE and host[:1] != "-" and all(host.split(".")))
    digits = port.lstrip("0")
    usable = not port or (port.isascii() and port.isdigit() and 0 < int(digits[:6] or 0) < 65536)
    if not usual_port or not is_host or not usable:
        raise ConfigError(
            f"{_printable(value, 80)!r} is not a domain: give it as in acme.eu.auth0.com "
            "(Dashboard > Applications > your application > Domain)"
        )
    if scheme == "http" and not _is_loopback(host):
        raise ConfigError(f"plain http to {host} is refused: give the domain without http://")
    netloc = host if digits in ("", usual_port) else f"{host}:{digits}"
    return netloc if scheme == "https" else f"http://{netloc}"


def _parse_ports(value: str | int | Sequence[int]) -> tuple[int, ...]:
    """The loopback ports of `18484,18485`, 18484 or [18484, 18485]; 0 means any free one."""
    try:
        items = value.split(",") if isinstance(value, str) else value
        ports = (items,) if isinstance(items, int) else tuple(map(int, items))
    except (ValueError, TypeError):
        ports = ()
    if not ports or not all(0 <= port < 65536 for port in ports):
        raise ConfigError(
            f"{_printable(value, 80)!r} is not a list of ports: give numbers from 0 to 65535, as "
            "in 18484,18485"
        )
    return ports


def _check_params(params: Form) -> dict[str, str]:
    """The user's own parameters of /authorize; the login itself sets the others."""
    given = {str(name): str(value) for name, value in params.items() if value is not None}
    for name in given:
        if name.partition("[")[0].strip().lower() in OWN_PARAMETERS:  # also State, scope[]
            raise ConfigError(
                f"the parameter {_printable(name, 60)!r} is set by the login itself: use its own "
                "option if it has one, and leave it out of --param"
            )
    max_age = given.get("max_age", "0")
    if not (max_age.isascii() and max_age.isdigit() and len(max_age) < 10):
        raise ConfigError("max_age takes a number of seconds, as in --param max_age=3600")
    return given


def _check_text(name: str, value: object) -> str | None:
    """The text without white space around it, or None if it is empty or None.

    Raises:
        ConfigError: it is not a text that can be shown and sent.
    """
    text = value.strip() if isinstance(value, str) else value
    if text is not None and not (isinstance(text, str) and text.isprintable()):
        raise ConfigError(f"{name} is not a printable text: correct it")
    return text or None


def _check_seconds(name: str, value: Any, or_zero: bool = False) -> None:
    """ConfigError unless it is a number of seconds greater than 0 (or 0, with `or_zero`)."""
    if not _is_number(value) or value < 0 or (value == 0 and not or_zero):
        least = ", 0 or more" if or_zero else " greater than 0"
        raise ConfigError(f"{name} takes a number of seconds{least}: correct it")


def _from_environment(name: str) -> str | None:
    """The environment variable of a setting; one that is empty is not set."""
    return os.environ.get(ENVIRONMENT[name], "").strip() or None


def _callback_urls(ports: Iterable[int]) -> str:
    """The line for Allowed Callback URLs in the Dashboard."""
    return ", ".join(f"http://127.0.0.1:{port or 'PORT'}/callback" for port in ports)


def _state_directory() -> str:
    """The platform's directory for the sessions of this program; "" without a home directory."""
    home = os.path.expanduser("~") if os.environ.get("HOME", "unset") else ""  # HOME= gives "/"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    elif sys.platform == "darwin":
        base = os.path.join(home, "Library", "Application Support")
    elif os.path.isabs(os.environ.get("XDG_STATE_HOME", "")):  # a relative one is invalid (XDG)
        return os.path.join(os.environ["XDG_STATE_HOME"], "auth0_cli")
    else:
        base = os.path.join(home, ".local", "state")
    return os.path.join(base, "auth0_cli") if os.path.isabs(base) and os.path.isdir(home) else ""


def _program_name() -> str:
    """The command that runs this file, as a user types it."""
    script = sys.argv[0] if sys.argv else ""
    if getattr(sys, "frozen", False):  # an executable, by PyInstaller for one
        return _printable(script)
    if os.path.basename(script).startswith("auth0-cli"):
        return "auth0-cli"
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = spec.name if spec and __name__ == "__main__" else __name__
    # Python runs an archive or a directory as __main__, too.
    how = script if "__main__" in (name, getattr(spec, "name", "")) else f"-m {name}"
    return _printable(f"{os.path.basename(sys.executable or 'python')} {how}")


# ---- Locks ---------------------------------------------------------------------------------------

_posix: Any = os  # for what the os module lacks on Windows
_held_locks: dict[str, Any] = {}  # name -> weak reference to the `_Lock` that has it
_refreshing: set[Any] = set()  # the `_DelayedSignals` of all threads


def _open(path: str, flags: int) -> int:
    """Opens or creates a file for its owner alone; follows no link, and waits for no FIFO."""
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, flags, 0o600)


def _touch(file: Any) -> None:
    """Sets the mode and the time of a lock file, so that cleaners of old files leave it alone."""
    try:
        if hasattr(os, "fchmod"):
            _posix.fchmod(file.fileno(), 0o600)
        os.utime(file.fileno() if os.utime in os.supports_fd else file.name)
    except OSError:
        pass


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
    except OSError as problem:
        if problem.errno is None:  # not the system's: a signal handler raised it
            raise
        if lock and not isinstance(problem, (BlockingIOError, PermissionError)):
            raise CacheError(
                f"this file system has no locks ({problem.strerror}): give a directory of another "
                "one with --cache or AUTH0_CLI_CACHE"
            ) from problem
        return False
    return True


def _is_from_signal_handler(problem: BaseException) -> bool:
    """Whether a signal handler raised it, such as that of a task queue's soft time limit."""
    trace = problem.__traceback__
    # The first frame is the caller's. Its locals are not read: they would keep `problem` alive.
    while trace and trace.tb_next:
        interrupted, trace = trace.tb_frame, trace.tb_next
        if trace.tb_frame is interrupted:  # a tracer adds a frame twice (before Python 3.11.3)
            continue
        for value in trace.tb_frame.f_locals.values():
            # The interrupted frame is an argument of the handler, by itself or within *args.
            is_tuple = type(value).__name__ == "tuple"  # `type(value) is tuple` confuses pyright
            if any(argument is interrupted for argument in (value if is_tuple else (value,))):
                return True
    return False


class _Lock:
    """Excludes the other threads of this process and, with paths, all other processes.

    The lock ends when its block ends, or when this object is gone: so an exception at any point,
    such as one of a signal handler, leaves nothing locked. A lock file is never deleted, and the
    operating system's lock on it ends with the process.

    Args:
        name: the lock's name. It excludes threads: on NFS a file lock does not.
        timeout: seconds; then entering raises NetworkError.
        paths: the lock file, then the session file, which is locked too if it exists. So
            processes exclude each other even if a cleaner of old files removes the lock file.
    """

    def __init__(self, name: str, timeout: float, *paths: str) -> None:
        self._name, self._timeout, self._paths = name, timeout, paths
        self._files: list[Any] = []

    def __enter__(self) -> None:
        from _weakref import _remove_dead_weakref, ref  # type: ignore[attr-defined]

        begun = time.monotonic()
        hint_shown = False
        try:
            while True:
                # Both calls are atomic, and an exception between them locks nothing.
                _remove_dead_weakref(_held_locks, self._name)
                holder = _held_locks.setdefault(self._name, ref(self))
                if holder() is self and self._take_files():
                    return
                waited = time.monotonic() - begun
                if waited >= self._timeout:
                    raise NetworkError(
                        "another process or thread has held this session's lock for "
                        f"{waited:.0f} s: try again, or end that process"
                    )
                if waited > 3 and not hint_shown:
                    hint_shown = True
                    _say_waiting("another process that is busy with this session")
                time.sleep(0.01)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc: object) -> None:
        try:
            for file in self._files:  # closing is not enough: a forked child may have a copy
                _try_file_lock(file.fileno(), False)
        finally:
            self.close_files()
            reference = _held_locks.get(self._name)
            if reference and reference() is self:
                del _held_locks[self._name]

    def close_files(self) -> None:
        """Closes the files. The operating system's lock ends with the last copy of each."""
        for file in self._files:
            file.close()
        self._files = []

    def _take_files(self) -> bool:
        """Locks the files; False if another process has one."""
        self.close_files()
        for path in self._paths:
            is_session = path != self._paths[0]
            try:
                mode = "r+b" if is_session else "ab"  # only the lock file is created
                file = open(path, mode, buffering=0, opener=_open)  # noqa: SIM115
            except OSError as problem:
                if is_session and problem.errno is not None:
                    break  # no session yet, or a file that `read` will refuse
                raise
            self._files.append(file)
            if not _try_file_lock(file.fileno(), True):
                return False
            if not is_session:
                _touch(file)
            try:
                if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                    return False  # the file was replaced meanwhile
            except FileNotFoundError:
                return False
        return True


def _after_fork() -> None:
    """In a forked child: forget what the parent's other threads do, and close their lock files."""
    for lock in [reference() for reference in _held_locks.values()]:
        if lock:
            lock.close_files()
    _held_locks.clear()
    for refresh in _refreshing:
        refresh.active = False  # the child's signals are not delayed
        refresh.held.clear()
    _refreshing.clear()


if hasattr(os, "register_at_fork"):
    _posix.register_at_fork(after_in_child=_after_fork)

# ---- Session files -------------------------------------------------------------------------------


def _make_private_directory(path: str) -> None:
    """Makes a directory and the missing ones above it, for the owner alone, whatever the umask."""
    if not os.path.isdir(path):
        above = os.path.dirname(path)
        if above != path:
            _make_private_directory(above)
        try:
            os.mkdir(path, 0o700)
            if os.name == "posix" and ~os.stat(path).st_mode & 0o700:
                os.chmod(path, 0o700)  # the umask took a permission of the owner
        except FileExistsError:
            pass  # another process was faster, or it is no directory: `_check` refuses that


def _retry_on_windows(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Calls it; on Windows retries for 2 s, while another process uses the file."""
    deadline = time.monotonic() + 2
    while True:
        try:
            return call(*args, **options)
        except PermissionError:
            if os.name != "nt" or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _unlink(path: str) -> None:
    try:
        _retry_on_windows(os.unlink, path)
    except FileNotFoundError:
        pass


def _flush(fd: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # here fsync leaves data in the drive's cache
            return
        except OSError:
            pass  # not every volume can do it, such as a network's
    os.fsync(fd)


class FileCache:
    """Sessions as JSON files of one directory, which many processes share.

    The directory is 0700 and a file 0600 from its first byte; a file is replaced as a whole and
    flushed to the disk. A file or directory that others own or could have written is refused.
    The methods raise OSError as the os module does, and CacheError for what they refuse.

    Args:
        directory: where (`~` is the home directory); the platform's state directory if None.
    """

    repairs = True  # fix permissions that are too loose; False (doctor) only reports them

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        place = os.path.expanduser(directory) if directory else _state_directory()
        try:
            self.directory = os.path.abspath(place) if place else ""
        except OSError:  # a relative one, and the working directory has gone
            raise CacheError("the current directory is gone: give --cache from the root") from None

    def path(self, key: str, suffix: str = "") -> str:
        """The path of a session (.json), or of a note beside it (`KEY~NAME`, .state)."""
        parts = key.split("~")
        suffix = suffix or (".json" if len(parts) < 4 else ".state")
        too_long = len("~".join(parts[:3])) > 208  # file systems allow 255, suffixes included
        if too_long or os.path.basename(key) != key or key.startswith("."):
            raise CacheError("the session's name is too long for a file: give a shorter --profile")
        if not self.directory:
            variable = "USERPROFILE" if os.name == "nt" else "HOME"
            raise CacheError(
                f"there is no home directory to keep sessions in ({variable} is not set, or is not "
                "a directory): give a directory with --cache or AUTH0_CLI_CACHE"
            )
        return os.path.join(self.directory, key + suffix)

    def read(self, key: str) -> bytes | None:
        """The stored bytes (at most one more than `MAX_BYTES`), or None. Takes no lock."""
        path = self.path(key)
        try:
            self._check(self.directory)
            with _retry_on_windows(open, path, "rb", opener=_open) as file:
                self._check(path, file.fileno())
                return bytes(file.read(MAX_BYTES + 1))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, key: str, data: bytes) -> None:
        """Replaces the file by one with these bytes; a crash leaves the old or the new one, whole.

        The caller has the lock. So an older temporary file of this session is that of a killed
        process: it is removed.
        """
        self._write(key, data, keep=True)

    def check_space(self, key: str, size: int) -> None:
        """Raises OSError or CacheError unless a file of `size` bytes can be written."""
        self._write(key, bytes(size), keep=False)

    def _write(self, key: str, data: bytes, keep: bool) -> None:
        self._make_directory()
        self._remove(key, ".tmp-")
        temporary = self.path(key, f".tmp-{os.getpid()}-{time.time_ns()}")
        try:
            with open(temporary, "xb", opener=_open) as file:
                if hasattr(os, "fchmod"):
                    _posix.fchmod(file.fileno(), 0o600)  # the umask may have taken a permission
                file.write(data)
                file.flush()
                _flush(file.fileno())
            if keep:
                _retry_on_windows(os.replace, temporary, self.path(key))
                temporary = ""
        finally:
            if temporary:
                _unlink(temporary)
        self._flush_directory()

    def delete(self, key: str) -> None:
        """Removes the file and the damaged ones of this name, which may hold a live refresh token.

        The lock file stays for those who wait for it.
        """
        _unlink(self.path(key))
        self._remove(key, ".tmp-", ".damaged-")
        self._flush_directory()

    def list(self) -> list[str]:
        """The keys of all sessions and notes."""
        return [os.path.splitext(n)[0] for n in self._names() if n.endswith((".json", ".state"))]

    def lock(self, key: str, timeout: float) -> AbstractContextManager[object]:
        """Excludes other processes and threads from one session.

        Entering it raises NetworkError if another one has it for `timeout` seconds.
        """
        self._make_directory()
        paths = [self.path(key, ".lock")]
        if os.name == "posix":  # a locked file can't be read on Windows
            paths.append(self.path(key))
        return _Lock(paths[0], timeout, *paths)

    def set_aside(self, key: str) -> str:
        """Keeps a damaged file under another name, and returns that."""
        kept = self.path(key, f".damaged-{time.time_ns()}")
        _retry_on_windows(os.replace, self.path(key), kept)
        return kept

    def _names(self) -> Sequence[str]:
        """The names of all files in the directory."""
        try:
            return os.listdir(os.path.dirname(self.path("x")))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _remove(self, key: str, *suffixes: str) -> None:
        """Removes the files of a session whose names go on with one of these."""
        starts = tuple(key + suffix for suffix in suffixes)
        for name in self._names():
            # The name of another profile can begin so: its session files stay.
            if name.startswith(starts) and not name.endswith((".json", ".state", ".lock")):
                _unlink(os.path.join(self.directory, name))

    def _make_directory(self) -> None:
        self.path("x")  # raises where there is no directory
        _make_private_directory(self.directory)
        self._check(self.directory)

    def _flush_directory(self) -> None:
        """Makes a rename durable, where a directory can be flushed (Windows does not open one)."""
        try:
            fd = os.open(self.directory, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            pass

    def _check(self, path: str, fd: int | None = None) -> None:
        """Refuses a directory, or a file (with `fd`), that others own or could have written.

        If others can only read it, that permission is removed.
        """
        from stat import S_ISDIR, S_ISREG

        is_directory, at = fd is None, path if fd is None else fd
        info = os.stat(at)
        mode, shown = info.st_mode, _printable(path, 400)
        advice = "give a directory of your own with --cache"
        refusal = ""
        if not (S_ISDIR if is_directory else S_ISREG)(mode):
            kind = "directory" if is_directory else "regular file"
            refusal = f"is not a {kind}: move it away, or {advice}"
        elif os.name != "posix":
            return  # a profile directory of Windows is private by its access-control list
        elif info.st_uid != _posix.geteuid():
            refusal = f"belongs to another user: {advice}"
            if is_directory and os.access(path, os.W_OK | os.X_OK):
                refusal += f", such as {os.path.join(shown, 'auth0_cli')}"
        elif is_directory and os.lstat(path).st_uid not in (0, info.st_uid):
            refusal = f"is a link of another user, who chooses where it leads: {advice}"
        elif not is_directory and info.st_nlink > 1:
            refusal = "has a second name (a hard link): remove it and log in again"
        elif mode & 0o022:
            refusal = (
                "can be written by other users, who may have changed it (or its file system keeps "
                "no permissions): check it and remove their permission, or give another directory "
                "with --cache or AUTH0_CLI_CACHE"
            )
        elif not mode & 0o077:
            return
        elif is_directory and any(name.count("~") < 2 for name in self._names()):
            return  # it holds other files, too: its mode is not ours to change
        elif not self.repairs:
            refusal = "can be read by other users: the next command removes their permission"
        if refusal:
            raise CacheError(f"{shown} {refusal}")
        try:
            os.chmod(at, mode & 0o700)
            _warn(f"{shown} could be read by other users: their permission was removed")
        except OSError:
            _warn(f"{shown} can be read by other users, and that can't be changed")


class MemoryCache:
    """Sessions in memory, for tests and for programs that must write no file."""

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
        """The keys of all sessions and notes."""
        return list(self._data)

    def lock(self, key: str, timeout: float) -> AbstractContextManager[object]:
        """Excludes other threads; entering it raises NetworkError after `timeout` seconds."""
        return _Lock(f"{id(self)} {key}", timeout)


# ---- Session records -----------------------------------------------------------------------------


def _session_key(*parts: str) -> str:
    """The key of a session. Capitals are escaped, for file systems that ignore case."""
    return "~".join(
        "".join(chr(b) if chr(b) in _SAFE else f"%{b:02x}" for b in part.encode("utf-8"))
        for part in parts
    )


def _split_key(key: str) -> list[str]:
    """Domain, client and profile of a session's key; [] for any other text."""
    parts: list[str] = []
    try:
        for part in key.split("~"):
            head, *rest = part.split("%")
            data = head.encode() + b"".join(bytes.fromhex(r[:2]) + r[2:].encode() for r in rest)
            parts.append(data.decode("utf-8"))
        domain, _, _ = parts
        # Only a normal domain counts: a planted file `a@evil.com~...` must choose no host.
        sound = _session_key(*parts) == key and _normal_domain(domain) == domain
    except (ValueError, ConfigError):
        return []
    return parts if sound else []


def _new_record(domain: str = "", client_id: str = "", profile: str = "") -> Record:
    """An empty session; also the schema that files are checked against.

    domain, client_id, profile: the name of the session.
    id_token: the last ID token, as Auth0 has sent it, or null.
    refresh_token: null where Auth0 gave none, or has refused the last one.
    organization, audience, scope: the parameters of the login, or null.
    tokens: the access tokens, see `_new_entry`.
    jwks: the tenant's signing keys (RFC 7517), as far as this program can use them.
    jwks_refetched_at: epoch seconds of the last request for them because of an unknown key.
    user: `sub`, `name`, `email` of the user; `sub` is "" if the login did not request `openid`;
        the whole object is empty for a machine (see `_has_no_user`).
    """
    return {
        "version": SESSION_VERSION,
        "domain": domain,
        "client_id": client_id,
        "profile": profile,
        **dict.fromkeys(("id_token", "refresh_token", *_TOKEN_PARAMETERS)),
        "tokens": [],
        "jwks": [],
        "user": {},
        "jwks_refetched_at": 0,
    }


def _new_entry(
    response: Mapping[str, Any],
    audience: str | None = None,
    organization: str | None = None,
    scope: str | None = None,
) -> Record:
    """The access token of a token response as a session keeps it.

    audience, organization, requested: the parameters of the request, or null.
    scope: the granted one. A response without `scope` means: the requested one (RFC 6749
        section 5.1).
    obtained_at, expires_at: epoch seconds, counted from before the request was sent.
    default: whether a call without a scope gets this token.
    """
    granted = scope if response.get("scope") is None else response["scope"]
    return {
        "audience": audience,
        "organization": organization,
        "requested": scope,
        "expires_at": response.get("expires_at", 0),
        "obtained_at": response.get("obtained_at", 0),
        "access_token": response["access_token"],
        "token_type": "Bearer",
        "default": False,
        "scope": _printable(granted or "", 8000),
    }


def _has_no_user(record: Record) -> bool:
    """Whether it is new or made by client credentials; a user's has a `sub`, perhaps empty."""
    return not record["user"]


def _fits_schema(value: object, schema: Record) -> bool:
    """Whether it is an object with each member of the schema, of the same type.

    In the schema, None stands for a text or null, and a number for any number.
    """
    if not _is_object(value):
        return False
    for name, example in schema.items():
        found = value.get(name, ...)
        same = type(found) is type(example) or (example is None and type(found) is str)
        if not (_is_number(found) if type(example) is int else same):
            return False
    return True


class _NewerSession(CacheError):
    """A newer version of this file wrote the session: it is left alone."""


def _parse_record(data: bytes, key: str) -> Record:
    """A session from its file's bytes.

    Raises:
        ValueError: damaged, or the session of another name.
        CacheError: written by a newer version.
    """
    if len(data) > MAX_BYTES:
        raise ValueError("too large")
    record = _parse_json(data)
    version = record.get("version")
    if type(version) is int and version > SESSION_VERSION:
        raise _NewerSession(
            "the stored session was written by a newer version of auth0_cli and is left alone: "
            "update this copy, or give another directory with --cache"
        )
    schema = _new_entry({"access_token": ""})
    sound = (
        version == SESSION_VERSION
        and _fits_schema(record, _new_record())
        and all(_fits_schema(t, schema) and _is_token(t["access_token"]) for t in record["tokens"])
        and (record["refresh_token"] is None or _is_token(record["refresh_token"]))
        and (not record["user"] or type(record["user"].get("sub")) is str)
        and key == _session_key(*(record[name] for name in _NAME_FIELDS))
    )
    if not sound:
        raise ValueError("not this session")
    return record


def _is_usable(token: Record, min_ttl: float) -> bool:
    """Whether a token is valid for more than `min_ttl` seconds from now.

    A token whose whole lifetime is at most `min_ttl` counts until it expires. One that was
    obtained in the future does not count: the clock was set back.
    """
    now = time.time()
    obtained_at, expires_at = token["obtained_at"], token["expires_at"]
    if obtained_at > now + LEEWAY or expires_at <= now:
        return False
    return bool(expires_at - now > min_ttl or expires_at - obtained_at <= min_ttl)


def _find_token(
    record: Record, audience: str | None, organization: str | None, scope: str | None
) -> Record | None:
    """The token of a session for an API, if it has each scope; without a scope, the default token.

    A requested scope counts even if Auth0 silently did not grant it: a refresh would not grant it
    either.
    """
    found: list[Record] = []
    for token in record["tokens"]:
        has = f"{token['scope']} {token['requested'] or ''}".split()
        fits = set(scope.split()).issubset(has) if scope else token["default"]
        if fits and (token["audience"], token["organization"]) == (audience, organization):
            found.append(token)
    return max(found, key=lambda token: token["expires_at"], default=None)


def _add_token(
    record: Record,
    response: Mapping[str, Any],
    audience: str | None,
    organization: str | None,
    scope: str | None,
) -> Record:
    """Adds the token of a response to a session, and removes expired ones and the one it renews.

    It becomes the default, unless its request had another scope than the login.
    """
    token = _new_entry(response, audience, organization, scope)
    token["default"] = scope in (None, record["scope"])
    same = ("audience", "organization", "requested", "default")
    record["tokens"] = [
        old
        for old in record["tokens"]
        if old["expires_at"] > time.time() and any(old[name] != token[name] for name in same)
    ]
    record["tokens"].append(token)
    return token


def _audiences_of(access_token: str) -> list[Any]:
    """The `aud` of an access token that is a signed JWT. The signature is not checked."""
    aud = _decode_claims(access_token).get("aud")
    return aud if _is_array(aud) else [aud]


def _token_summary(token: Record) -> Json:
    """A stored token without the token itself.

    If the request named no audience, `audience` comes from the token itself, if that is a JWT: it
    is the tenant's Default Audience. It is for display, nothing relies on it.
    """
    audience = token["audience"]
    if not audience:
        named = [a for a in _audiences_of(token["access_token"]) if isinstance(a, str)]
        audience = next((a for a in named if not a.endswith("/userinfo")), None)
    return {
        "audience": audience,
        "scope": token["scope"],
        "expires_at": int(token["expires_at"]),
        "expires_in": max(0, int(token["expires_at"] - time.time())),
    }


class Session:
    """The user or machine that is logged in, and when its access tokens expire. It holds no token.

    Attributes:
        domain: the tenant's domain.
        client_id: the application.
        profile: the name of the session among several of one application.
        user: `sub`, `name` and `email` as far as known; None for a machine, and for a login
            that did not request `openid`.
        refreshable: whether there is a refresh token.
        organization: the one that the login was for, or None.
        tokens: for each access token `audience`, `scope`, `expires_at` (epoch seconds) and
            `expires_in` (seconds from now, 0 if it has expired).
    """

    def __init__(self, record: Record) -> None:
        self.domain: str = record["domain"]
        self.client_id: str = record["client_id"]
        self.profile: str = record["profile"]
        user: dict[str, str | None] = record["user"]
        self._is_machine = _has_no_user(record)
        self.user = dict(user) if user.get("sub") else None
        self.refreshable = record["refresh_token"] is not None
        self.organization: str | None = record["organization"]
        self.tokens = [_token_summary(token) for token in record["tokens"]]

    def __repr__(self) -> str:
        return f"<Session of {self.who()} at {self.domain}, profile {self.profile}>"

    def who(self) -> str:
        """The user in words: a name and an address, else the subject or the client."""
        if self._is_machine:
            return f"client {_printable(self.client_id, 80)}"
        name, email, sub = map((self.user or {}).get, ("name", "email", "sub"))
        both = f"{name} <{email}>" if name and email and name != email else name or email
        return _printable(both or sub or "an unnamed user", 120)

    def to_dict(self) -> Json:
        """The object that `status --json` prints."""
        names = (*_NAME_FIELDS, "user", "refreshable", "tokens")
        return {name: getattr(self, name) for name in names}


# ---- Stored sessions -----------------------------------------------------------------------------

# Sessions that could not be written: (cache, key) -> record, the bytes that it replaces, cache.
_unsaved: dict[tuple[object, str], tuple[Record, bytes | None, Cache]] = {}


def _call_cache(cache: Cache, method: str, *args: object, lock: Any = None) -> Any:
    """Calls a method of a cache or of its lock; its errors become a CacheError."""
    try:
        return getattr(lock or cache, method)(*args)
    except Auth0Error:
        raise
    except Exception as problem:
        if _is_from_signal_handler(problem):
            raise
        strerror, path = (getattr(problem, name, None) for name in ("strerror", "filename"))
        reason = _printable(strerror or type(problem).__name__)
        if isinstance(cache, FileCache):
            text = (
                f"sessions can't be kept in {_printable(path or cache.directory, 500)} ({reason}): "
                "correct that, or give another directory with --cache or AUTH0_CLI_CACHE"
            )
        else:
            text = f"the program's cache failed ({method.strip('_')}: {reason})"
        raise CacheError(text) from problem


class _SessionLock:
    """The lock of a stored session, as a context manager.

    Args:
        cache: the cache that gives the lock.
        key: the key of the session.
        timeout: seconds; then entering raises NetworkError.
        required: if False and the cache can't lock, the lock excludes this process's threads only.
    """

    def __init__(self, cache: Cache, key: str, timeout: float, required: bool) -> None:
        self._cache, self._key, self._timeout, self._required = cache, key, timeout, required
        self._place = cache.directory if isinstance(cache, FileCache) else id(cache)

    def __enter__(self) -> None:
        begun = time.monotonic()
        try:
            self._lock: Any = _call_cache(self._cache, "lock", self._key, self._timeout)
            _call_cache(self._cache, "__enter__", lock=self._lock)
        except CacheError as problem:
            # 0.8: a redis lock gives up early if its next try would come after the time-out.
            if time.monotonic() - begun > 0.8 * self._timeout:
                raise NetworkError(
                    f"the lock of this session was busy for {self._timeout:.0f} s: try again"
                ) from problem
            if self._required:
                raise
            self._lock = _Lock(f"{self._place} {self._key}", self._timeout)
            self._lock.__enter__()

    def __exit__(self, *exc: object) -> None:
        try:
            _call_cache(self._cache, "__exit__", None, None, None, lock=self._lock)
        except CacheError as problem:  # the block has its result, and that is valid
            _warn(str(problem))


class _StoredSession:
    """One session of a cache: its name, and how it is read, locked, saved and deleted.

    Attributes:
        domain, client_id, profile: the name.
        key: the name for the cache.
    """

    def __init__(self, cache: Cache, domain: str, client_id: str, profile: str) -> None:
        self.cache = cache
        self.domain, self.client_id, self.profile = domain, client_id, profile
        self.key = _session_key(domain, client_id, profile)
        self._place = (cache.directory if isinstance(cache, FileCache) else id(cache), self.key)
        self._data: bytes | None = None  # as last read or written
        self._failures = 0.0  # failed requests in a row

    def flags(self, preset: Iterable[str] = ()) -> str:
        """The flags that name it on a command line, without those that a host program has set."""
        from shlex import quote

        flags = [
            f"--{name.replace('_', '-')} {quote(getattr(self, name))}"
            for name in _NAME_FIELDS
            if name not in preset and (name, self.profile) != ("profile", "default")
        ]
        return _printable(" ".join(flags))

    def file(self) -> str | None:
        """The path of its file, if the cache has files."""
        return self.cache.path(self.key) if isinstance(self.cache, FileCache) else None

    def is_of_user(self) -> bool:
        """Whether its file, which `read` may refuse, holds the session of a user."""

        def opener(path: str, flags: int) -> int:
            return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))

        try:
            with open(self.file() or "", "rb", opener=opener) as file:
                return bool(_parse_json(file.read(MAX_BYTES)).get("user"))
        except (OSError, ValueError, CacheError):
            return False

    def lock(
        self, timeout: float = LOCK_SECONDS, required: bool = True, suffix: str = ""
    ) -> _SessionLock:
        """Excludes others that write or refresh this session or, with a suffix, that log in to it.

        Args:
            timeout: seconds; then entering raises NetworkError.
            required: as in `_SessionLock`.
            suffix: `~login` or `~pending`. That lock is taken before the session's own.
        """
        return _SessionLock(self.cache, self.key + suffix, timeout, required)

    def read(self) -> bytes | None:
        """The stored bytes, or None."""
        data = _call_cache(self.cache, "read", self.key)
        if data is not None and type(data) is not bytes:
            raise CacheError(f"the cache gave {type(data).__name__}, not bytes: correct it")
        return data

    def load(self, locked: bool = False) -> Record | None:
        """The session, or None. A damaged one is set aside under its lock, with a warning."""
        unsaved, replaced, _ = _unsaved.get(self._place, (None, None, None))
        try:
            self._data = data = self.read()
        except CacheError:
            if not unsaved:
                raise
            return unsaved
        if unsaved and data == replaced:
            return unsaved
        if locked:  # another process has written since, so this process's record is out of date
            _unsaved.pop(self._place, None)
        if data is None:
            return None
        try:
            return _parse_record(data, self.key)
        except ValueError:
            if not locked:
                with self.lock():
                    return self.load(True)
        kept = ""
        if isinstance(self.cache, FileCache):
            path = _printable(_call_cache(self.cache, "set_aside", self.key), 400)
            kept = f": it is kept as {path}"
        _warn(f"a stored session was damaged{kept}")
        return None

    def check_writable(self) -> None:
        """Raises CacheError if the next session can't be saved. The caller has the lock."""
        size = len(self._data or b"") + (1 << 15)
        if isinstance(self.cache, FileCache):
            _call_cache(self.cache, "check_space", self.key, size)
        else:  # valid JSON, because some caches store nothing else
            _call_cache(self.cache, "write", self.key + "~check", b"{}" + b" " * size)
            _call_cache(self.cache, "delete", self.key + "~check")

    def save(self, record: Record, old: Record | None = None) -> None:
        """Writes the session. The caller has the lock, and has loaded the session under it.

        With `old`, it writes only if the stored refresh token is still that of `old`: a session
        that was removed or replaced meanwhile is left alone.

        Raises:
            CacheError: it could not be written. This process keeps it in memory.
        """
        import json

        # A file that is too large would count as damaged, so the oldest tokens go.
        while len(data := json.dumps(record, indent=1).encode()) > MAX_BYTES and record["tokens"]:
            record = {**record, "tokens": record["tokens"][1:]}
        try:
            if old:
                current = self.load(True)
                if not current or current["refresh_token"] != old["refresh_token"]:
                    return
            _call_cache(self.cache, "write", self.key, data)
        except BaseException:
            if len(_unsaved) > 63:  # a program with many users, and a disk that stays full
                _unsaved.pop(next(iter([*_unsaved])), None)  # the oldest
            _unsaved[self._place] = (record, self._data, self.cache)
            raise
        self._data = data
        _unsaved.pop(self._place, None)

    def delete(self) -> None:
        """Removes the session and its notes."""
        _unsaved.pop(self._place, None)
        _call_cache(self.cache, "delete", self.key)
        for name in ("failure", "pending", "application"):
            self.write_note(name, None, required=True)

    # Notes are small JSON objects beside the session. `failure`: the last failed request;
    # `pending`: a device login in two steps; `application`: the parameters of the last login,
    # kept by a logout.

    def read_note(self, name: str) -> Json | None:
        """A note, or None if there is none that can be read."""
        try:
            return _parse_json(_call_cache(self.cache, "read", f"{self.key}~{name}") or b"")
        except (CacheError, ValueError):
            return None

    def write_note(self, name: str, note: Json | None, required: bool = False) -> None:
        """Writes a note, or removes it if it is None. The caller has a lock of this session.

        Raises:
            CacheError: that failed, and it is required.
        """
        import json

        key = f"{self.key}~{name}"
        try:
            if note is not None:
                _call_cache(self.cache, "write", key, json.dumps(note).encode())
            elif _call_cache(self.cache, "read", key) is not None:
                _call_cache(self.cache, "delete", key)
        except CacheError:
            if required:
                raise

    def check_failure(self, since: float) -> None:
        """Raises the failure of another process, if it is newer than `since` or asks to wait.

        Args:
            since: epoch seconds at which the caller began to wait for the lock.
        """
        failure = self.read_note("failure") or {}
        if not _fits_schema(
            failure, {"at": 0, "until": 0, "count": 0, "message": "", "error": None}
        ):
            return
        now = time.time()
        at = failure["at"]
        until = min(failure["until"], at + MAX_WAIT)
        self._failures = failure["count"] if at >= now - MAX_WAIT else 0
        if at <= now and (at > since or now < until):
            problem = NetworkError(_printable(failure["message"], 600), failure["error"])
            problem.retry_after = max(0.0, until - now)
            raise problem

    def keep_failure(self, problem: NetworkError) -> None:
        """Stores a failure, and until when to wait.

        The wait is what the server asks for. Else there is none after the first two failures in a
        row, then it is 1 s, 2 s, 4 s and so on, up to 32 s.
        """
        now = time.time()
        wait = problem.retry_after or 0.0
        if not wait and self._failures > 1:
            wait = 2.0 ** min(self._failures - 2, 5)
        times = {"at": now, "until": now + min(wait, MAX_WAIT), "count": self._failures + 1}
        self.write_note("failure", {**times, "message": str(problem), "error": problem.error})


# ---- HTTP ----------------------------------------------------------------------------------------

_PROCESS = os.getpid()  # a forked child has another number


def _find_proxy(netloc: str) -> tuple[str, str, int, str] | None:
    """The proxy for an https server: the variable that sets it, host, port and login header.

    HTTPS_PROXY, else ALL_PROXY, else the settings of macOS or Windows; NO_PROXY as in urllib. The
    value is parsed by hand, because the password may contain any character.

    Raises:
        ConfigError: the proxy is not an http:// one. The message never shows the value.
    """
    names = [name for name in os.environ if name.lower() in ("https_proxy", "all_proxy")]
    if not names and sys.platform not in ("darwin", "win32"):
        return None  # importing urllib.request costs up to 10 ms
    from base64 import b64encode
    from urllib import request
    from urllib.parse import unquote_to_bytes

    # In a forked child, reading the settings of macOS crashes.
    suffix = "" if os.getpid() == _PROCESS else "_environment"
    proxies = getattr(request, f"getproxies{suffix}")()
    is_excluded = getattr(request, f"proxy_bypass{suffix}")
    kind = "https" if proxies.get("https", "").strip() else "all"
    value = proxies.get(kind, "").strip()
    if not value or is_excluded(netloc) or is_excluded(f"{netloc}:443"):
        return None
    # Of two spellings, urllib uses the lower-case one. `max` finds it: lower case sorts last.
    variable = max((n for n in names if n.lower() == f"{kind}_proxy"), default="HTTPS_PROXY")
    scheme, found, rest = value.partition("://")
    if not found or ":" in scheme:  # no scheme, but perhaps a password with "://"
        scheme, rest = "http", value
    login, _, address = rest.rpartition("@")
    host, port = _split_port(address.partition("/")[0])
    usable = not port or (port.isdecimal() and 0 < int(port[:6]) < 65536)
    if scheme.lower() != "http" or not host or not usable:
        hint = f"correct {variable}, or list {netloc} in NO_PROXY"
        raise ConfigError(f"the proxy is not of the form http://HOST:PORT: {hint}")
    if login:
        pair = unquote_to_bytes(os.fsencode(login if ":" in login else f"{login}:"))
        login = f"Proxy-Authorization: Basic {b64encode(pair).decode('ascii')}\r\n"
    return variable, host, int(port or 80), login


def _tls_context() -> Any:
    """Verifies certificates and host names, always (RFC 9525); TLS 1.2 or newer."""
    import ssl

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 sets this flag, but many companies' CAs fail it; browsers accept them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    file, store = os.environ.get("SSL_CERT_FILE"), context
    if file and os.name == "nt":  # Windows adds the system's certificates: count those of the file
        store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        store.set_default_verify_paths()
    if file is not None and not (os.path.isfile(file) and store.cert_store_stats()["x509"]):
        what = f"SSL_CERT_FILE={_printable(file)} names no file with certificates"
        raise ConfigError(f"{what}: correct or unset it")
    return context


class _HttpRequest:
    """One request on its own connection, and its response: at most MAX_BYTES of body.

    It runs in a thread, and the caller stops waiting at the deadline: socket time-outs bound
    neither DNS nor a server that sends one byte at a time.

    Attributes:
        proxy: host and port of the proxy in use, or "".
        sent: whether the server may have received the request.
        problem: why there is no response.
        status: of the response; 0 without one.
        headers: of the response, with lower-case names.
        body: of the response.
        json: the JSON object in the body, or None.
        deadline: monotonic seconds.
    """

    proxy = ""
    sent = False
    problem: Exception | None = None
    status = 0
    headers: Mapping[str, str] = {}
    body = b""
    json: Json | None = None
    _socket: Any = None

    def __init__(self, origin: str, deadline: float) -> None:
        self._origin = origin
        self.deadline = deadline

    def run(self, *request: object) -> None:
        """Sends method, path, body and headers; keeps the response or the problem."""
        try:
            connection = self._connect()
            self._left()  # raises: nothing is sent after the deadline
            self.sent = True
            connection.request(*request)
            with connection.getresponse() as response:
                self._read(response)
        except Exception as problem:  # noqa: BLE001 - http.client raises many kinds
            self.problem = problem.with_traceback(None)  # its frames hold sockets, and the form
        finally:
            if self._socket:
                self._socket.close()

    def abandon(self) -> None:
        """Shuts the connection down if it is still open, which ends the thread."""
        try:
            self._socket.shutdown(2)
        except (AttributeError, OSError):
            pass

    def retry_after(self) -> float:
        """Seconds that the server asks to wait (RFC 9110 section 10.2.3).

        Auth0 adds `x-ratelimit-reset`, in epoch seconds, to responses of all kinds. It matters
        only where the limit was exceeded.
        """
        from datetime import timezone
        from email.utils import parsedate_to_datetime

        asked = self.headers.get("retry-after", "")
        reset = self.headers.get("x-ratelimit-reset", "") if self.status == 429 else ""
        for value, base in ((asked, 0.0), (reset, time.time())):
            if value.isascii() and value.isdigit():
                return max(0.0, float(value[:12]) - base)
        try:  # a date is allowed, too; without a zone it is UTC
            date = parsedate_to_datetime(asked)
            date = date if date.tzinfo else date.replace(tzinfo=timezone.utc)
            return max(0.0, date.timestamp() - time.time())
        except (ValueError, TypeError, OverflowError, IndexError):  # IndexError: by 3.9
            return 0.0

    def _connect(self) -> Any:
        """Connects to the server or through a proxy; plain http stays on this machine."""
        from http.client import HTTPConnection, HTTPSConnection

        scheme, _, netloc = self._origin.partition("://")
        host = _split_port(netloc)[0]
        context = _tls_context() if scheme == "https" else None
        connection = HTTPSConnection(netloc, context=context) if context else HTTPConnection(netloc)
        proxy = None if _is_loopback(host) else _find_proxy(netloc)
        if proxy:
            self._open_tunnel(f"{host}:{connection.port}", *proxy)
        else:
            self._open_socket(host, connection.port)
        if context:
            self._socket = context.wrap_socket(self._socket, server_hostname=connection.host)
        connection.sock = self._socket
        return connection

    def _open_socket(self, host: str, port: int) -> None:
        """Connects to the first address that accepts, in the spirit of RFC 8305.

        IPv6 and IPv4 take turns. An address that does not answer leaves time for the others.
        """
        import socket

        found = socket.getaddrinfo(host.strip("[]"), port, 0, socket.SOCK_STREAM)
        families = [address[0] for address in found]
        order = sorted(range(len(found)), key=lambda i: families[:i].count(families[i]))
        while order:
            family, kind, protocol, _, address = found[order.pop(0)]
            try:
                self._socket = socket.socket(family, kind, protocol)
                self._socket.settimeout(min(2.0, self._left() / 2) if order else self._left())
                self._socket.connect(address)
                break
            except OSError:
                if self._socket:
                    self._socket.close()
                if not order:
                    raise
        self._socket.settimeout(self._left())

    def _open_tunnel(self, target: str, variable: str, host: str, port: int, login: str) -> None:
        """Connects to the server through a proxy (RFC 9110 section 9.3.6)."""
        from http.client import HTTPResponse

        self.proxy = f"{_printable(host, 80)}:{port}"
        self._open_socket(host, port)
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n"
        self._socket.sendall(head.encode("ascii"))
        with HTTPResponse(self._socket, method="HEAD") as response:  # like HEAD: without a body
            response.begin()
        if response.status == 407:
            reason = "refused the user name or password" if login else "wants a login"
            hint = f"set {variable}=http://USER:PASSWORD@HOST:PORT"
            raise ConfigError(f"the proxy {self.proxy} {reason}: {hint}")
        if not 200 <= response.status < 300:
            raise ConnectionError(f"the proxy answered HTTP {response.status}")

    def _read(self, response: Any) -> None:
        buffer = bytearray(MAX_BYTES + 1)  # with a chunk size of "-1", read(n) exceeds n
        self.body = bytes(buffer[: response.readinto(buffer)])
        if len(self.body) > MAX_BYTES:
            raise NetworkError("the response is larger than 1 MiB: check the domain")
        if response.length:  # read() does not check the announced length
            raise ConnectionError("the response was cut off")
        try:
            self.json = _parse_json(self.body)
        except ValueError:
            pass
        self.headers = {name.lower(): value.strip() for name, value in response.getheaders()}
        self._left()  # raises: `abandon` may have cut the body off
        self.status = response.status

    def _left(self) -> float:
        """Seconds until the deadline; TimeoutError if there are none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time left")
        return left


def _form_encode(form: Mapping[str, str]) -> bytes:
    """The body of a form; ConfigError if a value is not UTF-8."""
    from urllib.parse import urlencode

    try:
        return urlencode(form).encode("ascii")
    except UnicodeEncodeError:
        pass  # this error holds the value, so the next one is raised outside of it
    raise ConfigError("the client secret, the password or a parameter is not UTF-8: correct it")


# ---- Errors of Auth0 -----------------------------------------------------------------------------

# The root certificates of macOS and Alpine, of Debian, and of Red Hat.
_ROOT_FILES = "/etc/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/cert.pem"
_DOMAIN_HINT = "check domain and proxy, and whether this network has a login page, then try again"
_CLIENT_HINT = "check the client ID and secret (no secret: type Native, Authentication Method None)"
_CLIENT_GRANT_HINT = "authorize the application for that API (Dashboard > Applications > APIs)"
_GRANT_HINT = "enable the grant (Dashboard > the application > Advanced Settings > Grant Types)"
_OVERLOADED = ("server_error", "temporarily_unavailable")  # RFC 6749 section 4.1.2.1
_REMEDIES = {  # parts of an error, in lower case -> what to do; the first match counts
    "|".join(_OVERLOADED): "try again later",
    "no audience": "name the API with --audience, or set a Default Audience for the tenant",
    "client-grant|not authorized to access": _CLIENT_GRANT_HINT,
    "service not |audience": "correct --audience, or create an API with that Identifier",
    "organization": "give an organization of the user with --organization, and --flow browser",
    "blocked|too_many_attempts": "wait, or ask an administrator (Dashboard > User Management)",
    "mfa_required": "a second factor is needed, so log in with --flow browser or --flow device",
    "consent_required": "log in with --flow browser, whose page asks for the consent",
    "not allowed for|unauthorized_client|unsupported_grant_type": _GRANT_HINT,
    "access_denied: unauthorized|client authentication|invalid_client|http_401": _CLIENT_HINT,
}


def _connection_error(request: _HttpRequest, host: str, seconds: float) -> Auth0Error:
    """The error for a request that got no response, with what the user can do."""
    import socket
    from ssl import SSLCertVerificationError

    problem = request.problem
    if isinstance(problem, Auth0Error):
        return problem
    via = f"{host} through the proxy {request.proxy}" if request.proxy else host
    if isinstance(problem, SSLCertVerificationError):
        hint = f"check the clock of this machine; {_DOMAIN_HINT}"
        if problem.verify_code not in (9, 10, 62, 64):  # too early, expired, other name or address
            roots = next(filter(os.path.exists, _ROOT_FILES), "those of the system")
            hint = "set SSL_CERT_FILE to the certificates of your company's proxy, or "
            hint += f"to {roots} if this Python has no root certificates"
        reason = _printable(problem.verify_message, 120)
        return ConfigError(f"the certificate of {via} is not trusted ({reason}): {hint}")
    # At the deadline, `abandon` has caused the problem.
    if time.monotonic() >= request.deadline or isinstance(problem, (TimeoutError, socket.timeout)):
        return NetworkError(f"{via} did not answer within {seconds:.3g} s: try again later")
    if isinstance(problem, (socket.gaierror, UnicodeError)):
        name = request.proxy or host
        return NetworkError(f"the host {name} was not found: check its name and the network")
    # The messages of http.client can contain bytes of the response, which may repeat a secret.
    text = (isinstance(problem, OSError) and _printable(problem, 200)) or "not HTTP"
    return NetworkError(f"{via} can't be reached ({text}): check network and proxy, then try again")


def _with_hint(code: str, description: str, default: str) -> str:
    """An error in the server's words, and what to do about it."""
    text = f"{code}: {description}" if description else code
    for parts, remedy in _REMEDIES.items():
        if any(part in text.lower() for part in parts.split("|")):
            return f"({text}): {remedy}"
    return f"({text}): {default}"


def _mask_secrets(text: str, sent: Mapping[str, str]) -> str:
    """The server's text without the secrets of the request, in case it repeats them."""
    from urllib.parse import quote, quote_plus

    for value in filter(None, map(sent.get, SECRET_PARAMETERS)):
        for spelling in (value, quote(value, ""), quote_plus(value)):
            text = text.replace(spelling, "***")
    return text


def _error_fields(response: _HttpRequest, sent: Mapping[str, str]) -> tuple[str | None, str]:
    """Error code and description of a response, in each of the forms that Auth0 uses."""
    status_code = f"http_{response.status}" if response.status >= 400 else None
    members: Json | None = response.json
    if members is None:
        is_page = b"<" in response.body or "html" in response.headers.get("content-type", "")
        if is_page or not status_code:
            return None, ""
        members = {"message": response.body.decode("utf-8", "replace")}

    def first_text(*names: str) -> str:
        texts = [text for text in map(members.get, names) if text and isinstance(text, str)]
        return _printable(_mask_secrets(texts[0], sent)) if texts else ""

    code = first_text("errorCode", "error", "code") if status_code else first_text("error")
    description = first_text("error_description", "message", "description")
    return code[:60] or status_code, description


def _error_response(response: _HttpRequest, host: str, sent: dict[str, str]) -> Auth0Error | None:
    """The error in a response, or None for the JSON object of a success."""
    status = response.status
    if 300 <= status < 400:
        return NetworkError(f"{host} sent a redirect, which is not followed: {_DOMAIN_HINT}")
    if status >= 500 or status < 200 or status == 407:  # 407: only a proxy sends it
        return NetworkError(f"{host} has a problem (HTTP {status}): try again later")
    code, description = _error_fields(response, sent)
    named = None if code == f"http_{status}" else code
    if status == 429 and code != "slow_down":
        when = f"in {_duration(wait)}" if (wait := response.retry_after()) else "later"
        text = f"HTTP 429: {description}" if description else "HTTP 429"
        return NetworkError(f"{host} limits requests ({text}): try again {when}", named)
    if code is None and response.json is not None:
        return None
    if code is None:
        return NetworkError(f"{host} did not answer like Auth0 (HTTP {status}): {_DOMAIN_HINT}")
    text = _with_hint(code, description, "try again, or ask an administrator of the tenant")
    if code == "unauthorized_client" and sent["client_id"].startswith("tpc_"):  # third-party
        text = f"({code}: {description}): {_CLIENT_GRANT_HINT}"
    if code in _OVERLOADED:
        return NetworkError(f"Auth0 refused {text}", code)
    return OAuthError(f"Auth0 refused {text}", named, description, status)


# ---- Tenant --------------------------------------------------------------------------------------


class _Tenant:
    """The endpoints of one domain, for one client.

    Args:
        domain: as returned by `_normal_domain`.
        client_id: of the application.
        setting: returns `client_secret`, `client_assertion` (called for each request, returns a
            new signed JWT, RFC 7523) and `trace` (called with one line for each request).
    """

    def __init__(self, domain: str, client_id: str, setting: Callable[[str], Any]) -> None:
        self.client_id = client_id
        self.origin = domain if "://" in domain else f"https://{domain}"
        self.issuer = self.origin + "/"
        self._host = self.origin.partition("://")[2]
        names = ("client_secret", "client_assertion", "trace")
        self._secret, self._assertion, self._trace = map(setting, names)

    def post(self, path: str, form: Form, retry: str, seconds: float | None = None) -> Json:
        """POSTs a form with the client's authentication (RFC 6749 section 2.3.1: in the body).

        Args:
            path: of the endpoint.
            form: parameters; those that are None are left out.
            retry: when to repeat a failed request: `never`; `if_unsent`, if the server cannot have
                received it; `once_if_lost`, also once if the connection broke before the response;
                `always`, after each failure that may be temporary. All but `never` repeat it
                after 429: the server has not processed it.
            seconds: for everything, retries included; REQUEST_SECONDS if None.

        Returns:
            The JSON object of a success.

        Raises:
            OAuthError: Auth0 refused the request.
            NetworkError: no response, or one that is not from a token endpoint.
            ConfigError: a proxy, a certificate or a setting that has to be corrected first.
        """
        sent = {name: value for name, value in form.items() if value is not None}
        response = self.send(path, sent, retry, seconds)
        if path == "/oauth/revoke" and 200 <= response.status < 300:
            return {}  # the body means nothing (RFC 7009 section 2.2)
        error = _error_response(response, self._host, sent)
        if error:
            error.retry_after = response.retry_after()
            raise error
        return response.json or {}

    def get(self, path: str) -> _HttpRequest:
        """GETs a JSON object; NetworkError for any other response."""
        response = self.send(path)
        if response.status != 200 or response.json is None:
            raise NetworkError(
                f"{self._host} sent no {path} (HTTP {response.status}): {_DOMAIN_HINT}"
            )
        return response

    def keys(self) -> list[Json]:
        """The tenant's public signing keys that this program can use (RFC 7517)."""
        keys = (self.get("/.well-known/jwks.json").json or {}).get("keys")
        if not _is_array(keys):
            raise NetworkError(f"{self._host} did not return its signing keys: try again later")
        return _usable_keys(keys)

    def send(
        self,
        path: str,
        form: dict[str, str] | None = None,
        retry: str = "always",
        seconds: float | None = None,
    ) -> _HttpRequest:
        """GETs, or POSTs a form; returns any response. Repeats a request as `post` describes."""
        from http.client import IncompleteRead
        from ssl import SSLCertVerificationError

        seconds = seconds or REQUEST_SECONDS
        deadline = time.monotonic() + seconds
        pauses = [] if retry == "never" else [0.3, 1.0]
        while True:
            response = self._send_once(path, form, deadline)
            if response.status:
                repeat = response.status == 429 or (retry == "always" and response.status >= 500)
            elif isinstance(response.problem, (Auth0Error, SSLCertVerificationError)):
                repeat = False  # it would fail in the same way
            elif retry == "once_if_lost" and response.sent:
                repeat = isinstance(response.problem, (ConnectionError, IncompleteRead))
                retry = "if_unsent"
            else:
                repeat = retry == "always" or not response.sent
            wait = max(pauses.pop(0), response.retry_after()) if repeat and pauses else 0
            if not wait or time.monotonic() + wait > deadline:
                break
            time.sleep(wait)
        if not response.status:
            raise _connection_error(response, self._host, seconds) from None
        return response

    def _send_once(self, path: str, form: dict[str, str] | None, deadline: float) -> _HttpRequest:
        """Sends a request, and waits until the deadline.

        It adds `client_id` and the authentication to the form.
        """
        from threading import Thread

        method, body = "GET", None
        headers = {"User-Agent": f"auth0_cli/{__version__}", "Connection": "close"}
        headers["Accept"] = "application/json"
        if form is not None:
            form["client_id"] = self.client_id
            if path == "/oauth/device/code":
                pass  # Auth0 answers 403 there if there is a secret
            elif self._assertion:
                form.update(client_assertion_type=JWT_BEARER, client_assertion=self._assertion())
                if not _is_token(form["client_assertion"]):
                    raise ConfigError("client_assertion has to return a JWT, as a str")
            elif self._secret:
                form["client_secret"] = self._secret
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            method, body = "POST", _form_encode(form)
        request = _HttpRequest(self.origin, deadline)
        started = time.monotonic()
        thread = Thread(target=request.run, args=(method, path, body, headers))
        try:
            thread.daemon = True
            thread.start()
        except RuntimeError:  # at exit, at the limit of threads, or in a subinterpreter
            request.run(method, path, body, headers)
        try:
            while (left := deadline - time.monotonic()) > 0 and thread.is_alive():
                thread.join(min(0.5, left))  # a longer wait could not be interrupted on Windows
        finally:
            request.abandon()
        took = (time.monotonic() - started) * 1000
        line = f"{method} {path.partition('?')[0]} {request.status or 'no response'} {took:.0f} ms"
        try:
            if "logging" in sys.modules:  # else nobody listens
                sys.modules["logging"].getLogger("auth0_cli").debug(line)
            if self._trace:
                self._trace(line)
        except Exception:  # noqa: BLE001 - the response, with a rotated token, must not be lost
            pass
        return request


# ---- ID token ------------------------------------------------------------------------------------

# The DER encoding of DigestInfo for SHA-256, up to the digest (RFC 8017 section 9.2, note 1).
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")


def _rsa_numbers(key: Json) -> tuple[int, int] | None:
    """Modulus (2,048 to 8,192 bits) and exponent (65537 or more) of a key; None for others."""
    try:
        n, e = (int.from_bytes(_b64url_decode(key[name]), "big") for name in ("n", "e"))
    except (KeyError, ValueError, AttributeError):
        return None
    is_sane = 2048 <= n.bit_length() <= 8192 and n % 2 and 65537 <= e < 1 << 32 and e % 2
    return (n, e) if is_sane else None


def _usable_keys(keys: list[Any]) -> list[Json]:
    """The RSA keys for RS256 among those of a JWKS: at most 32, to fit in a session file."""
    return [
        {name: key.get(name, "") for name in ("kty", "kid", "n", "e")}
        for key in keys
        if _is_object(key)
        and (key.get("kty"), key.get("use", "sig")) == ("RSA", "sig")
        and key.get("alg", "RS256") == "RS256"
        and type(key.get("kid", "")) is str
        and len(key.get("kid", "")) <= 1024
        and _rsa_numbers(key)
    ][:32]


def _verify_rs256(key: Json, signed: bytes, signature: bytes) -> bool:
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 8.2.2).

    The one valid block is built and compared whole: nothing of the signature is parsed, so no
    padding can be lenient.
    """
    from hashlib import sha256
    from hmac import compare_digest

    n, e = _rsa_numbers(key) or (0, 0)  # for (0, 0) no signature is valid
    size = (n.bit_length() + 7) // 8
    s = int.from_bytes(signature, "big")
    if len(signature) != size or s >= n:
        return False
    digest = _SHA256_PREFIX + sha256(signed).digest()
    expected = b"\x00\x01" + b"\xff" * (size - 3 - len(digest)) + b"\x00" + digest
    return compare_digest(pow(s, e, n).to_bytes(size, "big"), expected)


def _require(holds: bool, claim: str, problem: str, hint: str = "log in again") -> None:
    """InvalidToken unless it holds; the message has the form `reason: hint`."""
    if not holds:
        raise InvalidToken(f"the ID token fails the check of {claim} ({problem}): {hint}", claim)


class _IdToken:
    """An ID token taken apart (OIDC Core section 2), to be checked before it is believed.

    The numbers in comments are the steps of OIDC Core section 3.1.3.7. Step 1, decryption, does
    not exist here. The algorithm (7, 8) is checked first, and the signature (6) last, because
    that may need a request.

    Raises:
        InvalidToken: it is not a signed JWT.
    """

    def __init__(self, token: Any) -> None:
        try:
            header, payload, signature = token.split(".")
            self.header = _parse_json(_b64url_decode(header))
            self.claims = _parse_json(_b64url_decode(payload))
            self._signed = f"{header}.{payload}".encode("ascii"), _b64url_decode(signature)
        except (ValueError, AttributeError):  # also five parts: an encrypted token
            raise InvalidToken("the ID token is not a signed JWT: log in again", "form") from None

    def check_login(self, tenant: _Tenant, response: Json, params: Form, nonce: str | None) -> None:
        """All checks of a login but the signature; InvalidToken names the claim that fails.

        Args:
            tenant: the tenant that sent it.
            response: the token response that holds it.
            params: the parameters of the login; `organization` and `max_age` are checked.
            nonce: the nonce of the login, if it had one.
        """
        from hashlib import sha256

        self.check_parties(tenant)
        now, hint = time.time(), "check the clock of this machine"
        _require(self._seconds("exp") >= now - LEEWAY, "exp", "it has expired", hint)  # 9
        future = now + LEEWAY
        _require(self._seconds("iat") <= future, "iat", "it was issued in the future", hint)  # 10
        _require(self._seconds("nbf", 0) <= future, "nbf", "it is not valid yet", hint)
        is_same = nonce is None or self.claims.get("nonce") == nonce  # 11
        _require(is_same, "nonce", "it belongs to a different login")
        max_age = params.get("max_age")
        if max_age is not None:  # 13; 0 is a value too (section 3.1.2.1)
            is_recent = self._seconds("auth_time") + int(max_age) >= now - LEEWAY
            _require(is_recent, "auth_time", "the login is older than max_age allows")
        # Section 3.1.3.8: the left half of the hash
        half = _b64url(sha256(response["access_token"].encode("ascii")).digest()[:16])
        is_same = self.claims.get("at_hash", half) == half
        _require(is_same, "at_hash", "it belongs to a different access token")
        self.check_organization(params["organization"])

    def check_refresh(self, tenant: _Tenant, record: Record) -> None:
        """The checks of OIDC Core section 12.2 that a client has to make.

        The times are not checked: that section has rules on them for the provider only, and a
        wrong clock of this machine would end a good session.
        """
        self.check_parties(tenant)
        is_same = record["user"].get("sub") in (None, "", self.claims["sub"])
        _require(is_same, "sub", "it is for another user than the session")
        nonce = _decode_claims(record["id_token"]).get("nonce")
        is_same = nonce is None or self.claims.get("nonce", nonce) == nonce
        _require(is_same, "nonce", "it belongs to a different login")
        self.check_organization(record["organization"])

    def check_parties(self, tenant: _Tenant) -> None:
        """Algorithm, issuer, audience, subject; InvalidToken names the claim that fails."""
        alg, hint = self.header.get("alg"), "correct the client ID, or log in again"
        place = "Dashboard > the application > Advanced Settings > OAuth"
        problem = f"it is signed with {_printable(alg, 20)}, not RS256"
        _require(alg == "RS256", "alg", problem, f"choose RS256 ({place})")  # 7, 8
        # RFC 7515 section 4.1.11
        _require("crit" not in self.header, "crit", "it needs an extension", "update this program")
        iss, sub, aud, azp = map(self.claims.get, ("iss", "sub", "aud", "azp"))
        problem = f"it is of {_printable(iss, 80)}, not {tenant.issuer}"
        _require(iss == tenant.issuer, "iss", problem, "correct the domain")  # 2
        audiences: list[Any] = aud if _is_array(aud) else [aud]
        is_ours = tenant.client_id in audiences and all(type(a) is str for a in audiences)
        _require(is_ours, "aud", "it is for another client", hint)  # 3
        is_ours = azp == tenant.client_id or (azp is None and len(audiences) == 1)
        _require(is_ours, "azp", "it is for another client", hint)  # 4, 5
        _require(type(sub) is str and 0 < len(sub) <= 255, "sub", "it names no user")  # section 2

    def check_organization(self, organization: str | None) -> None:
        """InvalidToken unless it is for the organization that the login asked for, if any."""
        if organization is not None:
            by_id = organization.startswith("org_")
            name, value = ("org_id", organization) if by_id else ("org_name", organization.lower())
            is_same = self.claims.get(name) == value
            _require(is_same, name, f"it is not for {_printable(value, 60)}", "log in again there")

    def check_signature(self, keys: list[Json], fetch: Callable[[], list[Json]] | None) -> None:
        """InvalidToken unless one of the keys has signed it. A key in its own header is not used.

        Args:
            keys: the known keys of the tenant; the result of `fetch` replaces them in this list.
            fetch: requests the tenant's keys. It is called once, if no known key has its `kid`.
        """
        kid = self.header.get("kid")
        while True:  # without a `kid`, a single key counts
            named = [key for key in keys if key["kid"] == kid or (kid is None and len(keys) == 1)]
            if named or not fetch:
                break
            keys[:], fetch = fetch(), None
        _require(bool(named), "kid", "the tenant has no such key")
        is_valid = any(_verify_rs256(key, *self._signed) for key in named)
        _require(is_valid, "signature", "it is wrong")

    def _seconds(self, claim: str, default: float | None = None) -> float:
        value: Any = self.claims.get(claim, default)
        _require(_is_number(value), claim, "it is missing or not a number")
        return float(value)


def _decode_claims(token: str | None) -> Json:
    """The claims of a signed JWT, without any check; {} for any other value."""
    try:
        return _IdToken(token).claims
    except InvalidToken:
        return {}


# ---- Token requests ------------------------------------------------------------------------------


def _malformed(problem: str) -> OAuthError:
    return OAuthError(f"Auth0's response {problem}: try again, or report it")


def _lifetime(expires_in: Any) -> float:
    """The seconds of an `expires_in`; an hour if the server sent none."""
    if expires_in is None:
        return 3600.0
    if type(expires_in) is str and expires_in.isascii() and expires_in.isdigit():
        expires_in = int(expires_in[:12])
    seconds = float(expires_in) if _is_number(expires_in) else 0.0
    if seconds <= 0:
        raise _malformed("holds an expires_in that is no number of seconds")
    return min(seconds, MAX_LIFETIME)


def _check_token_response(response: Json, sent_at: float) -> Json:
    """A token response (RFC 6749 section 5.1) with every member that is used checked.

    `obtained_at` and `expires_at` are added, counted from before the request was sent.

    Raises:
        OAuthError: a member is missing or of the wrong type.
    """
    if not _is_token(response.get("access_token")):
        raise _malformed("holds no usable access_token")
    kind = str(response.get("token_type"))
    if kind.lower() != "bearer":
        hint = "it is not an access token for an API"
        if kind.lower() == "dpop":
            hint = "switch off sender constraining for this application"
        raise _malformed(f"holds a token of type {_printable(kind, 20)}, not Bearer ({hint})")
    if response.get("refresh_token") is not None and not _is_token(response["refresh_token"]):
        raise _malformed("holds no usable refresh_token")
    if not isinstance(response.get("scope"), (str, type(None))):
        raise _malformed("holds a scope that is not a string")
    expires_at = sent_at + _lifetime(response.get("expires_in"))
    return {**response, "obtained_at": sent_at, "expires_at": expires_at}


def _request_token(
    tenant: _Tenant, form: Form, retry: str = "if_unsent", seconds: float | None = None
) -> Json:
    """Sends a token request (RFC 6749 section 3.2), and returns its response once it is checked.

    Raises:
        OAuthError: a refusal, or what `_check_token_response` raises.
    """
    sent_at = time.time()
    return _check_token_response(tenant.post("/oauth/token", form, retry, seconds), sent_at)


def _is_token_for(response: Json, audience: str) -> bool:
    """Whether a token is for the API. An encrypted one counts, as only its API can read it."""
    token = response["access_token"]
    is_encrypted = token.count(".") == 4  # a JWE (RFC 7516 section 7.1)
    return is_encrypted or response.get("resource") == audience or audience in _audiences_of(token)


def _password_login(
    tenant: _Tenant, wanted: Form, username: str | None, password: Password, realm: str | None
) -> Json:
    """The password grant, discouraged (RFC 9700 section 2.4), or Auth0's password-realm."""
    _warn("the password flow is discouraged (RFC 9700): prefer --flow browser or --flow device")
    form = {name: wanted[name] for name in ("audience", "scope")}
    form.update(grant_type=PASSWORD_REALM if realm else "password", username=username, realm=realm)
    form["password"] = password() if callable(password) else password
    if not username or not form["password"]:
        raise ConfigError("the password flow needs a username and a password")
    return _request_token(tenant, form, "never")  # a second try would count as a second guess


def _revoke(tenant: _Tenant, refresh_token: str) -> Auth0Error | None:
    """Revokes a refresh token (RFC 7009); the reason, if that failed."""
    try:
        tenant.post("/oauth/revoke", {"token": refresh_token}, "always")
        return None
    except Exception as problem:  # whatever it was, the session is deleted
        if _is_from_signal_handler(problem):
            raise
        error = problem if isinstance(problem, Auth0Error) else Auth0Error(type(problem).__name__)
    hint = "end it in the Dashboard (User Management > the user > Authorized Applications)"
    error.args = (f"logged out here, but the token was not revoked ({error}): {hint}",)
    return error


# ---- Browsers ------------------------------------------------------------------------------------

# Commands that open a page on a desktop, best first.
_OPENERS = (
    "wslview;xdg-open;gio open;kfmclient openURL;x-www-browser;firefox;google-chrome;chromium"
)
_TEXT_BROWSERS = "www-browser links links2 elinks lynx w3m browsh carbonyl".split()
_WINDOWS_BROWSER = ["the default browser"]  # not a command: `_start_file` opens it


def _find_browsers() -> list[list[str]]:
    """Commands that open a page, best first, with `%s` for its URL.

    The webbrowser module would run `xdg-settings`, which can hang. A text browser ends the list:
    its user wants no other, and it would need this terminal.
    """
    from shlex import split
    from shutil import which

    has_display = any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    desktop = _OPENERS.split(";") if has_display else ["wslview"]
    system = {"darwin": ["/usr/bin/open"], "win32": []}.get(sys.platform, desktop)
    found: list[list[str]] = []
    for entry in [*os.environ.get("BROWSER", "").split(os.pathsep), *system]:
        try:
            command = [entry] if which(entry) else split(entry.rstrip(" &").replace(os.sep, "/"))
        except ValueError:  # a quotation mark is missing
            continue
        path = (which(command[0]) if command else None) or ""
        if not path or path.lower().endswith((".bat", ".cmd")):  # cmd.exe would run what follows &
            continue
        if os.path.basename(command[0]) in _TEXT_BROWSERS:
            return found
        found.append(command if "%s" in entry else [*command, "%s"])
    return [*found, _WINDOWS_BROWSER] if sys.platform == "win32" else found


def _has_local_display() -> bool:
    """Whether a browser opened on this machine would be seen by the user."""
    if any(map(os.environ.get, "SSH_CONNECTION SSH_CLIENT SSH_TTY".split())):
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    in_container = os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")
    signs = "DISPLAY WAYLAND_DISPLAY WSL_DISTRO_NAME BROWSER".split()
    return not in_container and any(map(os.environ.get, signs))


def _start_file(url: str) -> None:
    """Lets Windows open a page. The browser inherits the environment of this process."""
    name = ENVIRONMENT["client_secret"]
    secret = os.environ.pop(name, None)
    try:
        if sys.platform == "win32":
            os.startfile(url)  # noqa: S606 - a web page, never a program
    finally:
        if secret is not None:
            os.environ[name] = secret


def _open_browser(url: str) -> bool:
    """Opens a web page without a shell; False if no browser starts.

    If a command fails within a second, the next one is tried.
    """
    from subprocess import DEVNULL, Popen, TimeoutExpired
    from threading import Thread

    if not url.startswith(("https://", "http://")):  # Windows would run a program
        return False
    environ = dict(os.environ)
    environ.pop(ENVIRONMENT["client_secret"], None)
    if getattr(sys, "frozen", False):  # a browser needs other libraries than PyInstaller's
        environ.pop("LD_LIBRARY_PATH", None)
        if path := environ.pop("LD_LIBRARY_PATH_ORIG", None):
            environ["LD_LIBRARY_PATH"] = path
    for command in _find_browsers():
        try:
            if command is _WINDOWS_BROWSER:
                _start_file(url)
                return True
            process = Popen(  # noqa: S603 - no shell
                [argument.replace("%s", url) for argument in command],
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
                env=environ,
                start_new_session=True,  # so that Ctrl-C here does not end the browser
            )
        except (OSError, RuntimeError):  # the latter in an isolated subinterpreter
            continue
        try:
            if process.wait(1) == 0:
                return True
        except TimeoutExpired:  # it is the browser itself
            Thread(target=process.wait, daemon=True).start()
            return True
    return False


# ---- Loopback listener (RFC 8252) ----------------------------------------------------------------

_STYLE = """
:root{color-scheme:light dark}
body{margin:0;min-height:100vh;display:grid;place-items:center;background:Canvas;color:CanvasText;
font:1.1rem/1.6 system-ui,sans-serif}
main{max-width:32rem;padding:2rem;text-align:center;overflow-wrap:anywhere}
h1{font-size:1.6rem;font-weight:600;margin:0}
p{margin:.5rem 0 0;opacity:.8}
"""
_PAGE_HEADERS = {
    # The hash is that of _STYLE; a test compares them.
    "Content-Security-Policy": "default-src 'none'; "
    "style-src 'sha256-UT6smfkX8MwZKTydfPbB5u/6FZCl451HIbp5M5Dx+A8='; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}
_RESPONSE_PARAMETERS = "state code error error_description iss".split()
_PAGES = {  # by HTTP status
    303: ("The response has arrived", "Return to the terminal."),
    400: ("This did not log you in", "It is not the response that the login waits for."),
    403: ("Another account started this login", "Paste this page's address in its terminal."),
    404: ("Nothing is here", "This address is for a login only."),
    410: ("The login already has a response", "Return to the terminal, which says how it ended."),
}


def _page(title: str, *texts: str) -> bytes:
    """A quiet page for the browser: no script, no text that is not escaped."""
    from html import escape

    title = escape(title)
    body = f"<h1>{title}</h1>" + "".join(f"<p>{escape(text)}</p>" for text in texts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><main>{body}</main></body></html>\n"
    ).encode()


def _is_of_other_account(connection: Any, peer: tuple[str, int]) -> bool:
    """Whether the other end of a connection belongs to another account of this machine (Linux).

    Another account can read the URL of the login, and so its `state`, in the process list.
    The kernel's tables list the account of each end; root, which can do anything, is not refused.
    """
    import re
    from contextlib import suppress
    from socket import IPPROTO_TCP, TCP_INFO, inet_aton

    tables = ""
    for name in ("tcp", "tcp6"):  # an IPv6 socket reaches 127.0.0.1 as well
        with suppress(OSError), open(f"/proc/net/{name}", encoding="ascii") as file:
            tables += file.read()
    ends = (peer, connection.getsockname())
    addresses = (f"{int.from_bytes(inet_aton(h), sys.byteorder):08X}:{p:04X}" for h, p in ends)
    row = re.search(r" \w*".join(addresses) + r"(?: +\S+){4} +(\d+) +\d+ +(\d+)", tables)
    if row:
        user, inode = row.groups()  # inode 0: its owner is unknown, because it was closed
        return inode == "0" or user not in ("0", str(os.getuid()), os.environ.get("SUDO_UID"))
    established = connection.getsockopt(IPPROTO_TCP, TCP_INFO, 1) == b"\1"
    # Not listed: a closed connection is refused; an open one is from outside this Linux (WSL).
    return bool(tables) and not established


def _make_server(listener: _Listener, port: int) -> ThreadingTCPServer:
    """The HTTP server of a listener; OSError if the port is busy."""
    from http.server import BaseHTTPRequestHandler
    from socketserver import ThreadingTCPServer

    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds that a connection may stay silent

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if self.headers.get_all("Host") != [listener.host]:  # DNS rebinding by a web page
                self.send_page(400)
            elif listener.connections[self.connection]:
                self.send_page(403)
            elif path == listener.result_path and not query:
                self.send_page(200, listener.result)
                listener.page_shown.release()
            elif path != "/callback":
                self.send_page(404)
            elif (status := listener.accept_response(query)) != 303:
                self.send_page(status)
            else:
                listener.result_ready.wait()
                self.send_page(303, Location=listener.result_path)

        def send_page(self, status: int, page: bytes = b"", **headers: str) -> None:
            """Sends a page, by default that of the status, with the headers of every page."""
            page = page or _page(*_PAGES.get(status, _PAGES[404]))
            self.send_response_only(status)
            headers = {**_PAGE_HEADERS, "Content-Length": str(len(page)), **headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(page)

        def send_error(self, code: int, *_: object, **__: object) -> None:
            """Refuses other methods than GET. HTTP/0.9 and other protocols get no page.

            The server's own message is not sent, since it can repeat parts of the request.
            """
            if self.request_version != "HTTP/0.9":
                self.send_page(405 if code == 501 else code, Allow="GET")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Logs nothing: a request line contains the code."""

    class Server(ThreadingTCPServer):
        daemon_threads = True  # an idle connection must not delay the end of a login
        request_queue_size = 128
        allow_reuse_address = os.name == "posix"  # elsewhere it lets two programs share a port

        def process_request(self, request: Any, client_address: Any) -> None:
            """Closes a connection over the limit: 64 open ones, 8 of other accounts."""
            is_other = sys.platform == "linux" and _is_of_other_account(request, client_address)
            listener.connections[request] = is_other
            if len(listener.connections) > (8 if is_other else 64):
                return self.shutdown_request(request)
            return super().process_request(request, client_address)

        def shutdown_request(self, request: Any) -> None:
            """Closes a connection, which then no longer counts."""
            listener.connections.pop(request, None)
            super().shutdown_request(request)

        def handle_error(self, request: object, client_address: object) -> None:
            """Ignores a connection that breaks."""

    return Server(("127.0.0.1", port), Handler)


class _Listener:
    """The loopback end of one login: only a response with its `state` can end the wait.

    Any program of this machine can connect (RFC 8252 section 8.3). Every other request gets a
    short response in a thread of its own, and changes nothing. At the end of its `with` block it
    shows the browser the result.

    Args:
        ports: the ports to choose from, at random.
        program: the host program, if it has set a `login_command`. The result page names it, and
            gives no advice for the Dashboard.

    Raises:
        ConfigError: every port is busy, or no thread can be started.
    """

    def __init__(self, ports: Sequence[int], program: str = "") -> None:
        import random
        from contextlib import suppress
        from secrets import token_urlsafe
        from threading import Event, Semaphore

        self.program = program
        # Each has 256 bits in 43 characters (RFC 7636 section 7.1).
        self.state, self.nonce, self.code_verifier = (token_urlsafe(32) for _ in range(3))
        self.responses: list[dict[str, str]] = []  # the first one counts
        self.response_arrived, self.result_ready, self.page_shown = Event(), Event(), Semaphore(0)
        # Only the senders of the response learn the path of the result page.
        self.result, self.result_path = b"", f"/{token_urlsafe(32)}"
        self.connections: dict[Any, bool] = {}  # the open ones; True: of another account
        self.callback_urls = _callback_urls(ports)
        for port in random.sample(ports, len(ports)):
            with suppress(OSError):
                self._server = _make_server(self, port)
                break
        else:
            raise ConfigError(
                "every callback port is in use: end the other login, or choose ports with --port "
                f"and register them as Allowed Callback URLs: {self.callback_urls}"
            )
        host = f"127.0.0.1:{self._server.server_address[1]}"
        self.host = host.removesuffix(":80")  # as a browser spells it
        self.redirect_uri = f"http://{host}/callback"

    def __enter__(self) -> _Listener:
        from threading import Thread

        try:
            Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        except RuntimeError:
            self._server.server_close()
            raise ConfigError("this process can start no thread: use --flow device") from None
        return self

    def __exit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        """Sends the browser a page with the result, and waits up to 2 s until it is there."""
        try:
            texts = ["You are logged in"]
            if problem:
                # The text of any other error can contain a secret.
                text = "the login was stopped"
                if isinstance(problem, Auth0Error):
                    hidden = self.program and "Dashboard" in problem.hint
                    text = problem.reason if hidden else str(problem)
                texts = ["You are not logged in", f"{text[:1].upper()}{text[1:]}."]
            place = self.program or "the terminal"
            self.result = _page(*texts, f"Close this page and return to {place}.")
            self.result_ready.set()
            end = time.monotonic() + 2
            for _ in self.responses:
                self.page_shown.acquire(timeout=max(0, end - time.monotonic()))
        finally:
            self._server.shutdown()
            self._server.server_close()

    def end_wait(self, response: dict[str, str], by_browser: bool = False) -> bool:
        """Ends the wait; False if another response has ended it. {} ends it without a response."""
        self.responses.append(response)  # atomic: of two threads one is the first
        self.response_arrived.set()
        accepted = self.responses[0] == response  # also if a browser sends it twice
        if not (accepted and by_browser):
            self.page_shown.release()  # no browser waits for the result page
        return accepted

    def accept_pasted(self, address: str) -> bool:
        """Accepts the address that a browser ended on, or its query; False for another address."""
        address = address.strip(" \t<>[]()\"'").partition("#")[0]
        return self.accept_response(address.partition("?")[2] or address, by_browser=False) == 303

    def accept_response(self, query: str, by_browser: bool = True) -> int:
        """Ends the wait with the first authorization response (RFC 6749 section 4.1.2).

        Returns the HTTP status: 303; 400 if it is no response to this login; 410 after another one.
        """
        from hmac import compare_digest
        from urllib.parse import parse_qsl

        pairs = parse_qsl(query, keep_blank_values=True, errors="replace")
        used = [pair for pair in pairs if pair[0] in _RESPONSE_PARAMETERS]
        response = dict(used)
        if len(response) != len(used):  # a parameter occurs twice
            return 400
        state, code, error = (response.get(name, "") for name in ("state", "code", "error"))
        if not compare_digest(state.encode("utf-8", "replace"), self.state.encode()):
            return 400
        if bool(code) == bool(error) or "\ufffd" in code:  # not UTF-8
            return 400
        return 303 if self.end_wait(response, by_browser) else 410


# ---- Browser flow (RFC 6749 section 4.1, RFC 7636) -----------------------------------------------


def _check_response(response: Mapping[str, str], issuer: str) -> None:
    """Raises the error of an authorization response, whose `state` is right."""
    if response.get("iss", issuer) != issuer:  # RFC 9207 section 2.4
        sender = _printable(response["iss"], 80)
        raise LoginFailed(f"the response is from {sender}, not from {issuer}: log in again")
    if not response.get("code"):
        error = _printable(response["error"], 60)
        description = _printable(response.get("error_description", ""))
        hint = _with_hint(error, description, "log in again, or ask an administrator of the tenant")
        kind = NetworkError if error in _OVERLOADED else LoginFailed
        raise kind(f"the login was refused {hint}", error)


def _wait_for_response(
    listener: _Listener, timeout: float, prompt: _Prompt, can_use_code: bool
) -> dict[str, str] | None:
    """The authorization response, from the browser or pasted; None if the user types `c`."""
    urls = listener.callback_urls
    if "PORT" in urls:  # Auth0 compares the port
        urls = f"{listener.redirect_uri}, or better the URLs of fixed ports, given with --port"
    register = (
        'if the browser showed "Unknown client", correct the client ID; if it showed "Callback URL '
        'mismatch", register this line under Allowed Callback URLs (Dashboard > the application > '
        f"Settings): {urls}"
    )
    start = time.monotonic()
    hint_at = start + 45
    while not listener.responses:
        now = time.monotonic()
        if now >= start + timeout and listener.end_wait({}):
            raise LoginFailed(
                f"no response came from the browser within {timeout:.0f} s: {register}"
            )
        line = prompt.poll_line(start + timeout)
        if can_use_code and line and line.lower() in ("c", "code"):
            if listener.end_wait({}):
                prompt.say("Stopped waiting for the page above.\n")
                return None
        elif line and not listener.accept_pasted(line):
            prompt.say("That is not the address that this login ended on: copy it whole.")
        if now >= hint_at:
            hint_at = start + timeout
            code = "\nOr type c and Enter to use a code on another device." * can_use_code
            what = "" if listener.program else f": {register}"
            prompt.say(f"No page has come back yet{what}{code}")
        # A longer wait could not be interrupted on Windows.
        listener.response_arrived.wait(min(0.25, start + timeout - now))
    prompt.end()
    return listener.responses[0]


def _browser_login(
    tenant: _Tenant, parameters: Form, listener: _Listener, timeout: float, prompt: _Prompt
) -> Json | None:
    """The token response of the authorization code grant with PKCE.

    None if the user prefers a device code.
    """
    from hashlib import sha256

    query = {
        "response_type": "code",
        "client_id": tenant.client_id,
        "redirect_uri": listener.redirect_uri,
        "state": listener.state,
        "nonce": listener.nonce,
        "code_challenge": _b64url(sha256(listener.code_verifier.encode("ascii")).digest()),
        "code_challenge_method": "S256",
        **{name: value for name, value in parameters.items() if value is not None},
    }
    event = {
        "event": "authorize",
        "url": f"{tenant.origin}/authorize?{_form_encode(query).decode('ascii')}",
        "redirect_uri": listener.redirect_uri,
        "expires_in": int(timeout),
    }
    can_use_code = parameters["organization"] is None
    prompt.show(event, can_use_code)
    response = _wait_for_response(listener, timeout, prompt, can_use_code)
    if response is None:
        return None
    _check_response(response, tenant.issuer)
    form = {
        "grant_type": "authorization_code",
        "code": response["code"],
        "code_verifier": listener.code_verifier,
        "redirect_uri": listener.redirect_uri,
    }
    return _request_token(tenant, form)


# ---- Device flow (RFC 8628) ----------------------------------------------------------------------


def _checked_url(value: object) -> str:
    """A URL of the server that may be shown and opened: https, or http to this machine."""
    import re

    origin = r"(https://[\w.-]+|http://(127\.0\.0\.1|localhost|\[::1\]))(:\d+)?"
    if _is_token(value) and re.fullmatch(origin + r'([/?#][^@"<>\\^`{|}]{,2000})?', str(value)):
        return str(value)
    raise _malformed("holds a verification_uri that is no https address")


_PENDING: Json = {  # a pending login: the schema that a stored one is checked against
    "device_code": None,
    "prompt": {},  # for the user, as `login --json` prints it
    "interval": 0,  # seconds between two polls
    "polled_at": 0,  # epoch seconds of the last response
    "wait": 0,  # seconds from then until the next poll
    "expires_at": 0,  # epoch seconds
    "wanted": {},  # the parameters of the request, added when it is stored
}


def _is_grant_off(problem: OAuthError) -> bool:
    off = problem.error in ("unauthorized_client", "unsupported_grant_type")
    return off or "not allowed" in problem.description


def _device_error(problem: OAuthError) -> Auth0Error:
    """The error to raise for a refusal of a device login (section 3.5)."""
    code, description = problem.error or "", problem.description
    if code in ("expired_token", "invalid_grant"):
        return LoginFailed("the code has expired or was used: log in again", code)
    if code == "access_denied" and description.lower() != "unauthorized":
        hint = _with_hint(code, description, "log in again to be asked once more")
        return LoginFailed(f"the login was refused {hint}", code)
    if _is_grant_off(problem):
        message = (
            f"Auth0 refused the device flow ({code}: {description}): enable the grant Device Code "
            "(Dashboard > the application > Advanced Settings > Grant Types), or use --flow browser"
        )
        return OAuthError(message, code, description, problem.status)
    return problem


def _request_device_code(tenant: _Tenant, parameters: Form) -> Json:
    """Starts a device login (section 3.1), and returns it as `_PENDING` describes."""
    asked_at = time.time()
    try:
        response = tenant.post("/oauth/device/code", parameters, "always")
    except OAuthError as problem:
        raise _device_error(problem) from None
    user_code, device_code = response.get("user_code"), response.get("device_code")
    if not user_code or _printable(user_code, 64) != user_code:
        raise _malformed("holds no user_code that can be shown")
    if not _is_token(device_code):
        raise _malformed("holds no device_code")
    page = _checked_url(response.get("verification_uri"))
    complete = _checked_url(response.get("verification_uri_complete") or page)
    interval = response.get("interval", 5)
    if not _is_number(interval) or interval < 0:
        raise _malformed("holds an interval that is no number of seconds")
    interval = min(max(interval, 1), 300)
    lifetime = _lifetime(response.get("expires_in", 900))
    prompt = {
        "event": "device_code",
        "user_code": user_code,
        "verification_uri": page,
        "verification_uri_complete": complete,
        "expires_in": int(lifetime),
    }
    return {
        "device_code": device_code,
        "prompt": prompt,
        "interval": interval,
        "polled_at": time.time(),
        "wait": interval,
        "expires_at": asked_at + lifetime,
    }


def _poll_device_code(tenant: _Tenant, pending: Json) -> Json | None:
    """One token request of a device login (section 3.4); None while the user has not answered."""
    form = {"grant_type": DEVICE_CODE, "device_code": pending["device_code"]}
    try:
        return _request_token(tenant, form, "never")
    except NetworkError as problem:  # section 3.5: back off
        wait = max(min(2 * pending["wait"], 60), pending["interval"])
        pending["wait"] = max(wait, problem.retry_after or 0)
        raise
    except OAuthError as problem:
        if problem.error == "slow_down":
            pending["interval"] += 5
        elif problem.error != "authorization_pending":
            raise _device_error(problem) from None
        pending["wait"] = max(pending["interval"], problem.retry_after or 0)
        return None
    finally:
        pending["polled_at"] = time.time()


def _device_login(tenant: _Tenant, parameters: Form, timeout: float, prompt: _Prompt) -> Json:
    """The token response of the device authorization grant."""
    pending = _request_device_code(tenant, parameters)
    lifetime = pending["prompt"]["expires_in"]
    seconds = int(min(lifetime, timeout))
    prompt.show({**pending["prompt"], "expires_in": seconds})
    deadline = time.monotonic() + seconds
    hint_shown = False
    while True:
        left, wait = deadline - time.monotonic(), pending["wait"]
        prompt.wait(min(CLOCK_MARGIN * wait, left), deadline)
        if left < wait:
            if timeout < lifetime:
                raise LoginFailed(f"nobody approved the login within {timeout:.0f} s: log in again")
            raise LoginFailed("the code has expired: log in again", "expired_token")
        try:
            response = _poll_device_code(tenant, pending)
            if response:
                return response
        except NetworkError as problem:
            if not hint_shown:
                prompt.say(f"{problem}. Still trying until the code expires.")
            hint_shown = True


# ---- Signals during a refresh --------------------------------------------------------------------


def _wait_for_refreshes() -> None:
    """At the end of the main thread: waits for refreshes of daemon threads, for up to 5 s."""
    deadline = time.monotonic() + 5
    while _refreshing and time.monotonic() < deadline:
        time.sleep(0.01)


class _DelayedSignals:
    """Delays signals while a rotated refresh token could be lost.

    These are the signals with a handler in Python, such as SIGINT. A second signal of the same
    number takes effect at once. Only the main thread gets signals; for another thread, the end of
    the process waits (`_wait_for_refreshes`).
    """

    def __enter__(self) -> None:
        import atexit

        self.active = True
        self.held: dict[int, bool] = {}  # number -> whether its handler is still to be called
        self._handlers: dict[int, Any] = {}
        try:
            _refreshing.add(self)
            self._replace_handlers()  # not here: Python 3.13 can leave the end of a loop unguarded
        except BaseException as problem:
            if not isinstance(problem, ValueError) or _is_from_signal_handler(problem):
                self.__exit__()
                raise
            self._handlers.clear()  # this is not the main thread
        if not self._handlers:
            atexit.unregister(_wait_for_refreshes)
            atexit.register(_wait_for_refreshes)

    def _replace_handlers(self) -> None:
        """Puts `_hold` in the place of each handler."""
        import signal

        for number in signal.valid_signals():
            handler = signal.getsignal(number)
            if callable(handler):  # others end the process, do nothing, or are not Python's
                self._handlers[number] = handler
                signal.signal(number, self._hold)

    def _hold(self, number: int, frame: Any) -> None:
        if self.active:
            self.held[number] = number not in self.held  # False for the second signal
            if self.held[number]:
                return
        self._handlers[number](number, frame)

    def __exit__(self, *exc: object) -> None:
        import signal

        try:
            self.active = False  # from here on a signal is passed on at once
            _refreshing.discard(self)
            for number, handler in self._handlers.items():
                if signal.getsignal(number) == self._hold:
                    signal.signal(number, handler)
            for number, waits in self.held.items():
                if waits:
                    self.held[number] = False
                    self._handlers[number](number, sys._getframe())
        except BaseException:  # a handler raised it: call the other handlers, too
            self.__exit__()
            raise


# ---- Errors that leave public methods ------------------------------------------------------------


def _places_of(problem: BaseException) -> list[str]:
    """The places in the code that an error has passed, outermost first."""
    places: list[str] = []
    trace = problem.__traceback__
    while trace:
        code = trace.tb_frame.f_code
        places.append(_printable(f"{code.co_filename}:{trace.tb_lineno} ({code.co_name})"))
        trace = trace.tb_next
    return places + getattr(problem, "auth0_cli_places", [])


def _drop_frames(problem: BaseException) -> BaseException:
    """Removes the inner frames from an error, since their locals hold secrets.

    If the error is no `Auth0Error`, it keeps the places in the code, which hold no values.
    """
    if isinstance(problem, Exception) and not isinstance(problem, Auth0Error):
        problem.__dict__["auth0_cli_places"] = _places_of(problem)
    links = [problem]
    for link in links:  # this list grows: causes and members of groups have frames, too
        link.__traceback__ = link.__context__ = None
        inner = (link.__cause__, *getattr(link, "exceptions", ()))
        links += [e for e in inner if isinstance(e, BaseException) and e not in links]
    return problem


def _public(method: Function) -> Function:
    """A public method, wrapped so that its errors carry no inner frames."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except BaseException as problem:  # noqa: BLE001 - it is raised again
            args, kwargs = (), {}  # this frame stays in the traceback
            raise _drop_frames(problem)  # noqa: B904

    for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):
        setattr(call, name, getattr(method, name))
    call.__wrapped__ = method  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


# ---- Settings ------------------------------------------------------------------------------------


class _Settings:
    """The arguments of an `Auth0`, the environment behind them, and the session they select."""

    _arguments: dict[str, Any]
    _preset: set[str]
    _command: str
    _recent: dict[object, tuple[str, float, float]]

    def _environment_applies(self, stored: _StoredSession, name: str) -> bool:
        """Whether the environment is for this application.

        A secret also needs a client ID in the environment or the arguments.
        """
        domain, client_id = _from_environment("domain"), _from_environment("client_id")
        if name == "client_secret" and not (client_id or self._arguments["client_id"]):
            return False
        try:
            same_domain = domain is None or _normal_domain(domain) == stored.domain
        except ConfigError:
            return False
        return same_domain and client_id in (None, stored.client_id)

    def _setting(self, name: str, stored: _StoredSession | None = None) -> Any:
        """An argument, else the environment variable, without white space around it.

        Args:
            name: of the setting.
            stored: the application in use. The variables describe one application: the secret,
                audience, scope and organization of another one are not used.
        """
        value = self._arguments[name]
        counts = name not in _APP_SETTINGS or (stored and self._environment_applies(stored, name))
        if value is None and name in ENVIRONMENT and counts:
            value = _from_environment(name)
        if name in _NAME_FIELDS + _TOKEN_PARAMETERS:
            return _check_text(name, value)
        return value.strip() if isinstance(value, str) and name != "cache" else value

    def _token_parameters(
        self, stored: _StoredSession, audience: str | None = None, scope: str | None = None
    ) -> dict[str, str | None]:
        """Audience, organization and scope: those of a call, else the settings."""
        parameters = {name: self._setting(name, stored) for name in _TOKEN_PARAMETERS}
        call = {"audience": _check_text("audience", audience), "scope": _check_text("scope", scope)}
        return {**parameters, **{name: value for name, value in call.items() if value}}

    def _ports(self) -> tuple[int, ...]:
        """The callback ports."""
        ports = self._setting("ports")
        return DEFAULT_PORTS if ports is None else _parse_ports(ports)

    def _cache(self) -> Cache:
        """The cache of the settings. A directory is looked up each time: HOME may have changed."""
        cache: CacheSetting | None = self._setting("cache")
        return FileCache(cache) if isinstance(cache, (str, os.PathLike, type(None))) else cache

    def _tenant(self, stored: _StoredSession) -> _Tenant:
        """The session's tenant, with the authentication of its client."""
        return _Tenant(stored.domain, stored.client_id, lambda name: self._setting(name, stored))

    def _is_confidential(self, stored: _StoredSession) -> bool:
        """Whether client credentials can be requested for its application."""
        return bool(self._setting("client_secret", stored) or self._setting("client_assertion"))

    def _load(self, stored: _StoredSession, locked: bool = False) -> Record:
        """The stored session, or a new one.

        If the cache fails, only an application with a secret gets a new one, and only if no
        user's session is there: a machine must not replace it.
        """
        try:
            record = stored.load(locked)
        except CacheError as problem:
            is_newer = isinstance(problem, _NewerSession)
            if is_newer or not self._is_confidential(stored) or stored.is_of_user():
                raise
            record = None
        return record or _new_record(stored.domain, stored.client_id, stored.profile)

    def _flags(self, stored: _StoredSession, audience: str | None = None) -> str:
        """The flags that select this session, without those that a host program has set."""
        from shlex import quote

        given = {n: v for n, v in self._arguments.items() if n not in self._preset}
        given["audience"] = audience or given.get("audience")
        flags = f" {stored.flags(self._preset)}".rstrip()
        for name in ("audience", "organization", "cache"):
            if isinstance(given.get(name), str) and given[name]:
                flags += f" --{name} {_printable(quote(given[name]))}"
        return flags

    def _login_command(
        self, stored: _StoredSession | None = None, option: str = "", audience: str | None = None
    ) -> str:
        """The command that messages tell the user to run, with the flags of a session."""
        command = self._arguments["login_command"] or f"{_program_name()} login"
        return command + option + (self._flags(stored, audience) if stored else "")

    def _matching(self, note: str = "", any_profile: bool = False) -> list[_StoredSession]:
        """The sessions that match the settings: the stored ones, or those with such a note."""
        domain, client_id, profile = map(self._setting, _NAME_FIELDS)
        name = (domain and _normal_domain(domain), client_id, None if any_profile else profile)
        cache = self._cache()
        keys: Any = _call_cache(cache, "list")
        if not _is_array(keys) or not all(type(key) is str for key in keys):
            raise CacheError("the cache's list is not one of texts: correct it")
        end = note and f"~{note}"
        found = [_split_key(key.removesuffix(end)) for key in sorted(keys) if key.endswith(end)]
        return [
            _StoredSession(cache, *parts)
            for parts in found
            if parts and all(given in (None, part) for given, part in zip(name, parts))
        ]

    def _find(self, new: bool = False, first: str = "") -> _StoredSession:
        """The session that the settings select; with `new`, it may be one that is not stored yet.

        Where they name none, one that has the note `first` is preferred.

        Raises:
            ConfigError: several match, or nothing names the tenant and the client.
        """
        domain, client_id, profile = map(self._setting, _NAME_FIELDS)
        exact = None
        if domain and client_id:
            domain = _normal_domain(domain)
            exact = _StoredSession(self._cache(), domain, client_id, profile or "default")
            try:
                if profile or new or exact.read() is not None:
                    return exact
            except CacheError:  # the caller reads it again, and reports that
                return exact
        found: list[_StoredSession] = []
        for note in (first, "", "pending", "application"):
            found = found or self._matching(note)
        applications = {(stored.domain, stored.client_id) for stored in found}
        if len(applications) == 1:
            found = [stored for stored in found if stored.profile == "default"] or found
        if len(found) == 1:
            return found[0]
        if found:
            listed = "; ".join((self._command + self._flags(stored)).strip() for stored in found)
            raise ConfigError(f"several sessions match: choose one, as in {listed}")
        if exact:
            return exact
        others = {(stored.domain, stored.client_id) for stored in self._matching(any_profile=True)}
        logged_out = self._matching("application", any_profile=True)
        known = others or {(stored.domain, stored.client_id) for stored in logged_out}
        if new and len(known) == 1:
            return _StoredSession(self._cache(), *known.pop(), profile or "default")
        if others:
            name = _printable(profile, 80)
            raise ConfigError(f"no session has the profile {name!r}: log in to it, or see status")
        missing = [] if domain else ["AUTH0_DOMAIN (or --domain)"]
        missing += [] if client_id else ["AUTH0_CLIENT_ID (or --client-id)"]
        raise ConfigError(
            f"not logged in, and no application is named: set {' and '.join(missing)}; "
            "see the Settings page of your application in the Auth0 Dashboard"
        )

    def _find_stored(self) -> _StoredSession | None:
        """The session that the settings select; None without settings and stored sessions."""
        try:
            return self._find()
        except ConfigError:
            if self._matching():
                raise
            return None


# ---- Tokens of a session -------------------------------------------------------------------------


class _TokenRequest:
    """One call for a token: the session that it uses, and the token that it asks for.

    Args:
        auth0: the caller, with its settings.
        stored: the session.
        audience: the audience of the call, if it names one.
        scope: the scope of the call, if it names one.

    Raises:
        LoginRequired: the session is for another organization.
    """

    def __init__(
        self, auth0: _Settings, stored: _StoredSession, audience: str | None, scope: str | None
    ) -> None:
        self._auth0, self._stored, self._tenant = auth0, stored, auth0._tenant(stored)
        self._call_audience = _check_text("audience", audience)
        self._call_scope = _check_text("scope", scope)
        self._seconds: float | None = None  # for a request; None means REQUEST_SECONDS
        self.load()

    def load(self, locked: bool = False) -> None:
        """Reads the session, or begins one, and finds the token in it."""
        record = self.record = self._auth0._load(self._stored, locked)
        given = self._auth0._token_parameters(self._stored, self._call_audience, self._call_scope)
        self.organization = given["organization"] or record["organization"]
        if not _has_no_user(record) and self.organization != record["organization"]:
            name = _printable(self.organization, 60)
            raise self.login_required(f"the session is not for the organization {name}")
        self.audience, self.scope = given["audience"] or record["audience"], given["scope"]
        self.token = _find_token(record, self.audience, self.organization, self.scope)

    def login_required(
        self, reason: str, error: str | None = None, option: str = ""
    ) -> LoginRequired:
        """LoginRequired, with the command for the login."""
        secret = ENVIRONMENT["client_secret"]
        if os.environ.get(secret, "x").strip() == "":
            reason += f" ({secret} is set but empty)"
        login = self._auth0._login_command(self._stored, option, self._call_audience)
        return LoginRequired(f"{reason}: run {login}", error)

    def _scope_required(self, scopes: Iterable[str]) -> LoginRequired:
        """The error for scopes that the login did not request: no refresh can add them."""
        from shlex import quote

        names = _printable(" ".join(sorted(scopes)))
        both = dict.fromkeys(f"{self.record['scope'] or DEFAULT_SCOPE} {names}".split())
        option = f" --scope {_printable(quote(' '.join(both)), 1000)}"
        reason = f"the login did not ask for the scope {names}"
        return self.login_required(reason, "invalid_scope", option)

    def _check_requested(self) -> None:
        """LoginRequired if this call needs scopes that the login did not request."""
        scopes = set((self.scope or "").split()) - set((self.record["scope"] or "").split())
        if scopes:
            raise self._scope_required(scopes)

    def _with_scope(self, token: Record) -> Record:
        """The token, if the scope of this call was granted; else the error for that."""
        missing = set((self._call_scope or "").split()) - set(token["scope"].split())
        if not missing:
            return token
        is_machine = _has_no_user(self.record)
        if not is_machine:
            self._check_requested()
        names, api = _printable(" ".join(sorted(missing))), _printable(self.audience or "the API")
        who, place = "user", "User Management > Users > the user > Permissions"
        if is_machine:
            who, place = "application", "Applications > APIs > the API"
        raise OAuthError(
            f"Auth0 did not grant the scope {names} for {api}: give the {who} that permission "
            f"(Dashboard > {place}), and log in again",
            "insufficient_scope",
        )

    def _uses_client_credentials(self) -> bool:
        """Whether client credentials apply: there is a secret, and no user is logged in."""
        return _has_no_user(self.record) and self._auth0._is_confidential(self._stored)

    def valid_id_token(self, min_ttl: float) -> str | None:
        """The stored ID token, if `_is_usable`."""
        id_token: str | None = self.record["id_token"]
        claims = _decode_claims(id_token)
        times: Record = {"obtained_at": claims.get("iat"), "expires_at": claims.get("exp")}
        is_sound = all(map(_is_number, times.values()))
        return id_token if is_sound and _is_usable(times, min_ttl) else None

    def _valid_token(self, min_ttl: float) -> Record | None:
        """The stored access token, if `_is_usable`."""
        return self.token if self.token and _is_usable(self.token, min_ttl) else None

    def obtain(self, min_ttl: float, force_refresh: bool) -> Record:
        """The token as the session keeps it: the stored one, else a new one.

        One caller gets the lock and requests the token. The others wait, and use its result.
        """
        before, since, lock_seconds = self.token, time.time(), LOCK_SECONDS
        if not force_refresh and (token := self._valid_token(min_ttl)):
            return self._with_scope(token)
        if not force_refresh and (token := self._valid_token(0)):
            left = token["expires_at"] - since
            if left > 2:  # a request that hangs must not cost this token
                lock_seconds = FALLBACK_SECONDS
                self._seconds = min(FALLBACK_SECONDS, left - 1)
        try:
            required = not self._uses_client_credentials()
            with self._stored.lock(lock_seconds, required):
                self.load(True)
                # Another process or thread may have requested a new one.
                new = self._valid_token(0) if self.token != before else None
                return self._with_scope(new or self._renew(since))
        except (NetworkError, CacheError, ConfigError):  # ConfigError: such as a bad certificate
            try:
                self.load()  # the session may have ended, or got another token, meanwhile
            except CacheError:
                self.token = before
            token = self._valid_token(0)
            if force_refresh or not token:
                raise
            return self._with_scope(token)

    def _renew(self, since: float) -> Record:
        """A new token, with the session's lock held: a user's, or that of a machine.

        A user's session is refreshed even if a client secret is set. The secret then only
        authenticates the application; a machine's token would have another identity.
        """
        stored, refresh_token = self._stored, self.record["refresh_token"]
        if not refresh_token and not self._uses_client_credentials():
            nobody = _has_no_user(self.record)
            reason = "nobody is logged in" if nobody else "the session has no refresh token"
            raise self.login_required(reason)
        if refresh_token and self.audience == self.record["audience"]:
            self._check_requested()
        stored.check_failure(since)
        try:
            if refresh_token:
                stored.check_writable()  # else the new refresh token would be lost
                with _DelayedSignals():
                    token = self._refresh()
            else:
                token = self._request_client_credentials()
        except NetworkError as problem:
            stored.keep_failure(problem)
            raise
        stored.write_note("failure", None)
        return token

    def _request_client_credentials(self) -> Record:
        """The client credentials grant (RFC 6749 section 4.4)."""
        record = self.record
        scope = self.token["requested"] if self.token else self.scope or record["scope"]
        target = {"audience": self.audience, "organization": self.organization, "scope": scope}
        form = {"grant_type": "client_credentials", **target}
        response = _request_token(self._tenant, form, "always", self._seconds)
        if not record["tokens"]:
            record.update(target, scope=self._auth0._setting("scope", self._stored))
        token = _add_token(record, response, **target)
        self._save(record)
        return token

    def _refresh(self) -> Record:
        """The refresh grant (RFC 6749 section 6) with rotation (RFC 9700 section 4.14.2).

        If the connection breaks before the response, Auth0 may have rotated the token. The old
        one is then sent once more, at once: within Auth0's overlap period that saves the session.
        """
        record = self.record
        form = {"grant_type": "refresh_token", "refresh_token": record["refresh_token"]}
        scope, other_api = record["scope"], self.audience != record["audience"]
        if other_api:
            scope = self.token["requested"] if self.token else self.scope
            form.update(audience=self.audience, scope=scope if scope != record["scope"] else None)
        requested_at = time.time()
        try:
            response = self._tenant.post("/oauth/token", form, "once_if_lost", self._seconds)
        except OAuthError as problem:
            return self._after_refused_refresh(problem)

        sub, user = _decode_claims(response.get("id_token")).get("sub"), record["user"].get("sub")
        if sub and user:  # before the save: a refresh token of somebody else is not kept
            _require(sub == user, "sub", "it is for another user than the session")
        renewed = {**record}
        if _is_token(response.get("refresh_token")):
            renewed["refresh_token"] = response["refresh_token"]
        try:
            response = _check_token_response(response, requested_at)
            if response.get("id_token") is not None:
                self._check_id_token(response["id_token"], renewed)
            if other_api and not _is_token_for(response, self.audience or ""):
                raise self.login_required(
                    "the refresh token of this session does not work for the API "
                    f"{_printable(self.audience)} (multi-resource refresh tokens are not set up)"
                )
            return _add_token(renewed, response, self.audience, self.organization, scope)
        finally:  # even if the response is wrong: the old refresh token is invalid by now
            self._save(renewed, self.record)

    def _after_refused_refresh(self, problem: OAuthError) -> Record:
        """Raises the error; only `invalid_grant` ends the session (RFC 6749 section 5.2).

        If another process has stored a newer refresh token, that one is used instead.
        """
        if problem.error == "invalid_scope" and self.scope:
            raise self._scope_required(self.scope.split()) from None
        needs_user = "login_required interaction_required consent_required mfa_required"
        if problem.error in needs_user.split():
            reason = f"Auth0 wants the user to log in again ({problem.error})"
            raise self.login_required(reason, problem.error) from None
        if problem.error != "invalid_grant":
            raise problem
        refused = self.record["refresh_token"]
        self.load(True)
        if self.record["refresh_token"] not in (None, refused):  # a newer one
            return self._refresh()
        if self.record["refresh_token"]:
            self._save({**self.record, "refresh_token": None})
        reason = "the session has expired or was revoked"
        raise self.login_required(reason, problem.error) from None

    def _check_id_token(self, text: str, renewed: Record) -> None:
        """Checks a refreshed ID token. The tenant's keys are requested at most once a minute."""
        id_token = _IdToken(text)
        id_token.check_refresh(self._tenant, renewed)

        def fetch() -> list[Json]:
            self._save(renewed, self.record)  # the request may take a while, or fail
            renewed.update(jwks=self._tenant.keys(), jwks_refetched_at=time.time())
            return [*renewed["jwks"]]

        recent = 0 <= time.time() - renewed["jwks_refetched_at"] <= LEEWAY
        id_token.check_signature(_usable_keys(renewed["jwks"]), None if recent else fetch)
        renewed["id_token"] = text

    def _save(self, record: Record, old: Record | None = None) -> None:
        """Saves as `_StoredSession.save` does, but a failure only warns: the token is valid."""
        self.record = record
        try:
            self._stored.save(record, old)
        except CacheError as problem:
            then = "" if _has_no_user(record) else ", so the next run may need a login"
            _warn(f"the session was not saved{then}: {problem}")


# ---- Login and logout ----------------------------------------------------------------------------


class _Logins(_Settings):
    """Login to a session, a token from it, and logout."""

    def _authorization_parameters(
        self, stored: _StoredSession, record: Record, audience: str | None, scope: str | None
    ) -> dict[str, str | None]:
        """The parameters of a user's login. Missing values come from the last login."""
        last: Json = record
        if _has_no_user(record):
            last = stored.read_note("application") or {}
            last = last if _fits_schema(last, dict.fromkeys(_TOKEN_PARAMETERS)) else {}
        parameters = self._token_parameters(stored, audience)
        parameters = {name: value or last.get(name) for name, value in parameters.items()}
        scopes = f"{parameters['scope'] or DEFAULT_SCOPE} {_check_text('scope', scope) or ''}"
        parameters["scope"] = " ".join(dict.fromkeys(scopes.split()))
        return {**_check_params(self._setting("params") or {}), **parameters}

    def _choose_flow(self, flow: str, stored: _StoredSession, record: Record) -> str:
        if flow not in FLOWS:
            flows = ", ".join(FLOWS)
            raise ConfigError(f"unknown flow {_printable(flow, 40)!r}: choose one of {flows}")
        has_secret = self._is_confidential(stored)
        if flow == "client-credentials" and not has_secret:
            is_set = os.environ.get(ENVIRONMENT["client_secret"]) is not None
            why = " (AUTH0_CLIENT_SECRET is set, but empty or for another application)" * is_set
            raise ConfigError(f"this flow needs AUTH0_CLIENT_SECRET or --client-secret-file{why}")
        if flow != "auto":
            return flow
        if has_secret and _has_no_user(record):  # no machine replaces a user
            return "client-credentials"
        return "browser" if _has_local_display() and _find_browsers() else "device"

    def _check_flow(self, flow: str, parameters: Form) -> None:
        """ConfigError if the parameters ask for an organization that this flow can't check."""
        if flow != "browser" and parameters["organization"]:
            raise ConfigError(
                f"Auth0 has no organizations in the {flow} flow: use --flow browser, or leave the "
                "organization out (log out first, if the last login had one)"
            )
        if parameters["organization"] and "openid" not in str(parameters["scope"]).split():
            raise ConfigError("an organization is checked by the ID token: add the scope openid")

    def _create_session(
        self, stored: _StoredSession, parameters: Form, response: Json, machine: bool = False
    ) -> Session:
        """Makes a session of a login's token response: first every check, then the save."""
        target = {name: parameters[name] for name in _TOKEN_PARAMETERS}
        record = _new_record(stored.domain, stored.client_id, stored.profile)
        record.update(target, refresh_token=response.get("refresh_token"))
        record["user"] = {} if machine else {"sub": ""}
        id_token = response.get("id_token")
        if id_token is not None:
            tenant = self._tenant(stored)
            token = _IdToken(id_token)
            token.check_login(tenant, response, parameters, parameters.get("nonce"))
            keys = tenant.keys()
            token.check_signature(keys, tenant.keys)
            sub, *names = map(token.claims.get, ("sub", "name", "email"))
            name, email = (_printable(n, 255) if isinstance(n, str) else None for n in names)
            user = {"sub": sub, "name": name, "email": email}
            record.update(user=user, jwks=keys, id_token=id_token)
        elif not machine and "openid" in str(target["scope"]).split():
            reason = "the token response holds no ID token: log in again"
            if stored.client_id.startswith("tpc_"):
                use = 'leave openid out, as in login --scope "offline_access read:reports"'
                reason = f"a third-party application (tpc_...) gets no ID token: {use}"
            raise InvalidToken(reason, "form")
        _add_token(record, response, **target)
        with stored.lock():
            stored.load(True)  # refuses a newer version, sets a damaged file aside
            stored.save(record)
            stored.write_note("failure", None)
            stored.write_note("pending", None, required=True)
            # This session names the application: delete the notes of older logouts.
            for key in _call_cache(stored.cache, "list"):
                if str(key).count("~") == 3 and str(key).endswith("~application"):
                    _call_cache(stored.cache, "delete", key)
        self._recent.clear()
        return Session(record)

    def _log_in(
        self,
        stored: _StoredSession,
        flow: str = "auto",
        audience: str | None = None,
        scope: str | None = None,
        prompt: _Prompt | None = None,
        timeout: float = 300,
        credentials: tuple[str | None, Password, str | None] = (None, None, None),
    ) -> Session:
        """Logs in to one session."""
        prompt = prompt or _Prompt()
        ports = self._ports()
        tenant = self._tenant(stored)
        record = self._load(stored)
        flow = self._choose_flow(flow, stored, record)
        parameters = self._authorization_parameters(stored, record, audience, scope)
        if flow == "client-credentials":
            parameters = self._token_parameters(stored, audience, scope)
            form = {"grant_type": "client_credentials", **parameters}
            response = _request_token(tenant, form, "always")
            return self._create_session(stored, parameters, response, machine=True)

        self._check_flow(flow, parameters)
        with stored.lock():  # before a person logs in: can the session be saved?
            stored.check_writable()
        if flow == "password":
            response = _password_login(tenant, parameters, *credentials)
            return self._create_session(stored, parameters, response)
        automated = os.environ.get("CI", "").strip().lower() not in ("", "0", "false")
        if automated and prompt.is_unseen():
            raise LoginRequired(
                "a login needs a person, but CI is set and there is no terminal: set "
                "AUTH0_CLIENT_SECRET (or give --client-secret-file), or log in elsewhere"
            )
        with prompt:
            if flow == "browser":
                host = (self._arguments["login_command"] or "").split()[:1]
                program = _printable(host[0], 60) if host else ""
                with _Listener(ports, program) as listener:  # its end tells the browser the result
                    browser_response = _browser_login(tenant, parameters, listener, timeout, prompt)
                    if browser_response:  # else the user prefers a code
                        parameters["nonce"] = listener.nonce
                        return self._create_session(stored, parameters, browser_response)
            response = _device_login(tenant, parameters, timeout, prompt)
            return self._create_session(stored, parameters, response)

    @_public
    def _token_entry(
        self,
        audience: str | None,
        scope: str | None,
        min_ttl: float,
        interactive: bool,
        force: bool,
    ) -> Record:
        """The record of the token that get_token returns."""
        _check_seconds("min_ttl", min_ttl, or_zero=True)
        stored = self._find()
        before: Record | None = None
        try:
            request = _TokenRequest(self, stored, audience, scope)
            before = request.token
            return request.obtain(min_ttl, force)
        except LoginRequired:
            self._recent.clear()
            if not interactive:
                raise
        # One login at a time per session: the others wait, and share its result.
        with stored.lock(600, suffix="~login"):
            try:
                request = _TokenRequest(self, stored, audience, scope)
                return request.obtain(min_ttl, force and request.token == before)
            except LoginRequired:
                try:
                    self._log_in(stored, audience=audience, scope=scope)
                except CacheError as problem:
                    if stored.load() is None:  # not even in memory: nobody has logged in
                        raise
                    _warn(f"the session was not saved: {problem}")
        return _TokenRequest(self, stored, audience, scope).obtain(0, False)

    def _log_out(
        self, stored: _StoredSession, local: bool, browser: bool, remember: bool = False
    ) -> bool:
        """Logs out of one session; False if there was none.

        With `remember` it keeps the parameters of the login, so that the next one needs no flags.
        """
        tenant = self._tenant(stored)
        problem: Auth0Error | None = None
        # First the lock of a pending login: if that creates a session, it is logged out, too.
        with stored.lock(required=False, suffix="~pending"), stored.lock(required=False):
            record = stored.load(True)  # a file that is refused is left alone
            if record and record["refresh_token"] and not local:
                problem = _revoke(tenant, record["refresh_token"])
            note = record or stored.read_note("application")  # that of an earlier logout
            try:
                stored.delete()
                if remember and note:
                    stored.write_note("application", {n: note.get(n) for n in _TOKEN_PARAMETERS})
            except CacheError as undeleted:  # the session is still there, revoked or not
                problem = undeleted
        for auth0 in (self, *_instances.values()):
            auth0._recent.clear()
        if browser:
            from urllib.parse import quote

            page = f"{tenant.origin}/v2/logout?client_id={quote(stored.client_id, '')}"
            if not _open_browser(page):
                _print_err(f"To log out there too, open this page in the browser:\n\n{page}\n")
        if problem:
            raise problem
        return record is not None


# ---- Login in two steps --------------------------------------------------------------------------


class _LoginsInTwoSteps(_Logins):
    """A login with a device code that one call starts and another one finishes."""

    @_public
    def start_login(self, *, audience: str | None = None, scope: str | None = None) -> Json:
        """Starts a login with a device code, which `finish_login` completes, in any process.

        It is stored beside the session until it is finished, or until the next one is started.

        Args:
            audience: the API, if not that of this object or of the last login.
            scope: to request in addition to that of this object or of the last login.

        Returns:
            `event`, `user_code`, `verification_uri`, `verification_uri_complete` and `expires_in`
            (seconds) as `login --json` prints them; `expires_at` (epoch seconds); `interval`
            (seconds between two polls); `message` for the user; `next`, the command to run next.
        """
        stored = self._find(new=True)
        parameters = self._authorization_parameters(stored, self._load(stored), audience, scope)
        self._check_flow("device", parameters)
        with stored.lock(suffix="~pending"):
            with stored.lock():  # the check also removes the temporary files of a killed writer
                stored.check_writable()
            pending = _request_device_code(self._tenant(stored), parameters)
            stored.write_note("pending", {**pending, "wanted": parameters}, required=True)
        prompt = pending["prompt"]
        return {
            **prompt,
            "expires_at": int(pending["expires_at"]),
            "interval": pending["interval"],
            "message": f"Open {prompt['verification_uri_complete']} in a browser, check that it "
            f"shows the code {prompt['user_code']}, and approve the login.",
            "next": self._login_command(stored, " --resume"),
        }

    def _poll_pending(self, stored: _StoredSession, pending: Json) -> Json:
        """Polls for a pending login, with its lock held: returns the token response.

        Raises:
            NetworkError: not approved yet, or it is too early for a poll.
            LoginFailed, OAuthError: denied or expired; it is not pending any more.
        """
        now, due = time.time(), pending["polled_at"] + CLOCK_MARGIN * pending["wait"]
        try:
            if now > pending["expires_at"]:
                raise LoginFailed("the code has expired: log in again", "expired_token")
            if not pending["polled_at"] <= now < due:  # due, or the clock was set back
                with stored.lock():  # the code works once: check first that we can save
                    stored.check_writable()
                try:
                    response = _poll_device_code(self._tenant(stored), pending)
                finally:
                    stored.write_note("pending", pending)
                if response:
                    stored.write_note("pending", None, required=True)  # the code was used
                    return response
        except (LoginFailed, OAuthError):
            stored.write_note("pending", None, required=True)
            raise
        resume = self._login_command(stored, " --resume")
        reason = "nobody has approved the login yet"
        not_yet = NetworkError(f"{reason}: approve it, then run {resume}", "authorization_pending")
        not_yet.retry_after = float(pending["interval"])
        raise not_yet

    @_public
    def finish_login(self, *, timeout: float = 300) -> Session:
        """Waits until the user has approved the login that `start_login` began.

        Args:
            timeout: seconds to wait.

        Raises:
            LoginRequired: no login is pending.
            LoginFailed: denied or expired.
            NetworkError: not approved yet (`authorization_pending`: call it again), or Auth0 was
                not reached.
        """
        _check_seconds("timeout", timeout)
        stored = self._find(new=True, first="pending")
        deadline, before = time.monotonic() + timeout, stored.load()
        while True:
            with stored.lock(suffix="~pending"):
                pending = stored.read_note("pending") or {}
                sound = _fits_schema(pending.get("wanted"), dict.fromkeys(_TOKEN_PARAMETERS))
                if not sound or not _fits_schema(pending, _PENDING):
                    record = stored.load()
                    if record and record != before:  # another process has finished it
                        return Session(record)
                    again = f"run {self._login_command(stored, ' --no-wait')}"
                    raise LoginRequired(f"no login is pending: {again}")
                try:
                    response = self._poll_pending(stored, pending)
                except NetworkError:
                    if time.monotonic() + 0.5 > deadline:
                        raise
                else:
                    return self._create_session(stored, pending["wanted"], response)
            time.sleep(0.5)


# ---- Auth0 ---------------------------------------------------------------------------------------


class Auth0(_LoginsInTwoSteps):
    """One session of one application at one tenant: log in, get tokens, log out.

    Missing arguments come from the environment, then from the stored session that matches.
    Safe to share between threads and across a fork. A pickle carries the arguments, a client
    secret included.

    Args:
        domain: as in `acme.eu.auth0.com`.
        client_id: of the application.
        client_secret: turns client credentials on (confidential applications only).
        client_assertion: instead of a secret: a function that returns a new signed JWT (RFC 7523)
            for each request.
        audience: the identifier of the API.
        scope: space-separated.
        organization: id or name.
        profile: names one of several sessions of the application.
        cache: a directory, or an object like `FileCache`.
        ports: loopback ports for the browser flow.
        params: further parameters for /authorize, such as `connection` or `max_age`.
        login_command: the command in messages that ask for a login, such as `mytool login`.
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
        ports: str | int | Sequence[int] | None = None,
        params: Mapping[str, str] | None = None,
        login_command: str | None = None,
        trace: Callable[[str], object] | None = None,
    ) -> None:
        self._arguments = dict(locals())
        del self._arguments["self"]
        # The settings that a host program has made in its code: hints do not name their flags.
        self._preset = {n for n, v in self._arguments.items() if v is not None and login_command}
        self._command = ""  # hints repeat it, with the flags of one session
        # get_token returns these without reading the session: token, from when, until when.
        self._recent: dict[object, tuple[str, float, float]] = {}

    def __repr__(self) -> str:
        given = {n: v for n, v in self._arguments.items() if n in _NAME_FIELDS and v is not None}
        return f"Auth0({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def __getstate__(self) -> Json:
        return {**self.__dict__, "_recent": {}}

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
            scope: the scope that the token must have.
            min_ttl: seconds that it must stay valid; one issued for less counts until it expires.
            interactive: log in if nothing else helps; otherwise no browser is ever opened.
            force_refresh: ask for a new one even if there is a valid one.

        It returns the same token for a second (RECHECK_SECONDS) before it looks at the
        session file and at the environment once more.

        Raises:
            LoginRequired: nobody is logged in, the session has ended, or its login did not ask
                for the scope.
            OAuthError: Auth0 refused; `insufficient_scope` if it does not grant the scope.
            NetworkError: Auth0 was not reached, and no valid token is left.
            ConfigError, CacheError, InvalidToken, LoginFailed: see these classes.
        """
        key = repr((audience, scope, min_ttl))  # of any type: `_token_entry` checks them
        recent = None if force_refresh else self._recent.get(key)
        if recent is not None and recent[1] <= time.time() < recent[2]:
            return recent[0]
        recent = None  # a traceback shows the locals of this frame
        token = self._token_entry(audience, scope, min_ttl, interactive, force_refresh)
        now, until = time.time(), token["expires_at"]
        if until - now > min_ttl:
            until -= min_ttl
        if len(self._recent) > 64:  # a caller whose arguments are always new
            self._recent.clear()
        self._recent[key] = (token["access_token"], now, min(now + RECHECK_SECONDS, until))
        return str(token["access_token"])

    @_public
    def get_id_token(self, *, min_ttl: float = 0, force_refresh: bool = False) -> str:
        """The ID token of the login or of the last refresh; refreshed if it has expired.

        Args:
            min_ttl: seconds that it must stay valid; one issued for less counts until it expires,
                and so does one that a refresh does not replace.
            force_refresh: ask for a new one even if there is a valid one.

        Raises:
            LoginRequired: nobody is logged in, or the login did not ask for `openid`.
        """
        _check_seconds("min_ttl", min_ttl, or_zero=True)
        request = _TokenRequest(self, self._find(), None, None)
        is_stored = request.record["id_token"] is not None
        if is_stored and (force_refresh or not request.valid_id_token(min_ttl)):
            try:
                request.obtain(min_ttl, True)
            except (LoginRequired, NetworkError, CacheError, ConfigError):
                if force_refresh or not request.valid_id_token(0):
                    raise
            request.load()
        id_token = request.valid_id_token(0)
        if not id_token:
            somebody = request.record["user"] or request.record["tokens"]
            none = "no valid ID token is stored (scope openid)"
            raise request.login_required(none if somebody else "nobody is logged in")
        return id_token

    def bearer(self, request: Request) -> Request:
        """`auth=auth0.bearer` for requests and httpx: adds a valid token to each request."""
        request.headers["Authorization"] = f"Bearer {self.get_token()}"  # type: ignore[attr-defined]
        return request

    @_public
    def login(
        self,
        *,
        flow: str = "auto",
        audience: str | None = None,
        scope: str | None = None,
        show: Show | None = None,
        open_browser: bool = True,
        timeout: float = 300,
        username: str | None = None,
        password: Password = None,
        realm: str | None = None,
        qr: bool | None = None,
        cancel: Cancel | None = None,
    ) -> Session:
        """Logs a user or a machine in. The session replaces a stored one of the same name.

        Args:
            flow: `auto`, `browser`, `device`, `client-credentials` or `password`.
            audience: the API, if not that of this object or of the last login.
            scope: to request in addition to that of this object or of the last login.
            show: called with the prompt (an `AuthorizePrompt` or a `DevicePrompt`, as `login
                --json` prints it), in the calling thread; without it the prompt goes to stderr.
            open_browser: whether to open the authorization URL, or only to show it.
            timeout: seconds to wait for the user.
            username: for the password flow only.
            password: for the password flow only; or a function that asks for it.
            realm: the connection of the password flow (Auth0's password-realm grant).
            qr: whether to draw a QR code of a device's page; None where it fits on the terminal.
            cancel: such as a `threading.Event`; once it is set, the login ends.

        Raises:
            LoginFailed: denied, expired, timed out, cancelled (`error` is `cancelled`).
            InvalidToken: the ID token fails a check.
            OAuthError, NetworkError, ConfigError, CacheError: see these classes.
        """
        _check_seconds("timeout", timeout)
        stored = self._find(new=True)
        prompt, credentials = _Prompt(show, open_browser, qr, cancel), (username, password, realm)
        return self._log_in(stored, flow, audience, scope, prompt, timeout, credentials)

    @_public
    def grant(self, grant_type: str, *, store: bool = False, **parameters: object) -> str:
        """The access token of any other grant, such as token exchange (RFC 8693).

        Args:
            grant_type: its name, such as `urn:ietf:params:oauth:grant-type:token-exchange`.
            store: whether the token response becomes the session, as after a login.
            parameters: of the token request; audience, organization and scope are sent where
                they are set.

        Raises:
            OAuthError, NetworkError, InvalidToken, ConfigError, CacheError: see these classes.
        """
        stored = self._find(new=True)
        last = self._authorization_parameters(stored, self._load(stored), None, None)
        form = {"grant_type": grant_type, **self._token_parameters(stored)}
        form["organization"] = last["organization"]
        form.update({name: None if v is None else str(v) for name, v in parameters.items()})
        response = _request_token(self._tenant(stored), form)
        if store:
            last.update({name: form[name] for name in _TOKEN_PARAMETERS})
            machine = grant_type == "client_credentials"
            self._create_session(stored, last, response, machine=machine)
        return str(response["access_token"])

    @_public
    def session(self) -> Session | None:
        """Who is logged in, to what and until when: None if nobody is. Makes no request.

        Raises:
            ConfigError: several sessions match.
        """
        stored = self._find_stored()
        record = stored.load() if stored else None
        return Session(record) if record else None

    @_public
    def logout(self, *, local: bool = False, browser: bool = False) -> None:
        """Revokes the refresh token at Auth0 (RFC 7009), and deletes the session in any case.

        Args:
            local: delete only.
            browser: also open the page that ends the browser's single-sign-on session.

        Raises:
            NetworkError, OAuthError: deleted, but not revoked. Only where another process has
                the session's lock for 60 s, a NetworkError means that nothing was done.
        """
        stored = self._find_stored()
        if stored is not None:
            self._log_out(stored, local, browser)


# ---- The function get_token ----------------------------------------------------------------------

_instances: dict[object, Auth0] = {}


def get_token(
    *,
    audience: str | None = None,
    scope: str | None = None,
    min_ttl: float = 60,
    interactive: bool = False,
    force_refresh: bool = False,
    **config: Unpack[Config],
) -> str:
    """A valid access token, as `Auth0.get_token` gives it; `config` are the arguments of `Auth0`.

    The types in this file's annotations exist for type checkers only: importing typing would
    double the time of an import. So `typing.get_type_hints` can't resolve them.

    Raises:
        Auth0Error: as `Auth0.get_token` does.
    """
    names = tuple(sorted(config.items()))
    try:
        if len(_instances) > 64:  # a program with many configurations
            _instances.clear()
        auth0 = _instances.get(names) or _instances.setdefault(names, Auth0(**config))
    except TypeError:  # an argument that can't be a key, such as params={...}, or an unknown one
        auth0 = Auth0(**config)
    del names, config  # a traceback shows the locals of this frame
    return auth0.get_token(
        audience=audience,
        scope=scope,
        min_ttl=min_ttl,
        interactive=interactive,
        force_refresh=force_refresh,
    )


# ---- Input and output of a command ---------------------------------------------------------------


def _print_out(text: str, end: str = "\n") -> None:
    """Writes the result to stdout; Auth0Error if that fails."""
    out = sys.stdout
    try:
        if os.name == "nt" and hasattr(out, "buffer"):  # as text \n is \r\n: $(...) keeps the \r
            out.flush()
            out.buffer.write((text + end).encode(out.encoding, out.errors or "strict"))
        else:
            out.write(text + end)
        out.flush()
    except UnicodeEncodeError:
        _print_out(text.encode("ascii", "backslashreplace").decode("ascii"), end)
    except (OSError, ValueError, AttributeError) as problem:
        try:  # else the interpreter fails again at its end, when it flushes the buffer
            os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        except (OSError, ValueError, AttributeError):
            pass
        reason = getattr(problem, "strerror", None) or "it is closed"
        raise Auth0Error(f"the result could not be written to stdout: {reason}") from None


def _print_json(value: object) -> None:
    import json

    _print_out(json.dumps(value))


def _read_secret_file(path: str) -> str:
    """The client secret from a file or the first line of stdin, without white space around it."""
    try:
        if path == "-":
            text = sys.stdin.readline(1 << 16)  # a password may follow
        else:
            with open(os.path.expanduser(path), encoding="utf-8") as file:
                text = file.read(1 << 16)
    except (OSError, ValueError, AttributeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"--client-secret-file can't be read: {reason}") from None
    text = text.removeprefix("\ufeff").strip()
    if not text or not text.isprintable():
        raise ConfigError("--client-secret-file is empty or has several lines: it takes one secret")
    return text


def _read_password() -> str:
    """The password from a hidden prompt on a terminal, else from the first line of stdin."""
    try:
        if _is_terminal(sys.stdin):
            from getpass import getpass

            return getpass("Password: ").strip()
        return sys.stdin.readline().strip()
    except (EOFError, OSError, ValueError, AttributeError):  # closed, or not text
        raise ConfigError("the password could not be read from stdin: write it there") from None


def _unexpected(problem: Exception, verbose: bool) -> str:
    """Describes an error that is no Auth0Error, without its values: they may be secrets."""
    places = _places_of(problem)
    text = f"unexpected {type(problem).__name__} at {places[-1]}: please report it"
    if isinstance(problem, (ImportError, AttributeError, SyntaxError)):
        quoted = str(problem).split("'")[1::2] or [""]  # "module 'x' has no ...", "... from 'x'"
        name = quoted[0 if isinstance(problem, AttributeError) else -1]
        file = getattr(sys.modules.get(name), "__file__", "") or getattr(problem, "filename", "")
        text = f"{_printable(file)} hides a module of Python: rename that file" if file else text
    return "\n  ".join([text, *places] if verbose else [text])


def _terminate(number: int, _: object) -> NoReturn:
    """A signal handler that ends a command as Ctrl-C does: it closes files and frees locks."""
    raise KeyboardInterrupt(128 + number)


def _guarded(prog: str | None, run: Callable[[], int | None], verbose: bool) -> int:
    """Runs a command, reports its errors, returns the exit code."""
    signal: Any = __import__("_signal")  # the core of signal: the interpreter has loaded it
    program = (prog or "auth0_cli").split()[0]
    _running_commands.append(program)
    caught: list[int] = []
    try:
        for number in (getattr(signal, name, 0) for name in ("SIGTERM", "SIGHUP")):
            # Windows has no SIGHUP, nohup ignores it, and a host program may have its own handler.
            if number and signal.getsignal(number) == signal.SIG_DFL:
                try:
                    signal.signal(number, _terminate)
                    caught.append(number)
                except ValueError:  # not the main thread: the host program handles signals
                    break
        return run() or 0
    except Auth0Error as problem:
        _print_err(f"{program}: {problem}")
        return problem.exit_code
    except KeyboardInterrupt as interrupt:
        _print_err("")
        return next((code for code in interrupt.args if type(code) is int), 130)
    except Exception as problem:  # noqa: BLE001 - a traceback may show a secret
        _print_err(f"{program}: {_unexpected(problem, verbose)}")
        return 1
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)
        _running_commands.pop()


# ---- Prompts -------------------------------------------------------------------------------------


def _fd(stream: Any) -> int:
    """The file descriptor of a stream, or -1 if it has none (IDLE, some notebooks)."""
    try:
        return int(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return -1


def _columns(stream: Any) -> int:
    """Width of the terminal, or 80 if unknown."""
    try:
        return max(20, os.get_terminal_size(_fd(stream)).columns or 80)
    except OSError:
        return 80


def _can_rewrite(stream: Any) -> bool:
    """True for a terminal that understands escape sequences; on Windows this enables them."""
    fd = _fd(stream)
    if fd < 0 or not _is_terminal(stream) or os.environ.get("TERM") == "dumb":
        return False
    if sys.platform == "win32":
        import ctypes
        import msvcrt

        handle = ctypes.c_void_p(msvcrt.get_osfhandle(fd))
        # ENABLE_PROCESSED_OUTPUT, _WRAP_AT_EOL_OUTPUT and _VIRTUAL_TERMINAL_PROCESSING
        return bool(ctypes.windll.kernel32.SetConsoleMode(handle, 7))
    return True


def _is_foreground(fd: int) -> bool:
    """Whether this process may use the terminal; a background job would be stopped."""
    try:
        return bool(_posix.tcgetpgrp(fd) == _posix.getpgrp())
    except OSError:  # not the controlling terminal (`su -c`): there is no job control
        return True


def _edited(keys: str) -> str:
    """The line that these keys make. Only visible ASCII counts: an address has nothing else."""
    import re

    # Arrow keys (of Windows too), the marks around a bracketed paste, responses of the terminal.
    escape = r"[\0\xe0].|\x1b(\[\[?[0-?]*[ -/]*[@-~]|[\]P^_][^\x07\x1b]*(\x07|\x1b\\)?|O.|.)?"
    line = ""
    for key in re.sub(escape, "", keys):
        if key in "\b\x7f":
            line = line[:-1]
        elif key in "\x15\x17":  # Ctrl-U and Ctrl-W
            line = ""
        elif "!" <= key <= "~":
            line += key
    return line


class _Prompt:
    """Shows a login to the user while it waits, and reads the lines that the user types.

    On a terminal that can be rewritten the last line counts down; elsewhere all lines are plain.
    Lines are read from a terminal, also where stderr goes through a pipe.

    Args:
        show: gets the prompt as a dict; then nothing is printed or read.
        open_browser: whether the browser may be opened.
        qr: whether to draw a QR code; None where it fits.
        cancel: ends the wait once it is set.
    """

    def __init__(
        self,
        show: Show | None = None,
        open_browser: bool = True,
        qr: bool | None = None,
        cancel: Cancel | None = None,
    ) -> None:
        self._show: Any = show
        self._open_browser, self._qr, self._cancel = open_browser, qr, cancel
        self._live = show is None and _can_rewrite(sys.stderr)
        self._colour = self._live and not os.environ.get("NO_COLOR")
        self._stdin = _fd(sys.stdin)
        # In a notebook or IDLE the user sees another stderr, and types elsewhere.
        is_seen = show is None and _fd(sys.stderr) == 2
        self._reads = is_seen and self._stdin >= 0 and _is_terminal(sys.stdin)
        self._mode: Any = None  # of the terminal, to be restored
        self._keys = ""  # typed since the last line
        self._status = ""  # the countdown, and what was typed
        self._url = ""  # opened by Enter

    def __enter__(self) -> _Prompt:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()
        if self._mode and _is_foreground(self._stdin):
            import termios
            from contextlib import suppress

            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._stdin, termios.TCSANOW, self._mode)

    def is_unseen(self) -> bool:
        """Whether nobody reads the prompt: neither a program nor a terminal shows it."""
        return self._show is None and not _is_terminal(sys.stderr)

    def show(self, prompt: Json, can_use_code: bool = False) -> None:
        """Shows a prompt, then opens the browser if the flow needs one on this machine."""
        is_browser = prompt["event"] == "authorize"
        if self._show:
            self._show(prompt)
        self.say(self._browser_text(prompt) if is_browser else self._device_text(prompt))
        if is_browser and self._open_browser and _open_browser(prompt["url"]):
            self.say("Your browser is opening the page.")
        if self._reads and is_browser:
            code = ", or type c and Enter to use a code on another device" * can_use_code
            self.say(f"If the last page can't be shown, paste its address here{code}.")
        elif self._reads and self._open_browser and _find_browsers():
            self._url = prompt["verification_uri_complete"]
            self.say("Enter opens the page in a browser of this machine.\n")
        if not self._live:
            self.say(f"Waiting for up to {prompt['expires_in']} s; Ctrl-C stops it.")

    def _browser_text(self, prompt: Json) -> str:
        text = f"To log in, open this page in a browser of this machine:\n\n{prompt['url']}\n"
        ssh = os.environ.get("SSH_CONNECTION", "").split()[2:4]  # address and port of this machine
        if len(ssh) == 2:
            address = prompt["redirect_uri"].split("/")[2]
            to = "@".join(filter(None, (os.environ.get("USER"), ssh[0])))
            to = to if ssh[1] == "22" else f"-p {ssh[1]} {to}"
            text += (
                "\nThis is an SSH session: for a browser of your own machine first run there\n\n"
                f"ssh -L {address.split(':')[1]}:{address} {_printable(to, 120)}\n"
            )
        return text

    def _device_text(self, prompt: Json) -> str:
        page, complete = prompt["verification_uri"], prompt["verification_uri_complete"]
        qr_code = self._qr_code(complete)
        scan = "scan this code with a phone, or " if qr_code else ""
        code = f"\x1b[1m{prompt['user_code']}\x1b[0m" if self._colour else prompt["user_code"]
        text = (
            f"{qr_code}To log in, {scan}open this page in a browser on any device:\n\n{page}\n\n"
            f"and enter the code  {code}\n"
        )
        if complete != page:
            text += f"\nor open this one, and check the code:\n\n{complete}\n\n"
        return (
            f"{text}Approve only a login that you have started yourself, here: never for a code "
            "that someone sent you.\n"
        )

    def _qr_code(self, url: str) -> str:
        """A QR code of the page, where there is room and a character set for it."""
        from shutil import get_terminal_size

        try:
            text = _qr_text(url, self._colour) + "\n"
            text.encode(sys.stderr.encoding or "ascii")
        except (ValueError, AttributeError):
            return ""
        columns, lines = get_terminal_size((0, 0))
        fits = self._live and text.index("\n") < columns and text.count("\n") + 15 < lines
        return text if (fits if self._qr is None else self._qr) else ""

    def poll_line(self, deadline: float) -> str | None:
        """Updates the countdown to `deadline` (monotonic seconds); returns a line that was typed.

        It ends when nothing comes after Enter, so an address pasted in several lines is one line.

        Raises:
            LoginFailed: the login was cancelled.
        """
        if self._cancel and self._cancel.is_set():
            raise LoginFailed("the login was cancelled by the program: start it again", "cancelled")
        keys = self._read_keys() if self._reads else ""
        line = _edited(self._keys)
        entered = self._keys.endswith("\n") and not keys
        self._keys = "" if entered else self._keys + keys
        if self._live:
            left = round(deadline - time.monotonic())
            status = f"Waiting {left // 60:2}:{left % 60:02} "
            room = max(1, _columns(sys.stderr) - len(status) - 1)
            status += _edited(self._keys)[-room:]
            if status != self._status:
                _print_err(f"\r\x1b[J{status}", "")
            self._status = status
        return line.replace("&amp;", "&") if entered else None

    def wait(self, seconds: float, deadline: float) -> None:
        """Waits between two polls; Enter opens the page that was shown."""
        end = time.monotonic() + seconds
        step = 0.2 if self._live or self._reads or self._cancel else seconds
        while (left := end - time.monotonic()) > 0:
            entered = self.poll_line(deadline) is not None
            if entered and self._url and not _open_browser(self._url):
                self.say("No browser starts here: open the page yourself.")
            time.sleep(min(step, left))

    def say(self, text: str) -> None:
        """Prints lines, broken at words to the width of a terminal; a URL or a command stays whole.

        Nothing is printed for a program that shows the prompt itself.
        """
        from textwrap import fill

        if self._show:
            return
        self.end()
        width = _columns(sys.stderr) if _is_terminal(sys.stderr) else 1 << 16
        for line in text.split("\n"):
            whole = "\x1b" in line or line.startswith("ssh ")
            folded = fill(line, width, break_long_words=False, break_on_hyphens=False)
            _print_err(line if whole else folded)

    def end(self) -> None:
        """Clears the countdown."""
        if self._status:
            _print_err("\r\x1b[J", "")
        self._status = ""

    def _read_keys(self) -> str:
        """The keys typed since the last call; Enter is a line feed. Echoes them if not live."""
        if sys.platform == "win32":
            import msvcrt

            keys = ""
            while msvcrt.kbhit():
                keys += msvcrt.getwch().replace("\r", "\n")
            if not self._live:
                _print_err(keys, "")
            return keys
        import select
        import termios

        try:
            if not _is_foreground(self._stdin):
                return ""
            mode = termios.tcgetattr(self._stdin)
            if mode[3] & termios.ICANON:  # its lines have a limit: 4096 bytes, on macOS 1024
                self._mode = [*mode]
                mode[3] &= ~(termios.ICANON | termios.ECHO * self._live)
                termios.tcsetattr(self._stdin, termios.TCSANOW, mode)
            if not select.select([self._stdin], [], [], 0)[0]:
                return ""
            data = os.read(self._stdin, 1 << 16)
        except (OSError, ValueError, termios.error):
            data = b""
        self._reads = bool(data)  # else the terminal is gone
        return data.decode("ascii", "ignore")


# ---- QR code (ISO/IEC 18004) ---------------------------------------------------------------------

# Level L (table 9): the version, its number of data codewords and of error correction codewords.
_QR_VERSIONS = ((1, 19, 7), (2, 34, 10), (3, 55, 15), (4, 80, 20), (5, 108, 26))
_QR_FORMAT = 0x77C4  # the format information of level L and mask 0 (table C.1)


def _qr_times(a: int, b: int) -> int:
    """The product in the field of 256 elements (section 7.5.2)."""
    return a * (b & 1) ^ _qr_times((a << 1) ^ (a >> 7) * 0x11D, b >> 1) if b else 0


def _qr_codewords(data: bytes) -> tuple[int, bytes]:
    """The version, and the codewords in byte mode (sections 7.4.5 and 7.5.2)."""
    fitting = [row for row in _QR_VERSIONS if len(data) + 2 <= row[1]]
    if not fitting:
        raise ValueError("too long for a QR code of version 5")
    version, size, degree = fitting[0]
    # The digits of the mode, the length, the data and the terminator; then padding.
    words = (bytes.fromhex(f"4{len(data):02x}{data.hex()}0") + b"\xec\x11" * size)[:size]
    generator, root = [1], 1  # the polynomial whose roots are the powers of 2 (annex A)
    for _ in range(degree):
        generator = [a ^ _qr_times(b, root) for a, b in zip([*generator, 0], [0, *generator])]
        root = _qr_times(root, 2)
    rest = [0] * degree  # of the division by it
    for word in words:
        shifted = zip([*rest[1:], 0], generator[1:])
        rest = [a ^ _qr_times(word ^ rest[0], b) for a, b in shifted]
    return version, words + bytes(rest)


def _qr_symbol(version: int, words: bytes) -> list[list[int]]:
    """The rows of a symbol; a dark module is 1.

    First the function patterns (section 6.3), then the masked data (7.7, 7.8) in the modules that
    are still -1, then the format information (7.9). The mask is always 0: a reader accepts each.
    """
    side = 17 + 4 * version
    grid = [[-1] * side for _ in range(side)]
    for i in range(-8, 9):  # the format information goes here
        grid[8][i] = grid[i][8] = 0
    for i in range(side):
        grid[6][i] = grid[i][6] = 1 - i % 2
    grid[-8][8] = 1
    for y in range(8):  # three corners mirror each other: a finder pattern and its separator
        for x in range(8):
            dark = max(abs(x - 3), abs(y - 3)) not in (2, 4)
            grid[y][x] = grid[y][-1 - x] = grid[-1 - y][x] = int(dark)
    if version > 1:
        for y, row in enumerate(("11111", "10001", "10101", "10001", "11111")):
            grid[y - 9][-9:-4] = map(int, row)

    bits = (word >> i & 1 for word in words for i in range(7, -1, -1))
    rows = range(side)
    for right in (*range(side - 1, 6, -2), 5, 3, 1):
        rows = rows[::-1]  # up, then down
        for y in rows:
            for x in (right, right - 1):
                if grid[y][x] < 0:
                    grid[y][x] = next(bits, 0) ^ (x + y + 1) % 2

    for i, place in enumerate((*range(6), 7, 8, *range(-7, 0))):
        grid[place][8] = _QR_FORMAT >> i & 1
        grid[8][place] = _QR_FORMAT >> 14 - i & 1
    grid[8][-8] = grid[8][8]  # both copies share this module
    return grid


def _qr_text(data: str, colour: bool) -> str:
    """A QR code in half-block characters with its quiet zone; ValueError if the data are long."""
    symbol = _qr_symbol(*_qr_codewords(data.encode("utf-8")))
    side = len(symbol) + 8
    blank = [[0] * side] * 4
    rows = iter((*blank, *([0] * 4 + row + [0] * 4 for row in symbol), *blank, [1] * side))
    on, off = ("\x1b[97;40m", "\x1b[0m") if colour else ("", "")
    return "".join(
        on + "".join("█▀▄ "[2 * top + bottom] for top, bottom in zip(*pair)) + off + "\n"
        for pair in zip(rows, rows)
    )


# ---- Doctor --------------------------------------------------------------------------------------

_RENEWS = "renews automatically"
_NO_REFRESH_TOKEN = (
    "request the scope offline_access, and allow it in the Dashboard on the API (Allow Offline "
    "Access) and the application (grant Refresh Token)"
)
_NO_API = "https://unknown.invalid/doctor"  # no host has such a name (RFC 2606)
# The checks, each with those that have to pass first: else it would repeat their problem.
_CHECKS = (
    "settings network:settings tenant:network clock:network secret:tenant:machine "
    "keys:tenant:user browser_flow:tenant:user callbacks:browser_flow api:callbacks:login_page "
    "device_flow:browser_flow refresh_token:browser_flow ports:settings:user "
    "browser:settings:user directory versions:settings:directory session:versions"
)


class _Advice(Auth0Error):
    """A finding of `doctor` that stops nothing."""

    exit_code = 0


class _Doctor:
    """The checks of `doctor`: each method returns what is right, or raises what is not.

    Attributes:
        passed: the checks that found no problem, and what they found: a `user` or a `machine`,
            a `login_page`.
    """

    def __init__(self, auth0: Auth0) -> None:
        self.passed: set[str] = set()
        self._auth0 = auth0
        self._cache = cache = auth0._cache()
        if type(cache) is FileCache:  # too loose permissions are reported here, and not changed
            auth0._arguments["cache"] = self._cache = FileCache(cache.directory)
            self._cache.repairs = False

    def directory(self) -> str:
        """Whether sessions can be kept: written, locked, and read by nobody else."""
        cache = self._cache
        probe = _StoredSession(cache, "doctor", "probe", str(time.time_ns()))
        probe.read()  # refuses a directory that others could have written
        with probe.lock():
            probe.check_writable()
        if not isinstance(cache, FileCache):
            return "a cache of the program's own"
        _unlink(cache.path(probe.key, ".lock"))
        return os.path.realpath(cache.directory)

    def settings(self) -> str:
        """Domain and client, and whether a user or a machine uses them."""
        auth0 = self._auth0
        try:
            self.directory()
        except Auth0Error:  # that check reports it, and the others go on without it
            auth0._arguments["cache"] = MemoryCache()
        self._stored = stored = auth0._find(new=True)
        self._server = auth0._tenant(stored)
        try:
            record = self._record(auth0._find_stored())
        except Auth0Error:  # `session` reports it
            record = None
        machine = _has_no_user(record) if record else auth0._is_confidential(stored)
        self.passed.add("machine" if machine else "user")
        record = record or _new_record()
        self._parameters = auth0._authorization_parameters(stored, record, None, None)
        return f"{stored.domain}, application {_printable(stored.client_id, 80)}"

    def network(self) -> str:
        """Name, connection, certificate, proxy."""
        started = time.monotonic()
        self._about = self._server.get("/.well-known/openid-configuration")
        text = f"answers in {(time.monotonic() - started) * 1000:.0f} ms"
        if self._about.proxy:
            text += f" through the proxy {self._about.proxy}"
        if self._server.origin.startswith("https"):
            file = os.environ.get("SSL_CERT_FILE")
            text += ", its certificate is valid" + (f" (by {_printable(file)})" if file else "")
        return text

    def tenant(self) -> str:
        """The discovery document (OIDC Discovery section 3)."""
        issuer = (self._about.json or {}).get("issuer")
        if issuer != self._server.issuer:
            raise ConfigError(
                f"its discovery document names the issuer {_printable(issuer, 80)}, not "
                f"{self._server.issuer}: is this the tenant's domain, or its custom domain?"
            )
        return f"its issuer is {issuer}"

    def clock(self) -> str:
        """This machine's clock against the server's Date."""
        from email.utils import parsedate_to_datetime

        try:
            date = parsedate_to_datetime(self._about.headers.get("date", ""))
            ahead = time.time() - date.timestamp()
        except (ValueError, TypeError, OverflowError):
            raise _Advice("the server does not say what time it is") from None
        if abs(ahead) > LEEWAY:
            side = "fast" if ahead > 0 else "slow"
            raise ConfigError(f"this clock is {_duration(abs(ahead))} {side}: set it")
        return "agrees with the server's"

    def secret(self) -> str:
        """A machine's secret: requests a token for an API that does not exist."""
        self._auth0._choose_flow("client-credentials", self._stored, {})  # is there a secret?
        form = {"grant_type": "client_credentials", "audience": _NO_API}
        try:
            self._server.post("/oauth/token", form, "never")
        except OAuthError as problem:
            if _NO_API not in problem.description and problem.error != "invalid_target":
                raise
        return "is right; no token was issued, since each counts against the quota"

    def keys(self) -> str:
        """The keys that sign ID tokens."""
        keys = self._server.keys()
        if not keys:
            raise ConfigError("it shows no RSA key for RS256: choose RS256 for the application")
        return f"{len(keys)} for RS256"

    def _grant(self, form: Form, path: str = "/oauth/token") -> str:
        """Whether a grant is enabled: then a made-up code or token is refused as invalid."""
        try:
            self._server.post(path, form, "never")
        except OAuthError as problem:
            if problem.error != "invalid_grant":
                unclear = _is_grant_off(problem) or problem.error == "invalid_request"
                error = problem if "grant_type" in form else _device_error(problem)
                raise _Advice(str(error)) if unclear else error from None
        return "is enabled"

    def browser_flow(self) -> str:
        """The grant of the browser flow."""
        form = {
            "grant_type": "authorization_code",
            "redirect_uri": _callback_urls(DEFAULT_PORTS[:1]),
        }
        return self._grant({**form, "code": "doctor", "code_verifier": "doctor" * 8})

    def callbacks(self) -> str:
        """The callback URLs: /authorize goes to a login page, or back to a registered URL."""
        from secrets import token_urlsafe
        from urllib.parse import parse_qsl

        ports, unseen, seen = self._auth0._ports(), list[int](), set[str]()
        query = {name: value for name, value in self._parameters.items() if value}
        query.update(dict.fromkeys("state nonce code_challenge".split(), token_urlsafe(32)))
        query.update(response_type="code", code_challenge_method="S256")
        query["client_id"] = self._stored.client_id
        for port in ports:
            query["redirect_uri"] = _callback_urls([port or 65535])
            response = self._server.send(f"/authorize?{_form_encode(query).decode('ascii')}")
            url, _, rest = response.headers.get("location", "/").partition("?")
            error = dict(parse_qsl(rest))
            here = url.startswith(("/", self._server.issuer)) and not url.startswith("//")
            known = response.status in (200, 302, 303) and (here or url == query["redirect_uri"])
            if not known or "callback" in error.get("error_description", "").lower():
                unseen.append(port)
                seen.add(f"status {response.status}")
            elif error.get("error") != "unauthorized_client":  # which `browser_flow` reports
                self._refused = error
                self.passed.add("login_page")
        if unseen:
            raise _Advice(
                f"{_callback_urls(unseen)} not seen to be registered ({', '.join(sorted(seen))}): "
                "add this line to the Allowed Callback URLs (Dashboard > the application > "
                f"Settings): {_callback_urls(ports)}"
            )
        return f"registered: {_callback_urls(ports)}"

    def api(self) -> str:
        """The API that a login requests."""
        code, said = (_printable(self._refused.get(n, "")) for n in ("error", "error_description"))
        if code:
            what = _with_hint(code, said, "correct --audience, or what else the login requests")
            raise OAuthError(f"Auth0 refused {what}", code, said)
        audience = self._parameters["audience"]
        none = "none is named: a token is for the tenant's Default Audience, else for /userinfo"
        return f"{_printable(audience, 120)} exists" if audience else none

    def device_flow(self) -> str:
        """The grant of the device flow: requests a code that nobody will use."""
        audience = None if "login_page" in self.passed else self._parameters["audience"]
        return self._grant({"scope": DEFAULT_SCOPE, "audience": audience}, "/oauth/device/code")

    def refresh_token(self) -> str:
        """The grant that renews a session."""
        return self._grant({"grant_type": "refresh_token", "refresh_token": "doctor"})

    def ports(self) -> str:
        """The callback ports."""
        with _Listener(self._auth0._ports()) as listener:
            return f"{listener.redirect_uri} can be opened"

    def browser(self) -> str:
        """What `--flow auto` would take."""
        browsers = _find_browsers()
        if not _has_local_display() or not browsers:
            raise _Advice("none that you would see from here: a device code is used")
        return f"{_printable(browsers[0][0], 80)} would be opened"

    def _record(self, stored: _StoredSession | None) -> Record | None:
        """A stored session. Unlike `load` this sets no damaged one aside."""
        data = stored.read() if stored else None
        try:
            return _parse_record(data, stored.key) if stored and data is not None else None
        except ValueError:
            raise CacheError("it is damaged: the next command sets it aside, then log in") from None

    def versions(self) -> str:
        """Sessions that a newer version of this file has written."""
        newer: dict[str, str] = {}
        for stored in self._auth0._matching(any_profile=True):
            try:
                self._record(stored)
            except CacheError as problem:  # `session` reports any other
                if isinstance(problem, _NewerSession):
                    newer[stored.key] = stored.flags()
        if newer:
            kind = CacheError if self._stored.key in newer else _Advice
            names = ", ".join(newer.values())
            raise kind(f"a newer version of auth0_cli wrote the session {names}: update this copy")
        return "no session is of a newer version"

    def session(self) -> str:
        """Who is logged in, and whether that lasts."""
        record = self._record(self._auth0._find_stored())
        if record is None and "machine" in self.passed:
            return "none is stored, and a machine needs no login"
        if record is None:
            login = self._auth0._login_command()
            empty = os.environ.get(ENVIRONMENT["client_secret"], "x").strip() == ""
            why = " (AUTH0_CLIENT_SECRET is set but empty)" * empty
            raise _Advice(f"nobody is logged in yet{why}: run {login}")
        session = Session(record)
        if not session._is_machine and not session.refreshable:
            who = f"{session.who()}, but without a refresh token (revoked, or never issued)"
            raise _Advice(f"{who}: {_NO_REFRESH_TOKEN}")
        return f"{session.who()}, {_RENEWS}"


# ---- Commands ------------------------------------------------------------------------------------

# Options of several commands. One is None where a command lacks it or a host program has set it.
_COMMON_OPTIONS = (
    "domain client_id audience organization profile cache ports client_secret_file param scope"
).split()


def _hide_dashboard(problem: Auth0Error, prog: str | None) -> None:
    """Replaces advice for the Dashboard, which the users of a host program do not have."""
    if prog and "Dashboard" in problem.hint:
        problem.args = (f"{problem.reason}: ask the developers of {prog.split()[0]}",)


def _host_settings(defaults: Auth0 | None) -> set[str]:
    """The settings that a host program has made: its users get neither option nor advice."""
    given = defaults._arguments if defaults else {}
    return {name for name, value in given.items() if value is not None}


def _auth0_from(args: Namespace, prog: str | None, defaults: Auth0 | None) -> Auth0:
    """The options that are given, on top of the host program's defaults."""
    given = dict(defaults._arguments) if defaults else {}
    for name in _COMMON_OPTIONS[:7]:
        given[name] = getattr(args, name) or given.get(name)
    if args.client_secret_file:
        given["client_secret"] = _read_secret_file(args.client_secret_file)
    if args.param:
        if not all("=" in item[1:] for item in args.param):
            raise ConfigError("--param takes KEY=VALUE, as in --param connection=github")
        params = dict(item.split("=", 1) for item in args.param)
        given["params"] = {**(given.get("params") or {}), **params}
    if args.verbose:
        given["trace"] = _print_err
    if prog:
        given["login_command"] = f"{prog} login"
    auth0 = Auth0(**given)
    auth0._preset = _host_settings(defaults) if given.get("login_command") else set()
    auth0._command = f"{prog or _program_name()} {args.command}"
    return auth0


def _command_login(auth0: Auth0, args: Namespace) -> None:
    auth0._arguments["scope"] = args.scope or auth0._arguments["scope"]
    if args.no_wait:
        if args.flow not in ("auto", "device"):
            raise ConfigError(f"--no-wait is for the device flow: leave out --flow {args.flow}")
        _print_json(auth0.start_login())
        return
    if args.resume:
        session = auth0.finish_login(timeout=args.timeout)
    else:
        session = auth0.login(
            flow=args.flow,
            show=_print_json if args.json else None,
            open_browser=not args.no_browser,
            timeout=args.timeout,
            username=args.username,
            password=_read_password if args.username else None,
            realm=args.realm,
            qr=args.qr,
        )
    if args.json:
        names = (*_NAME_FIELDS, "user")
        _print_json({"event": "logged_in", **{name: getattr(session, name) for name in names}})
        return
    _print_err(f"Logged in to {session.domain} as {session.who()}.")
    for token in session.tokens:
        _print_err("  " + _describe_token(token))
    if not session._is_machine and not session.refreshable:
        notice = _Advice(f"There is no refresh token, so this login will end: {_NO_REFRESH_TOKEN}")
        _hide_dashboard(notice, args.prog)
        _print_err(f"{notice}.")


def _exec_api_version() -> str:
    """The apiVersion that kubectl asks for: it accepts no other."""
    known = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"]
    try:
        version = _parse_json(os.environ["KUBERNETES_EXEC_INFO"].encode())["apiVersion"]
    except (KeyError, ValueError):  # unset or unreadable
        return known[0]
    if version not in known:
        name = _printable(version, 80)
        raise ConfigError(f"kubectl wants {name}: set {known[0]} in its kubeconfig")
    return str(version)


def _command_token(auth0: Auth0, args: Namespace) -> None:
    api_version = args.exec_credential and _exec_api_version()
    wants_id_token = args.id_token
    if api_version and not wants_id_token:  # for kubectl a user's ID token
        session = auth0.session()
        machine = session._is_machine if session else auth0._is_confidential(auth0._find(new=True))
        wants_id_token = not machine
    if wants_id_token:
        if args.login:
            auth0._token_entry(None, args.scope, args.min_ttl, True, False)
        token = auth0.get_id_token(min_ttl=args.min_ttl, force_refresh=args.force_refresh)
        expires_at = _decode_claims(token)["exp"]
        shown: Json = {"id_token": token}
    else:
        entry = auth0._token_entry(None, args.scope, args.min_ttl, args.login, args.force_refresh)
        token, expires_at = entry["access_token"], entry["expires_at"]
        names = "access_token token_type expires_at expires_in audience scope".split()
        values = {**entry, **_token_summary(entry)}
        shown = {name: values[name] for name in names}
    if api_version:
        last = 253402300799  # of the year 9999: RFC 3339 has no later one
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(expires_at, last)))
        status = {"token": token, "expirationTimestamp": until}
        _print_json({"apiVersion": api_version, "kind": "ExecCredential", "status": status})
    elif args.json:
        _print_json(shown)
    else:
        _print_out("Authorization: Bearer " * args.header + token)


def _describe_token(token: Json) -> str:
    left = token["expires_in"]
    api = _printable(token["audience"] or "no API, good for /userinfo only", 120)
    until = f"for {_duration(left)}" if left else "expired"
    return f"{api}: {until}, scope {_printable(token['scope'] or 'none')}"


def _print_session(session: Session, file: str | None) -> None:
    """Prints a session as `status` shows it."""
    colour = _can_rewrite(sys.stdout) and not os.environ.get("NO_COLOR")
    who = f"\x1b[1m{session.who()}\x1b[0m" if colour else session.who()
    client, profile = _printable(session.client_id, 80), _printable(session.profile, 80)
    renews = session.refreshable or session._is_machine
    _print_out(f"{who} at {session.domain}")
    _print_out(f"  application  {client}, profile {profile}")
    _print_out(f"  session      {_RENEWS if renews else 'ends when the access token expires'}")
    for token in session.tokens:
        _print_out(f"  token        {_describe_token(token)}")
    if file:  # Python of the Windows store redirects the files to another directory
        _print_out(f"  file         {_printable(os.path.realpath(file), 400)}")


def _command_status(auth0: Auth0, args: Namespace) -> None:
    found: list[tuple[Session, str | None]] = []
    problem: CacheError | None = None
    for stored in auth0._matching():
        try:
            if record := stored.load():
                found.append((Session(record), stored.file()))
        except CacheError as unread:  # it hides none of the others
            problem = problem or CacheError(f"{stored.flags()}: {unread}")
    if args.json:
        _print_json([session.to_dict() for session, _ in found])
    else:
        for session, file in found:
            _print_session(session, file)
    if problem:
        raise problem
    if not found:
        raise LoginRequired(f"nobody is logged in: run {auth0._login_command()}")


def _command_doctor(auth0: Auth0, args: Namespace) -> int:
    doctor = _Doctor(auth0)
    findings: list[dict[str, str]] = []
    exit_code = 0
    for check, *needs in (item.split(":") for item in _CHECKS.split()):
        if not doctor.passed.issuperset(needs):
            continue
        status, message, hint = "ok", "", ""
        try:
            message = getattr(doctor, check)()
        except Auth0Error as problem:
            _hide_dashboard(problem, args.prog)
            status, message, hint = "advice", str(problem), problem.hint
            if problem.exit_code:
                status, exit_code = "problem", max(exit_code, problem.exit_code)
        if status != "problem":
            doctor.passed.add(check)
        findings.append({"check": check, "status": status, "message": message, "hint": hint})
        if not args.json:
            _print_out(f"{status:<8} {check.replace('_', ' '):<14} {message}")
    if args.json:
        _print_json(findings)
    return exit_code


def _command_logout(auth0: Auth0, args: Namespace) -> None:
    if args.all:
        found = [s for note in ("", "pending", "application") for s in auth0._matching(note=note)]
    else:
        found = list(filter(None, [auth0._find_stored()]))
    several = len({(stored.domain, stored.client_id) for stored in found}) > 1
    if several:  # the secret belongs to one of them
        auth0._arguments.update(client_secret="", client_assertion=None)
    done = False
    last: Auth0Error | None = None
    for stored in found:
        client = f", client {_printable(stored.client_id, 80)}" if several else ""
        name = f"{stored.domain}{client}, profile {_printable(stored.profile, 80)}"
        try:
            if auth0._log_out(stored, args.local, args.browser, remember=not args.all):
                _print_err(f"Logged out of {name}.")
                done = True
        except Auth0Error as problem:
            if args.all:
                _print_err(f"{stored.flags()}: {problem}")
            last = problem
    if last:
        raise last
    if not done:
        _print_err("Nobody was logged in.")


# ---- Options -------------------------------------------------------------------------------------

# In help texts, indented lines (commands, addresses) stay whole; the others are wrapped.
_EXAMPLES = """examples:
  {prog} login --domain acme.eu.auth0.com --client-id CLIENT_ID
  {prog} token --audience https://api.example.com
  {prog} token --header | curl -H @- https://api.example.com/

environment variables, for values that no option gives: {variables}

exit codes: 0 done, 1 failed, 2 usage, 3 log in first, 4 refused, 5 try again, 130 interrupted"""
_EPILOGS = {
    "login": """examples:
  {prog} login --domain acme.eu.auth0.com --client-id CLIENT_ID
  {prog} login --flow device --audience https://api.example.com

For agents, which can't keep a command waiting for the user, in two commands:
  {prog} login --no-wait
  {prog} login --resume""",
    "token": "examples:\n  {prog} token --json\n  {prog} token --header | curl -H @- URL",
    "status": "examples:\n  {prog} status\n  {prog} status --json",
    "doctor": "examples:\n  {prog} doctor\n  {prog} doctor --json",
    "logout": "examples:\n  {prog} logout\n  {prog} logout --all",
}
_REGISTER = "For the browser flow, add this line to the application's Allowed Callback URLs:"
# The commands that take an option (login, token, status, doctor, logout): names METAVAR  help
_FLAGS = f"""\
l.... --flow FLOW          {", ".join(FLOWS)}; default auto
l.... --no-browser         print the URL, open no browser
l.... --qr                 draw a QR code of the device flow's page
l.... --no-qr              draw no QR code
l.... --timeout SECONDS    time to wait for the user; default 300
l.... --no-wait            for agents: start a device login, print it as JSON, and exit
l.... --resume             for agents: finish the login that --no-wait has started
l.... --json               print prompts and result as JSON lines
l.... --username USERNAME  user of the password flow (discouraged)
l.... --realm REALM        connection of the password flow
.t... --header           print a header line, for curl -H @-
.t... --id-token         print the ID token
.t... --exec-credential  print kubectl's ExecCredential: a user's ID token, a machine's access token
.t... --min-ttl SECONDS  get a new token if the stored one expires sooner than this; default 60
.t... --force-refresh    get a new token in any case
.t... --login            log in first if that is needed
.tsd. --json             print the result as JSON
....o --all              log out of every stored session that matches
....o --local            delete the session without revoking its refresh token
....o --browser          also end the single-sign-on session in the browser
ltsdo --domain DOMAIN              the tenant, such as acme.eu.auth0.com
ltsdo --client-id CLIENT_ID        client ID of the application
lt.do --client-secret-file PATH    file with the client secret (- for stdin)
lt.d. --audience AUDIENCE          identifier of the API
lt... --scope SCOPE                scopes to request; default for a user: {DEFAULT_SCOPE}
lt... --organization ORGANIZATION  organization of the user, by ID or name
ltsdo --profile PROFILE            name of one of several sessions of the application
ltsdo --cache DIR                  directory of the session files
lt.d. --port N[,N...]              callback ports of the browser flow; 0 for any free port
lt... --param KEY=VALUE            another /authorize parameter, such as connection=github
ltsdo -v --verbose                 print a line for each request""".splitlines()
_FLAG_OPTIONS: dict[str, dict[str, Any]] = {  # for add_argument
    "--flow": {"choices": FLOWS, "default": "auto"},
    "--qr": {"default": None},
    "--no-qr": {"dest": "qr", "action": "store_false"},
    "--timeout": {"type": float, "default": 300},
    "--min-ttl": {"type": float, "default": 60},
    "--port": {"dest": "ports"},
    "--param": {"action": "append"},
}


def _help_formatter() -> Any:
    """The formatter for argparse, with an explicit width: finding it would import shutil."""
    from argparse import RawDescriptionHelpFormatter
    from functools import partial

    columns = os.environ.get("COLUMNS", "")
    width = ((columns.isdecimal() and int(columns)) or _columns(sys.stdout)) - 2

    class Formatter(RawDescriptionHelpFormatter):
        def _split_lines(self, text: str, width: int) -> list[str]:
            from textwrap import wrap

            return wrap(text, width, break_long_words=False, break_on_hyphens=False)

        def format_help(self) -> str:
            wrap = self._split_lines
            lines = super().format_help().split("\n")
            return "\n".join(x if x[:1] == " " else "\n".join(wrap(x, width)) for x in lines)

    return partial(Formatter, width=width)


# ---- Command line --------------------------------------------------------------------------------


_COMMANDS: dict[str, tuple[Callable[[Auth0, Namespace], int | None], str]] = {
    "login": (_command_login, "log in with a browser, or with a code on another device"),
    "token": (_command_token, "print a valid access token, after a refresh if needed"),
    "status": (_command_status, "show the sessions: users, tenants, APIs, scopes and expiry"),
    "doctor": (_command_doctor, "check the set-up, and explain each finding"),
    "logout": (_command_logout, "revoke the refresh token at Auth0 and delete the session"),
}


def _error_event(error: Auth0Error) -> Json:
    """An error as `login --json` prints it."""
    import re

    name = re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", type(error).__name__).lower()
    event: Json = {"event": "error", "error": error.error or name, "message": str(error)}
    retry = {"retry_after": error.retry_after} if error.retry_after else {}
    return {**event, "hint": error.hint, **retry}


def _run(command: str, prog: str | None, defaults: Auth0 | None, args: Namespace) -> int | None:
    """Runs a command with the arguments that a parser has found."""
    from argparse import Namespace

    given = {name[6:]: value for name, value in vars(args).items() if name[:6] == "auth0_"}
    args = Namespace(command=command, prog=prog, **{**dict.fromkeys(_COMMON_OPTIONS), **given})
    try:
        return _COMMANDS[command][0](_auth0_from(args, prog, defaults), args)
    except Auth0Error as error:
        _hide_dashboard(error, prog)
        if command == "login" and (args.json or args.no_wait):  # its caller reads stdout only
            _print_json(_error_event(error))
        raise


def _run_mounted(command: str, prog: str | None, defaults: Auth0 | None, args: Namespace) -> int:
    """Runs a command for `args.run(args)` of a host program, and returns the exit code."""
    return _guarded(prog, lambda: _run(command, prog, defaults, args), args.auth0_verbose)


def _options_of(command: str) -> list[str]:
    """The lines of the options that this command takes."""
    column = list(_COMMANDS).index(command)
    return [line[6:] for line in _FLAGS if line[column] != "."]


def _examples(text: str, prog: str | None, defaults: Auth0 | None) -> str:
    """A help text, without the options that a host program has set."""
    import re

    flags = "|".join(_host_settings(defaults)).replace("_", "-")
    variables = ", ".join(ENVIRONMENT.values())
    text = text.format(prog=prog or _program_name(), variables=variables)
    return re.sub(f" --({flags}) \\S+", "", text)


def add_commands(
    subparsers: Any, *, prog: str | None = None, defaults: Auth0 | None = None
) -> None:
    """Adds login, token, status, doctor and logout to the subparsers of a program's own argparse.

    Afterwards `args.run(args)` runs the command, and returns the exit code as `main` does.

    Args:
        subparsers: the result of `ArgumentParser.add_subparsers`.
        prog: the command that messages tell the user to run, such as `mytool auth`.
        defaults: an `Auth0` with the values of the options that are not given.
    """
    from functools import partial

    preset = _host_settings(defaults) - {"params"}
    formatter = _help_formatter()
    try:
        urls = _callback_urls((defaults or Auth0())._ports())
    except ConfigError:  # the login reports it
        urls = _callback_urls(DEFAULT_PORTS)
    for name, (_, purpose) in _COMMANDS.items():
        text = _examples(_EPILOGS[name], prog, defaults)
        if name == "login" and not prog:  # the users of a host program register nothing
            text += f"\n\n{_REGISTER}\n  {urls}"
        command = subparsers.add_parser(
            name,
            usage="%(prog)s [options]",
            help=purpose,
            description=f"{purpose[0].upper()}{purpose[1:]}.\n\n{text}",
            formatter_class=formatter,
            allow_abbrev=False,
        )
        for line in _options_of(name):
            usage, _, explanation = line.partition("  ")
            words = usage.split()
            kind = {"action": "store_true"} if words[-1][0] == "-" else {"metavar": words.pop()}
            setting = words[-1][2:].replace("-", "_")
            if {setting.removesuffix("_file"), f"{setting}s"} & preset:
                continue  # the host program has chosen the value
            # The prefix keeps them apart from the host program's own options.
            options = {"dest": setting, **kind, **_FLAG_OPTIONS.get(words[0], {})}
            options["dest"] = f"auth0_{options['dest']}"
            command.add_argument(*words, help=explanation.strip(), **options)
        command.set_defaults(run=partial(_run_mounted, name, prog, defaults))


def _parser(prog: str | None, defaults: Auth0 | None) -> ArgumentParser:
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            if "ignored explicit argument" in message:  # the argument may be a secret
                message = message.partition(":")[0] + " takes no value"
            raise ConfigError(f"{_printable(message)}: see {self.prog} -h")

    name = prog or _program_name()
    parser = Parser(
        prog=name,
        description="Secure a command-line program with Auth0.",
        epilog=_examples(_EXAMPLES, prog, defaults),
        formatter_class=_help_formatter(),
    )
    parser.add_argument("--version", action="version", version=f"auth0_cli {__version__}")
    add_commands(parser.add_subparsers(metavar="COMMAND"), prog=prog, defaults=defaults)
    return parser


def _explain_unknown(command: str, arguments: list[str]) -> str:
    """The reason why a command does not take these arguments; their values may be secrets."""
    flag = next((x.partition("=")[0] for x in arguments if x[:2] == "--"), "such an argument")
    owners = [name for name in _COMMANDS if f"{flag} " in " ".join(_options_of(name))]
    others = owners and command not in owners  # else the host program has set the value
    owned = f", an option of {', '.join(owners)}" if others else ""
    return f"{command} does not take {_printable(flag, 40)}{owned}"


def main(
    argv: Sequence[str] | None = None, *, prog: str | None = None, defaults: Auth0 | None = None
) -> int:
    """The command line, ours or that of a program that has mounted it.

    Args:
        argv: the arguments without the program's name; None for those of the process.
        prog: the command that messages tell the user to run, such as `mytool auth`.
        defaults: an `Auth0` with the values of the options that are not given.

    Returns:
        The exit code; see the head of this file.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)

    def run() -> int | None:
        if arguments == ["token"] and not prog:  # scripts run it often: skip argparse
            auth0 = Auth0(**(defaults._arguments if defaults else {}))
            auth0._command = f"{_program_name()} token"
            _print_out(auth0._token_entry(None, None, 60, False, False)["access_token"])
            return 0
        parser = _parser(prog, defaults)
        if not arguments:
            parser.print_help(sys.stderr)
            return 2
        word = arguments[0].partition("=")[0]  # a value may be a secret
        if word not in (*_COMMANDS, "-h", "--help", "--version"):
            from difflib import get_close_matches

            near = get_close_matches(word, _COMMANDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"see {parser.prog} -h"
            shown = _printable(word, 40)
            if word.startswith("-"):
                hint = f"options follow the command, as in {parser.prog} login {shown}"
            raise ConfigError(f"unknown command {shown!r}: {hint}")
        try:
            args, unknown = parser.parse_known_args(arguments)
        except SystemExit:  # after --help and --version
            _print_out("", end="")  # flushes their output
            return 0
        if unknown:
            raise ConfigError(f"{_explain_unknown(word, unknown)}: see {parser.prog} {word} -h")
        return _run(word, prog, defaults, args)

    return _guarded(prog, run, not {"-v", "--verbose"}.isdisjoint(arguments))


if __name__ == "__main__":
    # The directory of the script, or the working directory, goes behind Python's own modules: a
    # user's secrets.py there must not replace the standard one. In isolated mode it is not there.
    if not sys.flags.isolated:
        sys.path.append(sys.path.pop(0))
    exit_code = main()
    # The interpreter's way out takes a third of the start-up time. It is skipped unless a module is
    # loaded that may have work to do at the end (profilers load `re`). The output is flushed.
    if sys.modules.keys().isdisjoint(("atexit", "re", "threading")):
        os._exit(exit_code)
    raise SystemExit(exit_code)
