"""The node: reads, averages, warns, tells. `run` is what the board starts."""

import asyncio

import pytheas

from . import collector, sensors
from .readings import Threshold, Window
from .settings import Settings


class Node:
    """One sensor and what is done with its readings. A sensor that fails now and then is no reason to
    stop: failures are counted and told."""

    def __init__(self, settings, sensor):
        self.settings = settings
        self.sensor = sensor
        self.window = Window(settings.window)
        self.warning = Threshold(settings.high, settings.hysteresis)
        self.failures = 0

    def step(self):
        """Reads once; the average, or none when the sensor failed."""
        try:
            self.window.add(self.sensor.read())
        except OSError as error:
            self.failures += 1
            pytheas.metric("failures", self.failures)
            pytheas.log("the sensor failed:", error)
            return None
        average = self.window.average()
        if self.warning.update(average):
            pytheas.log("warm" if self.warning.is_high else "calm again", "%.1f" % average)
        pytheas.metric("temperature", round(average, 2))
        pytheas.metric("warm", int(self.warning.is_high))
        return average

    async def tell(self, average):
        if self.settings.collector:
            try:
                await collector.post(self.settings.collector, {"temperature": round(average, 2)})
            except (OSError, ValueError, asyncio.TimeoutError) as error:
                pytheas.log("not told:", error)

    async def run(self, steps=None):
        """Reads for ever, or so many times; the release is confirmed by its first good reading."""
        confirmed = False
        while steps is None or steps > 0:
            average = self.step()
            if average is not None:
                if not confirmed:
                    pytheas.confirm()
                    confirmed = True
                await self.tell(average)
            if steps is not None:
                steps -= 1
            if steps != 0:
                await asyncio.sleep(self.settings.interval)


async def run():
    """Starts the node with the board's settings, and asks the hub for updates meanwhile."""
    settings = Settings(pytheas.settings)
    for problem in settings.problems:
        pytheas.log(problem)
    node = Node(settings, sensors.pick(settings.sensor))
    updates = asyncio.create_task(pytheas.run_forever())
    try:
        await node.run()
    finally:
        updates.cancel()
