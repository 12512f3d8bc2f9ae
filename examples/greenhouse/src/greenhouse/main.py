"""The command `greenhouse`: arguments, settings, exit codes.

Data goes to stdout, everything else to stderr. Exit codes: 0 done or stopped by a signal,
1 the gateway failed, 2 the arguments or settings are wrong.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from greenhouse import __version__, app, logs, settings
from greenhouse.notify import Notifier
from greenhouse.selftest import SelfTestError
from greenhouse.storage import StorageError, data_dir

log = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_USAGE = 2


def run() -> NoReturn:
    """Entry point of the command."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Does what `argv` says; returns the exit code."""
    args = _parser().parse_args(argv)
    directory = data_dir()
    try:
        loaded = settings.load(_config_file(args.config, directory), os.environ)
    except settings.SettingsError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return EXIT_USAGE
    if args.check_config:
        print(loaded.table())
        for name in loaded.unknown_variables:
            print(f"warning: `{name}` is no setting of greenhouse", file=sys.stderr)
        return 0
    logs.set_up(loaded.settings.log.level, loaded.settings.log.format)
    # Not an error: the variable may belong to a newer release that was rolled back.
    for name in loaded.unknown_variables:
        log.warning("`%s` is no setting of greenhouse", name, extra={"variable": name})
    try:
        if args.once:
            values = asyncio.run(app.read_once(loaded.settings, directory))
            print(json.dumps(values))
        else:
            asyncio.run(app.serve(loaded.settings, directory, Notifier()))
    except SelfTestError as error:
        log.error("self-test failed: %s", error)
        return EXIT_FAILED
    except (StorageError, app.StartError) as error:
        log.error("%s", error)
        return EXIT_FAILED
    except Exception:
        log.exception("unexpected error, please report it")
        return EXIT_FAILED
    return 0


def _config_file(given: Path | None, directory: Path) -> Path | None:
    """`--config`, else `GREENHOUSE_CONFIG`, else `greenhouse.toml` beside the data if it exists."""
    if given:
        return given
    if named := os.environ.get(settings.CONFIG_VARIABLE):
        return Path(named)
    usual = directory / "greenhouse.toml"
    return usual if usual.exists() else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="greenhouse",
        description="Reads the greenhouse's sensors, keeps the readings, raises alarms and serves "
        "the status over HTTP.",
    )
    parser.add_argument("--version", action="version", version=f"greenhouse {__version__}")
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings as TOML")
    parser.add_argument(
        "--check-config", action="store_true", help="show the settings and their sources, then exit"
    )
    parser.add_argument(
        "--once", action="store_true", help="read all sensors once, print them as JSON, then exit"
    )
    return parser
