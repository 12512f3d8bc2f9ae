"""`python -m greenhouse` is the same as `greenhouse`."""

from greenhouse.main import run

run()
