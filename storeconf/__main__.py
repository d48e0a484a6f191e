"""Run the command line as `python -m storeconf`."""

from storeconf.cli import main

main()
