"""What huggingface_hub says of the cache at `sys.argv[1]`, as JSON: used by make_hub.py, and by the test of it."""
import json
import sys

from huggingface_hub import scan_cache_dir


def said(cache):
    info = scan_cache_dir(cache)
    repos = []
    for repo in sorted(info.repos, key=lambda repo: (repo.repo_type, repo.repo_id)):
        revisions = []
        for revision in sorted(repo.revisions, key=lambda revision: revision.commit_hash):
            files = {str(file.file_path.relative_to(revision.snapshot_path)): file.size_on_disk
                     for file in revision.files}
            revisions.append({"commit": revision.commit_hash, "refs": sorted(revision.refs),
                              "size": revision.size_on_disk, "files": dict(sorted(files.items())),
                              "freed_alone": info.delete_revisions(revision.commit_hash).expected_freed_size})
        every = info.delete_revisions(*(revision.commit_hash for revision in repo.revisions))
        repos.append({"id": repo.repo_id, "kind": repo.repo_type, "size": repo.size_on_disk,
                      "freed": every.expected_freed_size, "revisions": revisions})
    warnings = sorted(str(warning).replace(f"{cache}/", "") for warning in info.warnings)
    return {"size": info.size_on_disk, "warnings": warnings, "repos": repos}


if __name__ == "__main__":
    print(json.dumps(said(sys.argv[1])))
