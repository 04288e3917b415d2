"""`python -m worker`: one worker process, configured by `MASAN_...` variables."""

import sys

from worker.arenas import share_arenas
from worker.logs import configure_logging
from worker.settings import WorkerSettingsError, load_settings


def main() -> int:
    """Exit code 2 for a setting that cannot be used, named on one line of stderr."""
    share_arenas()
    try:
        settings = load_settings()
        configure_logging(settings.log_level)
        from worker.process import run_worker  # torch takes seconds to load; a wrong setting is told before

        return run_worker(settings)
    except WorkerSettingsError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
