"""The image of Docker sandboxes: links, made-up files and nothing else, so that no registry is ever asked.

The host's runtime is bind-mounted over it, as under bubblewrap.
"""

import hashlib
import io
import json
import posixpath
import tarfile

from services.sandbox.adapters.runtime import RESERVED, Root

REPOSITORY = "quarterdeck-sandbox"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def archive(root: Root, machine: str) -> tuple[str, bytes]:
    """(tag, tar): what `docker load` takes. The same root gives the same tag."""
    layer = _layer(root)
    digest = hashlib.sha256(layer).hexdigest()
    tag = f"{REPOSITORY}:{digest[:16]}"
    config = {
        "architecture": _ARCHITECTURES[machine],
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "quarterdeck"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    parts = {
        "layer.tar": layer,
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    return tag, _tar([(name, tarfile.REGTYPE, content) for name, content in parts.items()])


def _layer(root: Root) -> bytes:
    linked = {path for path, _ in root.symlinks}
    folders = {path for path in RESERVED if path not in linked}
    for path in (*linked, *(path for path, _ in root.files)):
        folders |= set(_parents(path))
    entries = [(folder, tarfile.DIRTYPE, b"") for folder in sorted(folders)]
    entries += [(path, tarfile.SYMTYPE, said.encode()) for path, said in sorted(root.symlinks)]
    entries += [(path, tarfile.REGTYPE, content) for path, content in sorted(root.files)]
    return _tar(entries)


def _parents(path: str) -> list[str]:
    found = []
    while (path := posixpath.dirname(path)) != "/":
        found.append(path)
    return found


def _tar(entries: list[tuple[str, bytes, bytes]]) -> bytes:
    """Times and owners are fixed, so that equal content is equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, kind, content in entries:
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type = kind
            entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            if path == "/tmp":  # noqa: S108 - inside; the tmpfs that covers it takes its mode
                entry.mode = 0o1777
            if kind == tarfile.SYMTYPE:
                entry.linkname = content.decode()
            else:
                entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
