"""Makes tables of every kind from a seed and has the recorded programs report on each, in one process.

    python any_table.py SCRIPTS FOLDER FIRST_SEED TIMES

Ends with a traceback and the table when one fails; nothing else is printed.
"""

import csv
import io
import os
import random
import sys
from pathlib import Path

NASTY = [
    "",
    "NA",
    "--",
    "0",
    "007",
    "-4",
    "3.5",
    "1,234",
    "1.234,5",
    "$5",
    "5%",
    "1_000",
    "٣",
    "1e308",
    "-1e308",
]
NASTY += ["1e-320", "9" * 30, "20200101", "2020-01-01", "0001-01-01", "9999-12-31", "31.12.1999", "12/31/20"]
NASTY += ["2020-01-01T10:00Z", "Jan 5, 2020", "x", "a,b", 'q"q', "l\nm", "|", "`", "ü", "😀", " "]
HEADS = ["a", "b", "", "a|b", "`c`", "2020", "date"]


def table(r: random.Random) -> bytes:
    if r.random() < 0.1:
        return bytes(r.randrange(1, 256) for _ in range(r.randrange(1, 300)))
    columns = r.randrange(1, 7)
    pools = [r.sample(NASTY, r.randrange(1, 5)) for _ in range(columns)]
    pools = [
        pool if r.random() < 0.6 else [str(r.gauss(0, 10.0 ** r.randrange(-5, 8))) for _ in range(40)]
        for pool in pools
    ]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=r.choice(",;\t|"), lineterminator=r.choice(["\n", "\r\n"]))
    writer.writerow([r.choice(HEADS) for _ in range(columns)])
    for _ in range(r.randrange(60)):
        row = [r.choice(pool) for pool in pools]
        writer.writerow(row if r.random() < 0.97 else row[:1])
    return text.getvalue().encode(r.choice(["utf-8", "utf-8-sig", "utf-16"]))


def main(scripts: str, folder: str, first_seed: int, times: int) -> None:
    sys.path.insert(0, scripts)
    os.chdir(folder)
    import report  # the recorded model's, found through the path above
    import table as reading

    reading.INPUTS = Path(folder, "in")
    reading.INPUTS.mkdir()
    for seed in range(first_seed, first_seed + times):
        content = table(random.Random(seed))
        (reading.INPUTS / "any.csv").write_bytes(content)
        try:
            title = report.write(reading.load())
        except Exception as error:
            raise SystemExit(f"seed {seed}: {error!r}: {content!r}") from error
        written = Path("outputs/report.md").read_text(encoding="utf-8")
        assert written.startswith(f"# {title}\n"), seed
        assert written.count("```") % 2 == 0, seed
        assert " nan" not in written, seed
        assert " inf" not in written, seed


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
