"""Run the command line as ``python -m bingo``."""

from bingo.cli.main import main

main()
