"""Run the ``mlcore`` program, as the command or as ``python -m mlcore``."""

import gc


def main() -> None:
    """Run it, and look for no garbage meanwhile: a command lives shortly and keeps what it makes."""
    gc.set_threshold(1_000_000)  # before the imports, which make most of what there is
    try:
        from mlcore import cli

        cli.main()
    finally:
        gc.freeze()  # nor at the end, when all of it goes


if __name__ == "__main__":
    main()
