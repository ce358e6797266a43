"""`python -m regcls`, which `mlflow run` calls."""

import sys

from regcls.cli import main

sys.exit(main())
