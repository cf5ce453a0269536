"""python -m lmcompress is the command lmcompress."""

from lmcompress.cli import main

main()
