"""Self-supervised methods, one module each: settings, the views they need, and their loss."""

from typing import Annotated

from pydantic import Field

from bingo.methods.bingo import Bingo
from bingo.methods.compress import Compress
from bingo.methods.disco import Disco
from bingo.methods.moco import Moco
from bingo.methods.seed import Seed

Student = Annotated[Moco | Bingo | Seed | Disco | Compress, Field(discriminator="method")]
