"""Windows of the UTC calendar."""

from datetime import UTC, datetime, timedelta

from quarterdeck.contracts.budget import Window

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def window_start_ms(window: Window, at_ms: int) -> int:
    """When the window around `at_ms` began, in ms since the epoch; 0 for `total`. Weeks begin on Monday."""
    if window == "total":
        return 0
    moment = (_EPOCH + timedelta(milliseconds=at_ms)).replace(minute=0, second=0, microsecond=0)
    if window != "hour":
        moment = moment.replace(hour=0)
    if window == "week":
        moment -= timedelta(days=moment.weekday())
    if window == "month":
        moment = moment.replace(day=1)
    return (moment - _EPOCH) // timedelta(milliseconds=1)
