"""Turns the words that the sensor chips send into physical values.

Formulas as printed in the chips' data sheets; every probe, real or simulated, sends these words.
"""

WORD_MAX = 0xFFFF
SOIL_DRY_WORD = 52_000  # the capacitive probe in air ...
SOIL_WET_WORD = 22_000  # ... and in water


def celsius(word: int) -> float:
    """Temperature from an SHT31 word."""
    return -45 + 175 * word / WORD_MAX


def relative_humidity(word: int) -> float:
    """Relative humidity in percent from an SHT31 word."""
    return 100 * word / WORD_MAX


def soil_moisture(word: int) -> float:
    """Soil moisture in percent; the probe's word falls as the soil gets wetter."""
    return 100 * (SOIL_DRY_WORD - word) / (SOIL_DRY_WORD - SOIL_WET_WORD)


def lux(word: int) -> float:
    """Illuminance from a BH1750 word, default measuring time."""
    return word / 1.2
