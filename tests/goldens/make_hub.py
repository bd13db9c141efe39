#!/usr/bin/env python3
"""Makes tests/goldens/hub.json: what huggingface_hub leaves on a disk, and what it says of it.

    python3 -m venv /some/venv && /some/venv/bin/pip install huggingface_hub==2.4.0
    /some/venv/bin/python tests/goldens/make_hub.py

The library downloads from a small Hub that this script serves on loopback; then the trees that it left are written down
entry by entry, with links' texts and files' contents, beside what its own `scan_cache_dir()` says (said.py). A file's content is
its first bytes, and zeros up to its size. The same run gives the same bytes: times in `.metadata` files are replaced.
"""
import hashlib
import json
import os
import re
import tempfile
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

OUT = Path(__file__).resolve().parent / "hub.json"
API = {"models": "model", "datasets": "dataset", "spaces": "space"}
REPOS = {}


def sha1(data):
    return hashlib.sha1(data).hexdigest()


class File:
    def __init__(self, data):
        self.data = data
        self.oid = sha1(b"blob %d\0" % len(data) + data)
        self.lfs = len(data) > 10_000
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.etag = self.sha256 if self.lfs else self.oid


def push(repo, files, kind="model", ref="main"):
    """Adds a commit and moves a ref to it."""
    files = {path: File(data.encode() if isinstance(data, str) else data) for path, data in files.items()}
    commit = sha1(json.dumps([kind, repo, ref, sorted((path, file.oid) for path, file in files.items())]).encode())
    state = REPOS.setdefault((kind, repo), {"refs": {}, "commits": {}})
    state["commits"][commit] = files
    state["refs"][ref] = commit
    return commit


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, body=b"", **headers):
        self.send_response(code)
        for key, value in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, what, **headers):
        self.answer(404, json.dumps({"error": f"{what} not found"}).encode(), X_Error_Code=what, **headers)

    def find(self, kind, repo, revision):
        state = REPOS.get((kind, repo))
        if state is None:
            return self.missing("RepoNotFound")
        commit = state["refs"].get(revision, revision)
        if commit not in state["commits"]:
            return self.missing("RevisionNotFound")
        return commit, state["commits"][commit]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "api" and parts[1] in API:
            kind, rest = API[parts[1]], parts[2:]
            verb = next((at for at, part in enumerate(rest) if part in ("revision", "tree")), len(rest))
            revision = rest[verb + 1] if verb < len(rest) else "main"
            found = self.find(kind, "/".join(rest[:verb]), revision)
            if found and rest[verb:][:1] == ["tree"]:
                return self.answer(200, json.dumps([self.entry(*item) for item in sorted(found[1].items())]).encode())
            if found:
                return self.info("/".join(rest[:verb]), *found)
            return
        kind = "model"
        if parts[0] in API:
            kind, parts = API[parts[0]], parts[1:]
        at = parts.index("resolve")
        found = self.find(kind, "/".join(parts[:at]), parts[at + 1])
        if found is None:
            return
        commit, files = found
        file = files.get("/".join(parts[at + 2:]))
        if file is None:
            return self.missing("EntryNotFound", X_Repo_Commit=commit)
        headers = {"ETag": f'"{file.etag}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes",
                   "Content_Type": "application/octet-stream"}
        if file.lfs:
            headers |= {"X_Linked_ETag": f'"{file.etag}"', "X_Linked_Size": len(file.data)}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2] or len(file.data) - 1), len(file.data) - 1)
            headers["Content_Range"] = f"bytes {start}-{end}/{len(file.data)}"
            return self.answer(206, file.data[start:end + 1], **headers)
        self.answer(200, file.data, **headers)

    def entry(self, path, file):
        entry = {"type": "file", "path": path, "size": len(file.data), "oid": file.oid}
        if file.lfs:
            entry["lfs"] = {"oid": file.sha256, "size": len(file.data), "pointerSize": 130}
        return entry

    def info(self, repo, commit, files):
        siblings = [{"rfilename": path} for path in sorted(files)]
        self.answer(200, json.dumps({"_id": commit[:24], "id": repo, "sha": commit, "private": False, "gated": False,
                                     "disabled": False, "downloads": 0, "likes": 0, "tags": [],
                                     "lastModified": "2026-01-01T00:00:00.000Z", "siblings": siblings}).encode())

    def log_message(self, *_):
        pass


