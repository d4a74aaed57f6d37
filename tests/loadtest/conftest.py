import sys
from pathlib import Path

# `loadtest` isn't installed. At the end of the path: the installed `proxy` and `protocol` keep coming first.
sys.path.append(str(Path(__file__).parents[2]))
