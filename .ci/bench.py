#!/usr/bin/env python3
"""Speed of auth0_cli.py against the practice tenant: `.ci/bench.py [--quick]`.

Whole processes are run interleaved with `python -c pass` of the same interpreter, in a clean
virtual environment, and the minimum counts: a machine is disturbed, it is never too fast. Exit
status 1 if a gate fails.
"""

import argparse
import contextlib
import json
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

import auth0_cli


def practice_module():
    """What stands above the tests in their file, which needs nothing but Python."""
    path = TOP / "test_auth0_cli.py"
    module = types.ModuleType("practice")
    module.__file__ = str(path)
    source = path.read_text(encoding="utf-8").partition('\nif __name__ == "__main__":')[0]
    exec(compile(source, path, "exec"), module.__dict__)
    return module


practice = practice_module()
MACHINE = "practice-machine"


class Bench:
    """A clean environment, a tenant, and the table."""

    def __init__(self, tenant, work, rounds):
        self.tenant, self.work, self.rounds = tenant, work, rounds
        self.failed = []
        base = Path(os.path.realpath(sys.executable))
        subprocess.run([base, "-m", "venv", "--without-pip", work / "venv"], check=True)
        self.python = str(work / "venv" / "bin" / "python")
        print_path = "import sysconfig; print(sysconfig.get_path('purelib'))"
        self.site = Path(
            subprocess.check_output([self.python, "-c", print_path], text=True).strip()
        )
        shutil.copy(TOP / "auth0_cli.py", self.site)
        subprocess.run([self.python, "-c", "import auth0_cli"], check=True)
        shutil.copy(TOP / "auth0_cli.py", work)
        self.script = str(work / "auth0_cli.py")
        self.stub = work / "auth0-cli"
        self.stub.write_text(  # as pip writes it since 25.2; earlier ones import `re` there
            "import sys\nfrom auth0_cli import main\nif __name__ == '__main__':\n"
            "    if sys.argv[0].endswith('.exe'):\n        sys.argv[0] = sys.argv[0][:-4]\n"
            "    sys.exit(main())\n"
        )
        self.env = {"PATH": os.defpath, "HOME": str(work), "AUTH0_DOMAIN": tenant.domain}
        self.env["AUTH0_AUDIENCE"] = practice.API
        self.user = {"AUTH0_CLIENT_ID": "practice-native", "AUTH0_CLI_CACHE": str(work / "user")}
        self.machine = {
            "AUTH0_CLIENT_ID": MACHINE,
            "AUTH0_CLIENT_SECRET": tenant.clients[MACHINE].client_secret,
            "AUTH0_CLI_CACHE": str(work / "machine"),
        }

    def auth0(self, cache=None):
        """The user's session within this process."""
        cache = cache or self.user["AUTH0_CLI_CACHE"]
        domain = self.tenant.domain
        return auth0_cli.Auth0(domain, "practice-native", audience=practice.API, cache=cache)

    def log_in(self, cache=None):
        """A session of alice, without a browser."""
        auth0 = self.auth0(cache)
        with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):
            auth0.login(flow="password", username="alice@example.test", password="wonderland-1")
        return auth0

    def age(self, cache=None):
        """Lets the stored tokens expire."""
        for path in Path(cache or self.user["AUTH0_CLI_CACHE"]).glob("*.json"):
            record = json.loads(path.read_text())
            for token in record["tokens"]:
                token["expires_at"] = time.time() - 1
            path.write_text(json.dumps(record))

    def run(self, *command, **env):
        """Seconds of one process."""
        env = {**self.env, **self.user, **env}
        started = time.perf_counter()
        cwd = self.work / "venv"  # nothing of the same name beside it
        done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, check=False)
        took = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"{command} ended with {done.returncode}: {done.stderr.decode()}")
        return took

    def fastest(self, before=None, **commands):
        """The least seconds of each command, run in turns."""
        results = {name: [] for name in commands}
        for _ in range(self.rounds):
            for name, (command, env) in commands.items():
                if before:
                    before(name)
                results[name].append(self.run(*command, **env))
        return {name: min(runs) for name, runs in results.items()}

    def row(self, what, aim, gate, value, unit):
        """A line of the table."""
        good = value <= gate if not isinstance(gate, tuple) else value >= gate[0]
        limit = gate if not isinstance(gate, tuple) else gate[0]
        verdict = "ok" if good else "FAILS"
        if good and not (value <= aim if not isinstance(gate, tuple) else value >= aim):
            verdict = "ok, short of the aim"
        if not good:
            self.failed.append(what)
        print(f"{what:<55}{aim:>8g}{limit:>8g}{value:>10.2f} {unit:<9}{verdict}", flush=True)

    # The rows

    def warm(self):
        """Starts with a warm session."""
        self.log_in()
        commands = {
            "bare": ([self.python, "-c", "pass"], {}),
            "script": ([self.python, self.script, "token"], {}),
            "stub": ([self.python, str(self.stub), "token"], {}),
            "module": ([self.python, "-m", "auth0_cli", "token"], {}),
            "load": ([self.python, "-c", "import auth0_cli"], {}),
        }
        best = self.fastest(**commands)
        bare = best["bare"]
        print(f"{'(python -c pass)':<71}{bare * 1000:>10.2f} ms")
        self.row("token, warm, the file as a script", 3.7, 4.3, best["script"] / bare, "x bare")
        self.row("token, warm, console script", 1.4, 1.7, best["stub"] / bare, "x bare")
        if sys.version_info >= (3, 11):
            self.row("token, warm, python -m", 1.4, 1.7, best["module"] / bare, "x bare")
        self.row("import auth0_cli", 2, 3, (best["load"] - bare) * 1000, "ms more")

    def in_process(self):
        """get_token() that has nothing to do."""
        get_token = self.auth0().get_token
        get_token()

        def spin(seconds, rates, slow):
            count, end = 0, time.perf_counter() + seconds
            while True:
                began = time.perf_counter()
                for _ in range(100):
                    get_token()
                done = time.perf_counter()
                count += 100
                slow.append((done - began) / 100)
                if done > end:
                    break
            rates.append(count)

        one, slow = [], []
        spin(0.8, one, slow)
        self.row("get_token(), warm", 1, 2, min(slow) * 1e6, "us")
        for _ in range(2):
            rates, slow = [], []
            threads = [threading.Thread(target=spin, args=(0.8, rates, slow)) for _ in range(64)]
            began = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.perf_counter() - began
        share = 100 * sum(rates) / took / (one[0] / 0.8)
        self.row("the same from 64 threads, of one thread's rate", 80, (70,), share, "%")

    def seen(self):
        """How long a warm process goes on with what another has ended."""
        auth0 = self.log_in()
        auth0.get_token()
        self.auth0().logout()
        began = time.monotonic()
        try:
            while time.monotonic() < began + 5:
                auth0.get_token()
        except auth0_cli.LoginRequired:
            pass
        self.row("another process's logout is seen", 1, 1.05, time.monotonic() - began, "s")

    def stampede(self):
        """32 processes, an expired token, an answer that takes 150 ms."""
        self.log_in()
        worst, requests, tokens = 0.0, 0, 32
        for _ in range(3):
            self.age()
            before = self.tenant.count("refresh_token")
            self.tenant.token_delay = 0.15
            env = {**self.env, **self.user}
            # They are started first and let go together, so that this counts no start of Python.
            code = "import sys, auth0_cli; sys.stdin.read(1); print(auth0_cli.get_token())"
            command = [self.python, "-c", code]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            started = [subprocess.Popen(command, env=env, **pipes) for _ in range(32)]
            time.sleep(1.5)
            began = time.perf_counter()
            for process in started:
                process.stdin.write(b"x")
                process.stdin.close()
            lines = [process.stdout.read() for process in started]
            took = time.perf_counter() - began
            for process in started:
                process.stdout.close()
                process.wait()
            self.tenant.token_delay = 0.0
            worst = max(worst, took - 0.15)
            requests = max(requests, self.tenant.count("refresh_token") - before)
            tokens = min(tokens, sum(len(line) > 100 for line in lines))
        self.row("32 processes, expired: refreshes", 1, 1, requests, "")
        self.row("32 processes, expired: tokens", 32, (32,), tokens, "")
        self.row("32 processes, expired: all served, beyond the answer", 0.2, 0.5, worst, "s")

    def neighbours(self):
        """Session files beside the one that is used."""
        auth0 = self.log_in()
        directory = Path(self.user["AUTH0_CLI_CACHE"])
        name = next(directory.glob("*.json"))
        times = {}
        for count in (1, 10, 1000, 10000):
            other = self.work / f"cache{count}"
            shutil.copytree(directory, other)
            for number in range(count - 1):
                shutil.copy(name, other / f"{name.stem}{number}.json")
            times[f"n{count}"] = (
                [self.python, self.script, "token"],
                {"AUTH0_CLI_CACHE": str(other)},
            )
        best = self.fastest(**times)
        for count in (10, 1000, 10000):
            ratio = best[f"n{count}"] / best["n1"]
            self.row(f"token, warm, {count} session files", 1.05, 1.1, ratio, "x of one")
        auth0.get_token()

    def requests(self):
        """The number of requests of each flow."""
        tenant, program = self.tenant, [self.python, self.script, "token"]

        def fresh(_):
            shutil.rmtree(self.machine["AUTH0_CLI_CACHE"], ignore_errors=True)

        installed = [self.python, str(self.stub), "token"]
        fetch = {"fetch": (installed, self.machine), "bare": ([self.python, "-c", "pass"], {})}
        before = len(tenant.requests)
        best = self.fastest(fresh, **fetch)
        made = (len(tenant.requests) - before) / self.rounds
        ratio = best["fetch"] / best["bare"]
        self.row("client credentials, new process, console script", 5, 6, ratio, "x bare")
        self.row("client credentials, new process", 1, 1, made, "requests")
        self.log_in()
        self.age()
        before = len(tenant.requests)
        self.run(*program)
        self.row("refresh, new process", 1, 1, len(tenant.requests) - before, "requests")
        before = tenant.count("/oauth/token"), tenant.count("/.well-known/jwks.json")
        auth0 = self.auth0()
        thread = []

        def show(prompt):
            user = threading.Thread(target=tenant.login_as, args=(prompt["url"], "alice"))
            thread.append(user)
            user.start()

        auth0.login(flow="browser", show=show, open_browser=False)
        thread[0].join()
        after = tenant.count("/oauth/token"), tenant.count("/.well-known/jwks.json")
        self.row("browser login: token requests", 1, 1, after[0] - before[0], "requests")
        self.row("browser login: requests for keys", 1, 1, after[1] - before[1], "requests")

    def small(self):
        """The parts: a signature, a write."""
        key = practice.KEYS[0]
        jwk, message = key.jwk(), b"x" * 900
        signature = key.sign(message)
        times = []
        for _ in range(200):
            began = time.perf_counter()
            if not auth0_cli._verify_rs256(jwk, message, signature):
                raise SystemExit("a good signature was refused")
            times.append(time.perf_counter() - began)
        self.row("RS256 verification, 2,048 bit", 0.3, 0.5, min(times) * 1000, "ms")
        cache = auth0_cli.FileCache(self.work / "writes")
        data, path = b"x" * 2500, self.work / "plain"
        ours, plain = [], []
        for _ in range(60):
            began = time.perf_counter()
            cache.write("session", data)
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            with open(path, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fd = os.open(self.work, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
            plain.append(time.perf_counter() - began)
        more = (min(ours) - min(plain)) * 1000
        self.row("write of a session, over the disk's own flush", 0.4, 0.5, more, "ms more")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: for a first look")
    rounds = 5 if parser.parse_args().quick else 20
    py_compile.compile(str(TOP / "auth0_cli.py"), doraise=True)
    for name in [name for name in os.environ if name.startswith("AUTH0_")]:
        del os.environ[name]
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"{'Python ' + version:<55}{'aim':>8}{'gate':>8}{'measured':>10}")
    with tempfile.TemporaryDirectory() as work, practice.Tenant() as tenant:
        bench = Bench(tenant, Path(work), rounds)
        for part in (
            bench.warm,
            bench.in_process,
            bench.seen,
            bench.stampede,
            bench.neighbours,
            bench.requests,
            bench.small,
        ):
            part()
    if bench.failed:
        print(f"{len(bench.failed)} of the gates failed: {'; '.join(bench.failed)}")
    return bool(bench.failed)


if __name__ == "__main__":
    raise SystemExit(main())
