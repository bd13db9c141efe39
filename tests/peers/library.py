"""huggingface_hub at the other end of a pipe, with a Hub of its own on loopback.

One request a line on standard input, one answer a line on standard output, both JSON; `sys.argv[1]` is the cache. The
Hub serves what was published to it over plain HTTP: the API's revisions and trees, and files with their etags.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# (repo, commit) -> path -> bytes, and (repo, ref) -> commit.
FILES, REFS = {}, {}


def is_lfs(path):
    return path.endswith(".safetensors")


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def etag(path, data):
    return hashlib.sha256(data).hexdigest() if is_lfs(path) else git_sha1(data)


def entry(path, data):
    lfs = {"oid": etag(path, data), "size": len(data), "pointerSize": 134}
    return {"type": "file", "path": path, "size": len(data), "oid": git_sha1(data)} | (
        {"lfs": lfs} if is_lfs(path) else {}
    )


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, body, headers=()):
        self.send_response(code)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 6:
            repo, what, revision, rest = "/".join(parts[2:4]), parts[4], parts[5], None
        elif len(parts) >= 5 and parts[2] == "resolve":
            repo, what, revision, rest = "/".join(parts[:2]), "resolve", parts[3], "/".join(parts[4:])
        else:
            return self.answer(404, b"{}")
        commit = REFS.get((repo, revision), revision)
        files = FILES.get((repo, commit))
        if files is None:
            return self.answer(404, b"{}", [("X-Error-Code", "RevisionNotFound")])
        as_json = [("Content-Type", "application/json")]
        if what == "tree":
            return self.answer(200, json.dumps([entry(*one) for one in files.items()]).encode(), as_json)
        if what == "revision":
            info = {"_id": commit[:24], "id": repo, "modelId": repo, "sha": commit, "private": False}
            info |= {"siblings": [{"rfilename": path} for path in files], "tags": [], "downloads": 0, "likes": 0}
            return self.answer(200, json.dumps(info).encode(), as_json)
        data = files.get(rest)
        if data is None:
            return self.answer(404, b"", [("X-Error-Code", "EntryNotFound"), ("X-Repo-Commit", commit)])
        headers = [("X-Repo-Commit", commit), ("ETag", f'"{etag(rest, data)}"'), ("Accept-Ranges", "bytes")]
        if is_lfs(rest):
            headers += [("X-Linked-Etag", f'"{etag(rest, data)}"'), ("X-Linked-Size", str(len(data)))]
        start = self.headers.get("Range", "").removeprefix("bytes=").split("-")[0]
        if start:
            headers.append(("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}"))
            return self.answer(206, data[int(start) :], headers)
        self.answer(200, data, headers)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["NO_PROXY"] = "127.0.0.1"

from huggingface_hub import scan_cache_dir, snapshot_download  # noqa: E402
from huggingface_hub.utils import WeakFileLock  # noqa: E402
from huggingface_hub.utils import _shared_blobs as shared  # noqa: E402

CACHE = Path(sys.argv[1])


def publish(repo, files, ref=None):
    """Puts a revision on the Hub: a commit over its files."""
    files = {path: text.encode() for path, text in files.items()}
    commit = hashlib.sha1(json.dumps([repo, sorted((p, etag(p, d)) for p, d in files.items())]).encode()).hexdigest()
    FILES[repo, commit] = files
    if ref:
        REFS[repo, ref] = commit
    return commit


def download(repo, revision, allow=None, wait=0):
    """What `hf download` does; gives the error, if there is one."""
    time.sleep(wait)
    try:
        snapshot_download(repo, revision=revision, cache_dir=CACHE, allow_patterns=allow, max_workers=4)
    except Exception as error:  # noqa: BLE001
        return repr(error)


def missing(repo, revision, allow=None):
    """Files of a snapshot that do not have their content, and links in it that lead nowhere."""
    base = CACHE / f"models--{repo.replace('/', '--')}" / "snapshots" / revision
    wrong = []
    for path, data in FILES[repo, revision].items():
        try:
            if (base / path).read_bytes() != data:
                wrong.append(f"{path}: other content")
        except FileNotFoundError:
            if (base / path).is_symlink():
                wrong.append(f"{path}: leads nowhere")
            elif not allow or path in allow:
                wrong.append(f"{path}: is not there")
    return wrong


def scan():
    info = scan_cache_dir(CACHE)
    repos = {repo.repo_id: sorted(one.commit_hash for one in repo.revisions) for repo in info.repos}
    return {"repos": repos, "warnings": [str(one) for one in info.warnings], "size": info.size_on_disk}


def delete(*commits):
    strategy = scan_cache_dir(CACHE).delete_revisions(*commits)
    strategy.execute()
    return strategy.expected_freed_size


def verify(repo, revision):
    """What `hf cache verify` says, and how it ends."""
    words = ["-m", "huggingface_hub.cli.hf", "cache", "verify", repo, "--revision", revision]
    words += ["--cache-dir", str(CACHE), "--fail-on-missing-files", "--fail-on-extra-files"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    return {"code": done.returncode, "said": done.stdout + done.stderr}


def share(repo, commit, text, wait=0):
    """What a Xet download does with a file's blob and its link, in the library's order and by its own functions."""
    time.sleep(wait)
    data = text.encode()
    name, xet = hashlib.sha256(data).hexdigest(), hashlib.sha256(b"xet" + data).hexdigest()
    folder = CACHE / f"models--{repo.replace('/', '--')}"
    pointer = folder / "snapshots" / commit / "model.safetensors"
    blob = folder / "blobs" / name
    blob.parent.mkdir(parents=True, exist_ok=True)
    pointer.parent.mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    lock = CACHE / ".locks" / folder.name / f"{name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    given = {"blob_path": str(blob), "xet_hash": xet, "cache_dir": CACHE, "expected_size": len(data)}
    FILES[repo, commit] = {"model.safetensors": data}
    with WeakFileLock(lock):
        how = "linked" if not blob.exists() and shared.try_link_from_shared_store(**given) else "there"
        if not blob.exists():
            partial = blob.with_name(f"{name}.0123abcd.incomplete")
            partial.write_bytes(data)
            os.replace(partial, blob)
            how = "published" if shared.publish_blob_to_shared_store(**given) else "failed"
        if not pointer.exists():
            pointer.unlink(missing_ok=True)
            pointer.symlink_to(f"../../blobs/{name}")
    return how


def users():
    """Every shared blob, with the users that the library knows of, and the lines of its list."""
    found = {}
    for payload in shared.shared_store_blob_paths(CACHE):
        valid = shared._read_valid_manifest_references(payload, CACHE)
        lines = payload.with_name(f"{payload.name}.refs").read_text().split()
        found[payload.name] = {
            "valid": sorted(str(one.relative_to(CACHE)) for one in valid or ()),
            "lines": sorted(lines),
        }
    return found


WORK = {one.__name__: one for one in (publish, download, missing, scan, delete, verify, share, users)}
for line in sys.stdin:
    name, *given = json.loads(line)
    print(json.dumps(WORK[name](*given)), flush=True)
