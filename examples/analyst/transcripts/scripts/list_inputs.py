import pathlib

for path in sorted(pathlib.Path("/inputs").iterdir()):
    print(path, path.stat().st_size, "bytes")
