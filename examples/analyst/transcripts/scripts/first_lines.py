import pathlib

path = min(pathlib.Path("/inputs").iterdir())
with path.open("rb") as file:
    text = file.read(6_000).decode("utf-8", "replace")
for number, line in enumerate(text.splitlines()[:120], 1):
    print(number, line)
