"""Downloads one revision of a model repository from a Hugging Face hub, or a mirror of one.

What it promises: goes on where an interrupted download was, checks every file against
the checksum that the hub's tree names, and calls a model complete only when every file
is. The manifest is written last; a model without one is not complete.

    <directory>/<repository>/refs/<revision>           the commit a moving name was resolved to
    <directory>/<repository>/<commit>/<files>          verified files
    <directory>/<repository>/<commit>/.incomplete/     files on the way
    <directory>/<repository>/<commit>/.manifest.json   what was verified, and when

Runs on the managed host, inside Ansible to look, and as a systemd unit to download
(see host_job.py). Standard library only.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path, PurePosixPath
from typing import Any, Callable, NoReturn

Report = Callable[..., None]

BLOCK = 1 << 20
MANIFEST = ".manifest.json"
JOURNAL = ".verified.json"
INCOMPLETE = ".incomplete"
SOCKET_TIMEOUT_SECONDS = 30
LONGEST_PAUSE_SECONDS = 30
# A server without ranges makes us begin a file anew after every break: not for ever.
MAXIMUM_RESTARTS = 3
COMMIT = re.compile(r"[0-9a-f]{40}")
USER_AGENT = "pageindex-home"
# Answers that may be different a moment later.
PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
LOGIN_OF_THE_PROXY = (
    "the proxy asks for another user or password (407). Correct downloads_http_proxy and downloads_https_proxy, run "
    "`ansible-playbook site.yml --tags downloads`, then this play again."
)
# Weights in older formats: not fetched where the same repository has safetensors.
OLDER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.ot")


class Failure(RuntimeError):
    """What went wrong, what was expected, and what to do next."""


class NotFound(Failure):
    """The hub knows no such repository or revision, or shows it to others only: hubs do not tell these apart."""


class Gated(Failure):
    """The repository is there, but its licence was not accepted by the owner of the token, or there is none."""


class Passing(RuntimeError):
    """A fault that may go away by waiting: an outage, a lost connection."""


class _RedirectWithoutToken(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but takes the token along only to the same scheme, host and port."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        follow = super().redirect_request(req, fp, code, msg, headers, newurl)
        if follow is not None:
            before, after = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(follow.full_url)
            if (before.scheme, before.netloc) != (after.scheme, after.netloc):
                follow.headers.pop("Authorization", None)
                follow.unredirected_hdrs.pop("Authorization", None)
        return follow


class Hub:
    """One hub endpoint, asked with or without a token."""

    def __init__(self, endpoint: str, token: str | None, repository: str, certificate_authorities: str = "") -> None:
        """certificate_authorities: PEM text of those to trust beside the system's own."""
        self.endpoint = endpoint.rstrip("/")
        self.repository = repository
        self._token = token
        context = ssl.create_default_context()
        if certificate_authorities:
            context.load_verify_locations(cadata=certificate_authorities)
        self._opener = urllib.request.build_opener(
            _RedirectWithoutToken(), urllib.request.HTTPSHandler(context=context)
        )

    def open(self, url: str, start: int = 0) -> http.client.HTTPResponse:
        """GET a URL, from a byte on. Raises Passing or Failure instead of urllib's errors."""
        request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})
        # The checksum is over the plain bytes; a compressing proxy must leave them alone.
        request.add_header("Accept-Encoding", "identity")
        if start:
            request.add_header("Range", f"bytes={start}-")
        here, there = urllib.parse.urlsplit(self.endpoint), urllib.parse.urlsplit(url)
        if self._token and (here.scheme, here.netloc) == (there.scheme, there.netloc):
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            response: http.client.HTTPResponse = self._opener.open(request, timeout=SOCKET_TIMEOUT_SECONDS)
            return response
        except urllib.error.HTTPError as error:
            if error.code in PASSING_STATUS:
                raise Passing(f"{url} answered {error.code} {error.reason}") from error
            if error.code == 416:
                raise _RangeRefused from error
            if error.code == 407:
                raise Failure(f"{url}: {LOGIN_OF_THE_PROXY}") from error
            self._refused(url, error)
        except ssl.SSLError as error:
            raise Failure(
                f"{url}: the TLS certificate was not accepted ({error}). Give the mirror's certificate "
                f"authority to the host (downloads_certificate_authorities), or correct the endpoint."
            ) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise Failure(
                    f"{url}: the TLS certificate was not accepted ({error.reason}). Give the mirror's "
                    f"certificate authority to the host (downloads_certificate_authorities), or correct the endpoint."
                ) from error
            # A tunnel that the proxy refuses is no HTTP answer, only words.
            if "Tunnel connection failed: 407" in str(error.reason):
                raise Failure(f"{url}: {LOGIN_OF_THE_PROXY}") from error
            raise Passing(f"{url} cannot be reached: {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise Passing(f"{url} cannot be reached: {error or type(error).__name__}") from error

    def _refused(self, url: str, error: urllib.error.HTTPError) -> NoReturn:
        """Raise the Failure that explains a final HTTP error."""
        code = error.headers.get("X-Error-Code", "")
        said = error.headers.get("X-Error-Message", "") or error.reason
        page = f"{self.endpoint}/{self.repository}"
        if code == "GatedRepo":
            raise Gated(
                f"{self.repository} is gated on {self.endpoint}: {said}. Accept its licence on {page} with the "
                f"account that owns the token, then give that token to the role (vllm_hub_token)."
            )
        if error.code == 401:
            raise NotFound(
                f"{self.endpoint} asks for a login for {self.repository} ({error.code}: {said}). The repository "
                f"is private, misspelt, or the token is wrong: check {page} and vllm_hub_token."
            )
        if error.code == 403:
            raise Failure(
                f"{self.endpoint} forbids {self.repository} ({error.code}: {said}). The token in vllm_hub_token "
                f"needs read access to it: check {page}."
            )
        if code == "RevisionNotFound":
            raise NotFound(
                f"{self.repository} has no such revision ({said}; {url}). Expected a branch, a tag or a commit "
                f"that {page}/commits lists."
            )
        if code == "EntryNotFound":
            raise Failure(f"{self.endpoint} lists a file that it does not serve: {url} ({said})")
        if error.code == 404:
            raise NotFound(
                f"{self.repository} was not found on {self.endpoint} ({error.code}: {said}). Check the spelling "
                f"of the repository on {page}, and the endpoint."
            )
        raise Failure(f"{url} answered {error.code}: {said}")

    def json(self, url: str) -> tuple[Any, str | None]:
        """GET a JSON document. Returns it with the URL of the next page, if there is one."""
        with self.open(url) as response:
            try:
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise Passing(f"{url}: the answer broke off ({error})") from error
            link = response.headers.get("Link", "")
        try:
            document = json.loads(body)
        except ValueError as error:
            raise Failure(
                f"{url} answered something that is not JSON; expected a Hugging Face hub at {self.endpoint}"
            ) from error
        following = re.search(r'<([^>]+)>\s*;\s*rel="?next"?', link)
        return document, urllib.parse.urljoin(url, following.group(1)) if following else None

    def about(self, revision: str) -> dict[str, Any]:
        """What the hub says of a branch, tag or commit: `sha`, and mostly `gated`, `tags`, `cardData`."""
        name = urllib.parse.quote(revision, safe="")
        document, _ = self.json(f"{self.endpoint}/api/models/{self.repository}/revision/{name}")
        commit = str(document.get("sha", "")) if isinstance(document, dict) else ""
        if not COMMIT.fullmatch(commit):
            raise Failure(f"{self.endpoint} named no commit for {self.repository} at {revision}: {commit!r}")
        return dict(document)

    def resolve(self, revision: str) -> str:
        """The commit of a branch, tag or commit."""
        return str(self.about(revision)["sha"])

    def tree(self, commit: str) -> list[dict[str, Any]]:
        """Every file of a commit: {path, size, sha256} or {path, size, git_sha1} for small ones."""
        url: str | None = f"{self.endpoint}/api/models/{self.repository}/tree/{commit}?recursive=true"
        files = []
        while url:
            page, url = self.json(url)
            for entry in page:
                if entry.get("type") != "file":
                    continue
                path = PurePosixPath(str(entry["path"]))
                if path.is_absolute() or ".." in path.parts:
                    raise Failure(f"{self.repository} lists a file outside of itself: {path}")
                large = entry.get("lfs") or {}
                known = {"path": str(path), "size": int(large.get("size", entry["size"]))}
                if large:
                    known["sha256"] = str(large["oid"]).replace("sha256:", "")
                else:
                    known["git_sha1"] = str(entry["oid"])
                files.append(known)
        return files

    def file_url(self, commit: str, path: str) -> str:
        """Where a file's bytes are."""
        return f"{self.endpoint}/{self.repository}/resolve/{commit}/{urllib.parse.quote(path)}"


class _RangeRefused(RuntimeError):
    """The server has no bytes from there on."""


class Patience:
    """How long to go on trying without a single new byte."""

    def __init__(self, seconds: float, report: Report, sleep: Callable[[float], None] = time.sleep) -> None:
        self._seconds = seconds
        self._report = report
        self._sleep = sleep
        self._tries = 0
        self._since: float | None = None

    def progressed(self) -> None:
        """Something arrived: start counting anew."""
        self._tries, self._since = 0, None

    def wait(self, fault: Passing) -> None:
        """Pause before the next try, longer each time. Raises Failure when patience has ended."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        waited = now - self._since
        pause = min(LONGEST_PAUSE_SECONDS, 2.0**self._tries)
        if waited + pause > self._seconds:
            raise Failure(
                f"{fault}. Tried {self._tries + 1} times over {waited:.0f} s without progress. What arrived is "
                f"kept: run the play again when the hub answers, and it goes on from there."
            ) from fault
        self._tries += 1
        self._report("waiting for the hub", detail=f"{fault}; next try in {pause:.0f} s")
        self._sleep(pause)


def _hasher(entry: dict[str, Any]) -> Any:
    """The hash object whose digest the hub's tree names for a file."""
    if "sha256" in entry:
        return hashlib.sha256()
    hasher = hashlib.sha1()
    hasher.update(b"blob %d\0" % entry["size"])
    return hasher


def _expected(entry: dict[str, Any]) -> str:
    return str(entry.get("sha256") or entry["git_sha1"])


def _feed(hasher: Any, path: Path, report: Callable[[int], None]) -> int:
    """Hash what a file holds. Returns the number of bytes."""
    seen = 0
    with path.open("rb") as handle:
        while True:
            block = handle.read(BLOCK)
            if not block:
                return seen
            hasher.update(block)
            seen += len(block)
            report(seen)


def _stamp(path: Path) -> list[int]:
    """Size and modification time: what has to be unchanged for a verified file to stay so."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w", encoding="utf-8") as handle:
        json.dump(value, handle, indent=1, sort_keys=True)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _home(arguments: dict[str, Any]) -> Path:
    return Path(arguments["directory"]) / arguments["repository"]


def _reference(home: Path, revision: str) -> Path:
    return home / "refs" / urllib.parse.quote(revision, safe="")


def known_commit(arguments: dict[str, Any]) -> str | None:
    """The commit of the wanted revision as far as this host knows it, without asking anyone."""
    revision = arguments["revision"]
    if COMMIT.fullmatch(revision):
        return str(revision)
    try:
        commit = _reference(_home(arguments), revision).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


def check(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The result when the model is complete on this host, else None. Touches no network.

    Sizes and times are compared with the manifest; contents were verified when it was written.
    """
    commit = known_commit(arguments)
    if commit is None:
        return None
    directory = _home(arguments) / commit
    manifest = _read_json(directory / MANIFEST)
    files = manifest.get("files")
    if not files or manifest.get("ignore") != sorted(arguments["ignore"]):
        return None
    for name, entry in files.items():
        try:
            if _stamp(directory / name) != entry["stamp"]:
                return None
        except OSError:
            return None
    return _result(directory, commit, {name: entry["stamp"][0] for name, entry in files.items()}, fetched=0)


def _result(directory: Path, commit: str, sizes: dict[str, int], fetched: int) -> dict[str, Any]:
    return {
        "path": str(directory),
        "commit": commit,
        "files": sorted(sizes),
        "bytes_total": sum(sizes.values()),
        "bytes_fetched": fetched,
    }


def choose(tree: list[dict[str, Any]], ignore: list[str]) -> list[dict[str, Any]]:
    """The files to fetch: without the ignored ones, and without older weights beside safetensors."""
    patterns = list(ignore)
    if any(entry["path"].endswith(".safetensors") for entry in tree):
        patterns += OLDER_WEIGHTS
    return [
        entry
        for entry in tree
        if not any(
            fnmatch.fnmatch(entry["path"], pattern) or fnmatch.fnmatch(PurePosixPath(entry["path"]).name, pattern)
            for pattern in patterns
        )
    ]


class Download:
    """The files of one commit on their way into one directory."""

    def __init__(self, hub: Hub, commit: str, directory: Path, patience: Patience, report: Report) -> None:
        self._hub = hub
        self._commit = commit
        self._directory = directory
        self._patience = patience
        self._report = report
        self._journal = _read_json(directory / JOURNAL)
        self._total = 0
        self._done = 0
        self.fetched = 0

    def plan(self, files: list[dict[str, Any]], minimum_free_mib: int) -> list[dict[str, Any]]:
        """The files that are still to be fetched; files found complete are verified on the way.

        Raises Failure when the disk is too small for the rest.
        """
        self._total = sum(entry["size"] for entry in files)
        missing, missing_bytes = [], 0
        for entry in files:
            if self._is_verified(entry):
                self._done += entry["size"]
                continue
            missing.append(entry)
            part = self._part(entry)
            missing_bytes += entry["size"] - (min(part.stat().st_size, entry["size"]) if part.exists() else 0)
        free = shutil.disk_usage(self._directory).free
        if free < missing_bytes + minimum_free_mib * 2**20:
            raise Failure(
                f"{self._directory}: {_gigabytes(missing_bytes)} are still to be fetched and "
                f"{_gigabytes(minimum_free_mib * 2**20)} are to stay free, but only {_gigabytes(free)} are free. "
                f"Make room (`du -sh {self._directory}/../../../*/*` lists what is there) or put the models on a "
                f"larger disk "
                f"(vllm_models_directory), then run the play again."
            )
        return missing

    def _is_verified(self, entry: dict[str, Any]) -> bool:
        """Whether a file is in place and its contents are right; hashes it when it is not known yet."""
        path = self._directory / entry["path"]
        try:
            stamp = _stamp(path)
        except OSError:
            return False
        if self._journal.get(entry["path"]) == [*stamp, _expected(entry)]:
            return True
        if stamp[0] != entry["size"]:
            return False
        hasher = _hasher(entry)
        _feed(hasher, path, lambda seen: self._tell(f"checking {entry['path']}", seen))
        if hasher.hexdigest() != _expected(entry):
            return False
        self._remember(entry)
        return True

    def _remember(self, entry: dict[str, Any]) -> None:
        self._journal[entry["path"]] = [*_stamp(self._directory / entry["path"]), _expected(entry)]
        _write_json(self._directory / JOURNAL, self._journal)

    def _part(self, entry: dict[str, Any]) -> Path:
        return self._directory / INCOMPLETE / (entry["path"] + ".part")

    def _tell(self, phase: str, seen: int) -> None:
        self._report(phase, done=self._done + seen, total=self._total)

    def fetch(self, entry: dict[str, Any]) -> None:
        """Fetch one file, verify it and put it in place. A corrupted one is fetched once more."""
        part = self._part(entry)
        part.parent.mkdir(parents=True, exist_ok=True)
        for last_try in (False, True):
            found = self._receive(entry, part)
            if found == _expected(entry):
                break
            part.unlink()
            if last_try:
                kind = "sha256" if "sha256" in entry else "git sha1"
                raise Failure(
                    f"{entry['path']} arrived corrupted twice: its {kind} is {found}, the hub's tree says "
                    f"{_expected(entry)}. Both copies were deleted. Something between {self._hub.endpoint} and "
                    f"this host changes the data, or the mirror's copy is bad."
                )
            self._report(f"{entry['path']} arrived corrupted; fetching it again")
        target = self._directory / entry["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("rb") as handle:
            os.fsync(handle.fileno())
        # Whoever runs the server may read the weights; umask must not decide.
        part.chmod(0o644)
        os.replace(part, target)
        self._remember(entry)
        self._done += entry["size"]

    def _receive(self, entry: dict[str, Any], part: Path) -> str:
        """Bring the partial file to its full size. Returns the digest of what is there."""
        hasher = _hasher(entry)
        have = 0
        if part.exists():
            if part.stat().st_size > entry["size"]:
                part.unlink()
            else:
                have = _feed(hasher, part, lambda seen: self._tell(f"checking {entry['path']}", seen))
        restarts = 0
        while have < entry["size"] or not part.exists():
            try:
                with part.open("ab") as handle:
                    have = self._stream(entry, handle, hasher, have)
            except _RangeRefused:
                part.unlink(missing_ok=True)
                hasher, have = _hasher(entry), 0
                restarts += 1
                if restarts > MAXIMUM_RESTARTS:
                    raise Failure(
                        f"{entry['path']}: {self._hub.endpoint} breaks off and cannot go on where it was "
                        f"(no Range support), {restarts} times. Use another endpoint (vllm_hub_endpoint)."
                    ) from None
                self._patience.wait(Passing(f"{entry['path']}: the hub refused to go on where it was"))
            except Passing as fault:
                # What was written before the fault counts; the hash has seen exactly that.
                have = part.stat().st_size
                self._patience.wait(fault)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise Failure(
                        f"{part}: the disk is full after {_gigabytes(self._done + have)} of "
                        f"{_gigabytes(self._total)}. Make room and run the play again: it goes on from there."
                    ) from error
                raise
        return str(hasher.hexdigest())

    def _stream(self, entry: dict[str, Any], handle: Any, hasher: Any, have: int) -> int:
        """Append bytes from `have` on, until the file is complete. Raises Passing when the stream breaks."""
        url = self._hub.file_url(self._commit, entry["path"])
        with self._hub.open(url, start=have) as response:
            if have and response.status != 206:
                # The server ignored the range: what comes is the whole file.
                raise _RangeRefused
            while have < entry["size"]:
                try:
                    block = response.read(min(BLOCK, entry["size"] - have))
                except (OSError, http.client.HTTPException, socket.timeout) as error:
                    raise Passing(f"{url}: the connection broke off ({error or type(error).__name__})") from error
                if not block:
                    raise Passing(f"{url}: the connection broke off after {have} of {entry['size']} bytes")
                handle.write(block)
                handle.flush()
                hasher.update(block)
                have += len(block)
                self.fetched += len(block)
                self._patience.progressed()
                self._tell(f"fetching {entry['path']}", have)
        return have

    def finish(self, files: list[dict[str, Any]], arguments: dict[str, Any]) -> None:
        """Write the manifest: from now on the model is complete."""
        entries = {
            entry["path"]: {
                "stamp": _stamp(self._directory / entry["path"]),
                **{key: entry[key] for key in ("sha256", "git_sha1") if key in entry},
            }
            for entry in files
        }
        _write_json(
            self._directory / MANIFEST,
            {
                "repository": arguments["repository"],
                "commit": self._commit,
                "endpoint": self._hub.endpoint,
                "ignore": sorted(arguments["ignore"]),
                "completed": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "files": entries,
            },
        )
        shutil.rmtree(self._directory / INCOMPLETE, ignore_errors=True)
        (self._directory / JOURNAL).unlink(missing_ok=True)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def with_patience(patience: Patience, action: Callable[[], Any]) -> Any:
    """What the action returns, tried again as long as its fault may pass. Raises Failure."""
    while True:
        try:
            answer = action()
        except Passing as fault:
            patience.wait(fault)
        else:
            patience.progressed()
            return answer


def run(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """Download, verify and record a model.

    Arguments: directory, repository, revision, endpoint, ignore (patterns), minimum_free_mib,
    patience_seconds (how long to go on without a new byte), token (secret, may be null).
    Raises Failure.
    """
    os.umask(0o022)
    hub = Hub(arguments["endpoint"], arguments.get("token"), arguments["repository"])
    patience = Patience(float(arguments["patience_seconds"]), report)
    home = _home(arguments)

    report("asking the hub")
    commit = known_commit(arguments)
    if commit is None:
        commit = str(with_patience(patience, lambda: hub.resolve(arguments["revision"])))
    tree = with_patience(patience, lambda: hub.tree(commit))
    files = choose(tree, list(arguments["ignore"]))
    if not any(entry["path"] == "config.json" for entry in files):
        raise Failure(
            f"{arguments['repository']} at {commit} has no config.json; expected a model in the Hugging Face "
            f"layout, found: {', '.join(entry['path'] for entry in files[:10]) or 'nothing'}"
        )

    directory = home / commit
    directory.mkdir(parents=True, exist_ok=True)
    if not COMMIT.fullmatch(arguments["revision"]):
        reference = _reference(home, arguments["revision"])
        reference.parent.mkdir(exist_ok=True)
        reference.write_text(commit + "\n", encoding="ascii")

    download = Download(hub, commit, directory, patience, report)
    for entry in download.plan(files, int(arguments["minimum_free_mib"])):
        download.fetch(entry)
    download.finish(files, arguments)
    return _result(directory, commit, {entry["path"]: entry["size"] for entry in files}, download.fetched)
