from columns import describe_all
from table import load

print(describe_all(load()))
