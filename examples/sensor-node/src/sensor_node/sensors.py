"""Where degrees come from: chips on a board, a simulation elsewhere. `read()` gives degrees Celsius or
raises `OSError`."""


class Simulated:
    """A slow wave around 21 degrees with a little noise; the same every time."""

    def __init__(self, seed=1):
        self.state = seed
        self.steps = 0

    def read(self):
        self.state = (self.state * 1103515245 + 12345) & 0x7FFFFFFF
        self.steps += 1
        phase = self.steps % 60
        wave = phase if phase < 30 else 60 - phase
        return 18.0 + wave * 0.2 + (self.state >> 16 & 0xFF) / 512


class Adc:
    """An LM35 (10 mV per degree) on an analogue pin with a range of 3.3 V."""

    def __init__(self, adc):
        self.adc = adc

    def read(self):
        return self.adc.read_u16() * 330 / 65535


class Tmp102:
    """A TMP102 on I2C: 12 bits, two's complement, a sixteenth of a degree each."""

    ADDRESS = 0x48

    def __init__(self, bus):
        self.bus = bus

    def read(self):
        high, low = self.bus.readfrom_mem(self.ADDRESS, 0, 2)
        raw = high << 4 | low >> 4
        if raw & 0x800:
            raw -= 0x1000
        return raw / 16


def pick(text):
    """The sensor that a setting names: `simulated`, `adc:PIN` or `tmp102:SCL,SDA`."""
    kind, _, where = text.partition(":")
    if kind == "simulated":
        return Simulated()
    if kind == "adc":
        from machine import ADC, Pin

        return Adc(ADC(Pin(int(where))))
    if kind == "tmp102":
        from machine import Pin, SoftI2C

        scl, sda = where.split(",")
        return Tmp102(SoftI2C(scl=Pin(int(scl)), sda=Pin(int(sda))))
    raise ValueError("`%s` is no sensor" % text)
