import unittest

from sensor_node.readings import Threshold, Window


class WindowTest(unittest.TestCase):
    def test_the_average_is_of_the_last_readings(self):
        window = Window(3)
        for value in (100, 1, 2, 3):
            window.add(value)
        self.assertAlmostEqual(window.average(), 2)

    def test_one_outlier_does_not_move_it_far(self):
        window = Window(6)
        for value in (20, 21, 20, 21, 500, 20):
            window.add(value)
        self.assertLess(window.average(), 21)


class ThresholdTest(unittest.TestCase):
    def test_it_does_not_flutter(self):
        threshold = Threshold(30, 1)
        changes = [threshold.update(value) for value in (29, 30, 29.5, 30, 28.9, 29.5)]
        self.assertEqual(changes, [False, True, False, False, True, False])
        self.assertFalse(threshold.is_high)
