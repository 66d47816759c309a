import pathlib

import pandas as pd

path = min(pathlib.Path("/inputs").iterdir())
frame = pd.read_csv(path, sep=None, engine="python", encoding="utf-8-sig")
print(frame.describe(include="all"))
print(frame.dtypes.not_there)
