"""Settings as text, from the hub or `pyproject.toml`, turned into what the node works with."""

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
DEFAULTS = {
    "sensor": "simulated",
    "interval": "10s",
    "window": "6",
    "high": "30.0",
    "hysteresis": "1.0",
    "collector": "",
}


def seconds(text):
    """`10s`, `500ms`, `5m` or `1h` as seconds."""
    number = text.rstrip("msh")
    try:
        value = float(number) * UNITS[text[len(number):]]
    except (KeyError, ValueError):
        raise ValueError("`%s` is no time: write e.g. 10s" % text)
    if value <= 0:
        raise ValueError("`%s` is no time: it has to be more than nothing" % text)
    return value


class Settings:
    """One attribute per setting. A wrong value keeps its default, and `problems` says so: a node
    that stops because of a typing mistake cannot be told better."""

    def __init__(self, given):
        self.problems = []
        self.sensor = self._take(given, "sensor", str)
        self.interval = self._take(given, "interval", seconds)
        self.window = self._take(given, "window", self._positive)
        self.high = self._take(given, "high", float)
        self.hysteresis = self._take(given, "hysteresis", float)
        self.collector = self._take(given, "collector", str)

    def _take(self, given, name, read):
        try:
            return read(str(given.get(name, DEFAULTS[name])))
        except ValueError as error:
            self.problems.append("%s: %s" % (name, error))
            return read(DEFAULTS[name])

    @staticmethod
    def _positive(text):
        number = int(text)
        if number < 1:
            raise ValueError("`%s` is less than 1" % text)
        return number
