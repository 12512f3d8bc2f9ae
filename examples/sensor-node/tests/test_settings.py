import unittest

from sensor_node.settings import DEFAULTS, Settings, seconds


class SettingsTest(unittest.TestCase):
    def test_times(self):
        for text, expected in (("10s", 10), ("500ms", 0.5), ("5m", 300), ("1h", 3600)):
            with self.subTest(text=text):
                self.assertAlmostEqual(seconds(text), expected)
        for text in ("", "10", "s", "-1s", "ten s"):
            with self.subTest(text=text):
                self.assertRaises(ValueError, seconds, text)

    def test_what_is_not_said_has_its_default(self):
        settings = Settings({"high": "25.5"})
        self.assertEqual(settings.high, 25.5)
        self.assertEqual(settings.window, int(DEFAULTS["window"]))
        self.assertEqual(settings.problems, [])

    def test_a_wrong_value_is_told_and_does_not_stop_the_node(self):
        settings = Settings({"interval": "soon", "window": 0})
        self.assertEqual(settings.interval, 10)
        self.assertEqual(settings.window, 6)
        self.assertEqual(len(settings.problems), 2)
