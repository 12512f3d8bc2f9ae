"""What is made of readings: an average that one outlier does not move far, and a warning that does
not flutter."""


class Window:
    """The last readings."""

    def __init__(self, size):
        self.size = size
        self.values = []

    def add(self, value):
        self.values.append(value)
        if len(self.values) > self.size:
            del self.values[0]

    def average(self):
        """The mean; without the two extremes when there are four or more."""
        values = sorted(self.values)
        if len(values) >= 4:
            values = values[1:-1]
        return sum(values) / len(values)


class Threshold:
    """High from `limit` on, until it falls below `limit - hysteresis`."""

    def __init__(self, limit, hysteresis):
        self.limit = limit
        self.hysteresis = hysteresis
        self.is_high = False

    def update(self, value):
        """Whether this value changed the state."""
        if self.is_high:
            now = value >= self.limit - self.hysteresis
        else:
            now = value >= self.limit
        changed = now != self.is_high
        self.is_high = now
        return changed
