import sys

from rapidbyte_dagster.cli.main import main

sys.exit(main())