def weights(rows, name="model.embed_tokens.weight"):
    """A safetensors file of one matrix of zeros."""
    header = json.dumps({"__metadata__": {"format": "mlx"},
                         name: {"dtype": "BF16", "shape": [rows, 64], "data_offsets": [0, rows * 128]}}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + bytes(rows * 128)


def config(context):
    return json.dumps({"model_type": "llama", "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 1,
                       "num_attention_heads": 2, "max_position_embeddings": context, "torch_dtype": "bfloat16"})


def content():
    base = {"config.json": config(2048), "model.safetensors": weights(320), ".gitattributes": "*.safetensors lfs\n",
            "README.md": "---\nlicense: mit\n---\n# Tiny\n", "tokenizer/vocab/words.txt": "a\nb\n"}
    ids = {"first": push("acme/tiny-llama", base | {"model.safetensors": weights(256)}),
           "second": push("acme/tiny-llama", base)}
    yield ids
    ids["third"] = push("acme/tiny-llama", base | {"config.json": config(4096), "extra/notes.txt": "longer\n"})
    ids["pull"] = push("acme/tiny-llama", base | {"README.md": "# A pull request\n"}, ref="refs/pr/1")
    ids["branch"] = push("acme/tiny-llama", base | {"config.json": config(8192)}, ref="exp/long-context")
    REPOS["model", "acme/tiny-llama"]["refs"]["v1.0"] = ids["second"]
    push("acme/some-files", base | {"consolidated.safetensors": weights(300), "onnx/model.onnx": bytes(20_000)})
    push("acme/no-weights", base)
    push("tiny", base)
    push("acme/words", {"data/train.jsonl": '{"text": "a"}\n' * 2000, "README.md": "# Words\n"}, kind="dataset")
    push("acme/demo", {"app.py": "print('hello')\n", "README.md": "---\nsdk: gradio\n---\n"}, kind="space")
    push("acme/to-a-folder", base)
    yield ids


def download(work):
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    steps = content()
    ids = next(steps)
    snapshot_download("acme/tiny-llama", revision=ids["first"])
    snapshot_download("acme/tiny-llama")
    next(steps)
    # `main` has moved on: the second commit keeps the ref of its tag alone, and the first has none.
    snapshot_download("acme/tiny-llama")
    for revision in ("refs/pr/1", "exp/long-context", "v1.0"):
        snapshot_download("acme/tiny-llama", revision=revision)
    try:
        hf_hub_download("acme/tiny-llama", "adapter_config.json")
        raise SystemExit("the Hub has a file that it should not have")
    except EntryNotFoundError:
        pass
    snapshot_download("acme/some-files", allow_patterns=["*.json", "model*.safetensors"])
    snapshot_download("acme/no-weights", allow_patterns=["*.json", "*.md"])
    hf_hub_download("tiny", "config.json")
    snapshot_download("tiny")
    snapshot_download("acme/words", repo_type="dataset")
    snapshot_download("acme/demo", repo_type="space")
    snapshot_download("acme/to-a-folder", local_dir=work / "folder/to-a-folder")
    return ids


def recorded(root):
    entries = []
    for path in sorted(root.rglob("*")):
        entry = {"path": path.relative_to(root).as_posix()}
        if path.is_symlink():
            entry["link"] = os.readlink(path)
        elif path.is_file():
            data = path.read_bytes()
            if path.suffix == ".metadata":
                commit, etag, _ = data.decode().splitlines()
                data = f"{commit}\n{etag}\n1767225600.0\n".encode()
            entry |= {"size": len(data), "starts": data.rstrip(b"\0").decode("latin-1")}
        entries.append(entry)
    return entries


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        os.environ |= {"HF_HOME": str(work / "home"), "HF_HUB_CACHE": str(work / "hub"), "HF_HUB_DISABLE_XET": "1",
                       "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_DISABLE_TELEMETRY": "1",
                       "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        os.environ.pop("HF_HUB_OFFLINE", None)
        ids = download(work)
        import huggingface_hub
        from said import said

        golden = {"huggingface_hub": huggingface_hub.__version__, "commits": ids, "said": said(work / "hub"),
                  "hub": recorded(work / "hub"), "folder": recorded(work / "folder")}
    trees = {tree: ",\n".join(f"  {json.dumps(entry)}" for entry in golden.pop(tree)) for tree in ("hub", "folder")}
    text = json.dumps(golden, indent=1).removesuffix("\n}")
    text += "".join(f',\n "{tree}": [\n{entries}\n ]' for tree, entries in trees.items())
    OUT.write_text(text + "\n}\n")
    json.loads(OUT.read_text())


if __name__ == "__main__":
    main()
