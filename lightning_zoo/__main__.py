import sys

from lightning_zoo.cli import main

sys.exit(main())
