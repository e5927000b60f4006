"""Self-supervised methods, one module each: settings, the views they need, and their loss."""

from bingo.methods.bingo import Bingo
from bingo.methods.compress import Compress
from bingo.methods.disco import Disco
from bingo.methods.moco import Moco, TrainedTeacher
from bingo.methods.seed import Seed
from bingo.study import method

# A study file may name these; the schema reads them here, because the study stands below the methods.
method.STUDENTS[:] = [Moco, Bingo, Seed, Disco, Compress]
method.TEACHERS[:] = [TrainedTeacher]
