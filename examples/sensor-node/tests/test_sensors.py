import sys
import unittest

from sensor_node import sensors


class Bus:
    """An I2C bus with the registers of one chip."""

    def __init__(self, registers):
        self.registers = registers

    def readfrom_mem(self, address, register, size):
        if address != sensors.Tmp102.ADDRESS:
            raise OSError(19)
        return bytes(self.registers[register : register + size])


class Pin:
    def __init__(self, value):
        self.value = value

    def read_u16(self):
        return self.value


class SensorsTest(unittest.TestCase):
    def test_tmp102_words_of_the_data_sheet(self):
        for word, degrees in ((0x7FF0, 127.9375), (0x1900, 25), (0x0040, 0.25), (0xE700, -25)):
            with self.subTest(word=word):
                sensor = sensors.Tmp102(Bus([word >> 8, word & 0xFF]))
                self.assertAlmostEqual(sensor.read(), degrees)

    def test_an_analogue_pin(self):
        self.assertAlmostEqual(sensors.Adc(Pin(13107)).read(), 66, delta=0.01)

    def test_the_simulation_is_the_same_every_time(self):
        first, second = sensors.Simulated(), sensors.Simulated()
        values = [first.read() for _ in range(100)]
        self.assertEqual(values, [second.read() for _ in range(100)])
        self.assertTrue(all(15 < value < 30 for value in values))

    def test_an_unknown_sensor_is_refused(self):
        self.assertRaises(ValueError, sensors.pick, "thermometer")

    @unittest.skipUnless(sys.platform == "qemu", "needs a board")
    def test_a_board_has_its_hardware(self):
        import machine

        self.assertTrue(hasattr(machine, "mem32"))
